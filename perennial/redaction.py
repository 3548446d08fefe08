"""Secrets out of texts that people and logs see. It finds what looks like one; nothing is stored here.

What is taken for a secret: the password in a URL, a value in a query string whose name says so, and the values of this
process's environment variables whose names say so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
_NAME = r"(?:secret|passw|token|auth_string|api_?key|access_?key|private_?key|credential|signature|[_-]sas\b)"
_SECRET_NAME = re.compile(_NAME, re.I)
_USER_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@'\"]*):[^\s'\"]+@", re.I)
_QUERY = re.compile(rf"([?&][\w.-]*{_NAME}[\w.-]*=)[^&\s'\"]+", re.I)
# A shorter value is no secret, and would be found in every second word.
_SHORTEST = 8


def secret_values(environment: Mapping[str, str] | None = None) -> list[str]:
    """The environment's secrets, the longest first: one may be a part of another."""
    known = os.environ if environment is None else environment
    values: set[str] = set()
    for name, value in known.items():
        if _SECRET_NAME.search(name):
            # PREFECT_…_AUTH_STRING is user:password.
            values |= {value, value.partition(":")[2]}
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with every secret replaced by ***."""
    for value in secret_values(environment):
        text = text.replace(value, HIDDEN)
    if "://" in text:
        text = _USER_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)
