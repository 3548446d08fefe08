"""What a request's Content-Type says: the kind of its body, and how its text is coded. It parses no body."""

from __future__ import annotations

import codecs
import re

from perennial.serving.protocol.problems import Problem

JSON, CSV, BINARY = "application/json", "text/csv", "application/octet-stream"
_UTF_8 = ("utf-8", "ascii")
# Codings of text; Python's others turn texts into something else.
_TEXT = re.compile(
    r"utf-8(-sig)?|utf-16(-[lb]e)?|utf-32(-[lb]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|gb2312|gbk|gb18030|big5"
    r"|shift_jis|euc_(jp|kr)|mac-roman"
)


def kind_of(content_type: str, *others: str) -> tuple[str, str]:
    """The kind of a body, JSON where none is said, and its text's coding.

    Args:
        others: Kinds that are understood beside JSON.

    Raises:
        Problem: 415 for a kind, or a parameter of it, that is not understood.
    """
    if content_type in ("", JSON):
        return JSON, "utf-8"
    kind, *parts = (part.strip() for part in content_type.split(";"))
    kind = kind.lower() or JSON
    if kind.endswith("+json"):
        kind = JSON
    if kind != JSON and kind not in others:
        raise Problem(415, f"content type {kind[:80]!r} is not understood", rule=" or ".join((JSON, *others)))
    parameters = {}
    for part in filter(None, parts):
        name, _, value = part.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"').lower()
    charset = _coding(parameters.pop("charset", "utf-8"))
    if kind == JSON:
        if charset not in _UTF_8:
            raise Problem(415, f"JSON in {charset!r} is not understood", rule="JSON in UTF-8")
        parameters = {name: value for name, value in parameters.items() if name == "format"}
    if kind == CSV and parameters.get("header") == "present":
        del parameters["header"]
    if parameters and kind != BINARY:
        told = ", ".join(f"{name}={value}" for name, value in parameters.items())
        rule = "charset" if kind == JSON else "charset, and header=present: the first line names the columns"
        raise Problem(415, f"the parameter {told[:80]!r} of {kind} is not understood", rule=f"at most {rule}")
    return kind, charset


def _coding(name: str) -> str:
    try:
        found = codecs.lookup(name).name
    except LookupError:
        found = ""
    if not _TEXT.fullmatch(found):
        raise Problem(415, f"the charset {name[:40]!r} is not understood", rule="charset=utf-8")
    return found
