"""Categories that move on by nature: months, weekdays, dates, years, seasons, versions. Nothing is compared here."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_SEASONS = {"spring", "summer", "autumn", "fall", "winter"}
_LONG = {
    "january", "february", "march", "april", "june", "july", "august", "september", "sept", "october", "november",
    "december", "monday", "tuesday", "tues", "wednesday", "thursday", "thurs", "friday", "saturday", "sunday",
}  # fmt: skip
_DATE = re.compile(r"(1[89]|2[01])\d\d([-/. ]?(q[1-4]|w?\d{1,2}|[a-z]{3,9})([-/. ]\d{1,2})?)?([ t].*)?")
_VERSION = re.compile(r"v?\d+(\.\d+)+([-+.][0-9a-z.]+)?|v\d+")
_QUARTER = re.compile(r"q[1-4]([-/ ]?\d{2,4})?")


def is_of_calendar(values: Iterable[str]) -> bool:
    """Whether all values are of one family of names that come one after the other; False without any."""
    families = [_family(str(value).strip().lower()) for value in values]
    return bool(families) and families[0] != "" and len(set(families)) == 1


def _family(value: str) -> str:
    if value in _MONTHS or (value in _LONG and value[:3] in _MONTHS):
        return "month"
    if value in _DAYS or (value in _LONG and value[:3] in _DAYS):
        return "weekday"
    if value in _SEASONS:
        return "season"
    if _DATE.fullmatch(value):
        return "date"
    if _QUARTER.fullmatch(value):
        return "quarter"
    return "version" if _VERSION.fullmatch(value) else ""
