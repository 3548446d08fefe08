"""What a definition's values may be written as: durations, shares, crons; and the base of all sections. No section."""

from __future__ import annotations

import math
import numbers
import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*$")


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _parse_duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if not match:
            raise ValueError("a duration is a number and a unit: 30s, 15m, 12h, 7d or 2w")
        try:
            return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        except OverflowError:
            raise ValueError("a duration is at most 999999999d") from None
    if isinstance(value, timedelta):
        return value
    raise ValueError("a duration is a number and a unit: 30s, 15m, 12h, 7d or 2w")


def duration_text(value: timedelta) -> str:
    """`7d`, `12h`, `90s`: the shortest whole spelling of a duration, the one that the YAML takes."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["7d", "12h"]}),
]


MOST_CLASSES = 200
"""Of one target: each has a column in what is answered, logged and drawn."""


Share = Annotated[float, Field(ge=0, le=1)]


def _check_cron(value: object) -> object:
    fields = value.split() if isinstance(value, str) else []
    if len(fields) != 5 or not all(re.fullmatch(r"[\d*/,\-A-Za-z#?L]+", field) for field in fields):
        raise ValueError('a schedule is a cron expression of five fields, such as "0 6 * * *"')
    return value


Cron = Annotated[str, BeforeValidator(_check_cron)]


def _parse_percent(value: object) -> object:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    return float(match[1]) / 100 if match else value


Percent = Annotated[float, BeforeValidator(_parse_percent), Field(ge=0, le=1)]


Coverage = Annotated[
    float,
    BeforeValidator(_parse_percent),
    Field(gt=0, lt=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"},
            ]
        }
    ),
]


class Section(BaseModel):
    """The base of every part of a definition: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Schedule(Section):
    """A cron schedule, in UTC; none means on request only."""

    schedule: Cron | None = None


def class_word(value: object) -> str:
    """A class as text, however a column holds it: whole numbers without a fraction, other values as they are written.

    `2`, `2.0`, "2" and "2.0" are one class, 007 and 1.50 stay as they are, truth values are true and false. Floats in
    whose size whole numbers are not told apart keep a float's writing, so that they are never taken for a whole number.
    """
    if isinstance(value, str):
        return _word_of_text(value.strip())
    text = str(value)
    if text in ("True", "False"):
        return text.lower()
    if not isinstance(value, numbers.Real | Decimal) or not math.isfinite(value):
        return text
    number: Any = value
    if isinstance(value, numbers.Integral):
        return str(int(number))
    exact = 2**24 if type(value).__name__ in _SINGLE else 2**53
    if not isinstance(value, Decimal) and abs(number) >= exact:
        return text
    if number == number // 1:
        return str(int(number))
    written = f"{Decimal(text):f}"
    return written.rstrip("0") if isinstance(value, Decimal) else written


_SINGLE = ("float16", "float32")
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")


def _word_of_text(text: str) -> str:
    if whole := _WHOLE.fullmatch(text):  # what a CSV makes of whole numbers in a column with a gap
        return "0" if whole[1] == "-0" else whole[1]
    return text.lower() if text in ("True", "TRUE", "False", "FALSE") else text


def _class_name(value: object) -> object:
    if isinstance(value, bool):
        written = "yes, on or true" if value else "no, off or false"
        raise ValueError(f"YAML reads {written} without quotes as a truth value; quote it")
    return class_word(value) if isinstance(value, str | int | float) else value


ClassName = Annotated[str, BeforeValidator(_class_name), Field(min_length=1)]
