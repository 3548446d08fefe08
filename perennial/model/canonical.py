"""The one spelling of categories, ids and times, whatever road they come on. It reads no files and knows no model.

Ingestion, labels, the API, scoring, sources and suites all spell through this module, so that a category or an id
written by one of them is met by the others:

- **Missing** are null, NaN, NaT and the empty text.
- **Whole numbers** are their digits: 3, 3.0, the decimal 3.00 and the texts "3", "3.0" and "3.00" are "3"; -0 is "0".
- **Other numbers** are the shortest digits that read back as the number, in the precision that held them: 2.5, 0.1 in
  float32 and 1e-05 are "2.5", "0.1" and "0.00001"; so are texts with a signed exponent, as writers make them of floats
  ("1e-05", "1.5e+10"). Of decimals the zeros at the end go.
- **Texts** stay as they are written but for the kinds named here. "007", "1e3" and "+3" stay; so does "2.50",
  for nobody can tell a price from version 3.10, which is not 3.1.
- **Truth values** are "True" and "False"; so are the texts true, TRUE, false and FALSE.
- **Times** are "2012-12-21 22:00:00" in UTC, naive ones taken as UTC, with a fraction only where there is one; a
  midnight is its date, "2012-12-21". So are texts in ISO 8601 with dashes and at least the minutes.
- **Refused** are floats from 2^53 on (2^24 in float32), where neighbours are one number, and the texts that writers
  make of such floats ("9007199254740994.0", "1e+16"): what was written may have been another code. Bytes, lists and
  mappings are no categories.

A column of free text spells numbers, truth values and times so too, but leaves every text as it is.

An id of several columns is their spellings joined with "|"; a "|" or a backslash within one of them gets a backslash
before it.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import DataError

STR = pd.StringDtype(na_value=np.nan)  # what dtype "str" means in pandas 3
_EXACT = 2.0**53
_EXACT_SINGLE = 2.0**24
_TRUTHS = {"true": "True", "TRUE": "True", "True": "True", "false": "False", "FALSE": "False", "False": "False"}
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.(0+)")
# As Python, R, C and Arrow write very large and very small floats; 1e3 and 2E5 are codes.
_EXPONENT = re.compile(r"-?[0-9](?:\.[0-9]+)?e[+-][0-9]{1,3}")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r" ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
# The first characters of all texts that may be spelled otherwise: most texts are passed by this alone. And what is in
# each of them somewhere: digits alone are passed by this.
_SUSPECT_START = frozenset("0123456789-tTfF")
_SUSPECT_INSIDE = frozenset("-.eET ")
_STARTS, _INSIDE = (
    np.isin(np.arange(256), [ord(letter) for letter in letters]) for letters in (_SUSPECT_START, _SUSPECT_INSIDE)
)
_SUSPECTS = (
    r"^(?:-?(?:0|[1-9][0-9]*)\.0+|-0|true|TRUE|false|FALSE|-?[0-9](?:\.[0-9]+)?e[+-][0-9]{1,3}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*)$"
)
_SPELLED_TIMES = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*[1-9])?$"
_MISSING = (None, pd.NA, pd.NaT)


class Unspellable(ValueError):
    """A value that is no category, no id and no text; says what it is and what to give instead."""

    def __init__(self, problem: str, remedy: str = "Give a single text or number") -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def spelled(value: object) -> str | None:
    """One category or id in its spelling; None where it is missing.

    Raises:
        Unspellable: It has none.
    """
    if type(value) is str:
        return _of_text(value) if value and value[0] in _SUSPECT_START else value or None
    if type(value) is int and -_EXACT < value < _EXACT:
        return str(value)
    return _of_other(value)


def written(value: object) -> str | None:
    """One free text: as it is written; what is no text in its spelling; None where it is missing.

    Raises:
        Unspellable: It is neither text nor number.
    """
    return value or None if type(value) is str else _of_other(value)


def spelled_column(column: pd.Series[Any], *, free_text: bool = False) -> pd.Series[Any]:
    """A column's categories or ids in their spelling: pandas' `str` of shape (n,), NaN where missing, a new index.

    Raises:
        DataError: A value has none; column, row and value are named.
    """
    try:
        made = _spelled_series(column, free_text=free_text)
    except Unspellable as error:
        _refuse(column, error, written if free_text else spelled)
    return pd.Series(pd.array(made, dtype=STR), name=column.name)


def spelled_array(values: pa.Array | pa.ChunkedArray, *, free_text: bool = False) -> pa.Array | pa.ChunkedArray:
    """The same of Arrow's values, by their type and not by pandas': an integer stays one beside a missing value.

    Raises:
        Unspellable: A value, or the type, has no spelling.
    """
    if isinstance(values, pa.ChunkedArray):
        # One by one: together they may be more than Arrow's texts can address.
        return pa.chunked_array([spelled_array(part, free_text=free_text) for part in values.chunks], pa.string())
    kind = values.type
    if pa.types.is_dictionary(kind):
        names = spelled_array(values.dictionary, free_text=free_text)
        return names.take(values.indices)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        texts = values.cast(pa.string())
        return _without_empty(texts) if free_text else _spelled_texts(texts)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "True", "False")
    if pa.types.is_timestamp(kind):
        return _spelled_times(values)
    if pa.types.is_date(kind):
        return values.cast(pa.date32()).cast(pa.string())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        coded = values.dictionary_encode()
        names = pa.array(map(spelled, _scalars(coded.dictionary)), pa.string())
        return names.take(coded.indices)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise Unspellable(f"{kind} is neither text nor a number")
    return pa.array(map(spelled, values.to_pylist()), pa.string())


def joined(parts: Sequence[str]) -> str:
    """An id of several columns from their spellings; of one column it is the spelling itself."""
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def parted(name: str, count: int) -> list[str] | None:
    """The columns' spellings of a joined id; None where it does not hold so many."""
    if count == 1:
        return [name]
    escaped = re.findall(r"(?:\\.|[^\\|])+", name)
    if "|".join(escaped) != name or len(escaped) != count:
        return None
    return [re.sub(r"\\(.)", r"\1", part) for part in escaped]


def joined_columns(columns: Sequence[pd.Series[Any]]) -> pd.Series[Any]:
    """Ids from their columns: pandas' `str` of shape (n,), NaN where a part is missing.

    Raises:
        DataError: A value has no spelling.
    """
    if len(columns) == 1:
        return spelled_column(columns[0])
    parts = [pa.array(spelled_column(column), type=pa.string(), from_pandas=True) for column in columns]
    parts = [pc.replace_substring(pc.replace_substring(part, "\\", "\\\\"), "|", "\\|") for part in parts]
    return pd.Series(pd.array(pc.binary_join_element_wise(*parts, "|"), dtype=STR))


def _of_text(text: str) -> str:
    if text in _TRUTHS:
        return _TRUTHS[text]
    if whole := _WHOLE.fullmatch(text):
        digits = whole[1]
        # A decimal has as many digits as it was given; a float from 2^53 on is written with one zero.
        if len(whole[2]) == 1 and len(digits) == 16 + digits.startswith("-") and abs(int(digits)) >= _EXACT:
            _refuse_rounded(text)
        return "0" if digits == "-0" else digits
    if _EXPONENT.fullmatch(text):
        number = float(text)
        if abs(number) >= _EXACT:
            _refuse_rounded(text)
        return text if number == 0 and text.strip("-")[0] != "0" else str(_of_float(number))
    if time := _TIME.fullmatch(text):
        return _of_time_text(text, time)
    return "0" if text == "-0" else text


def _of_time_text(text: str, found: re.Match[str]) -> str:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if hour is None:
        return text
    try:
        moment = datetime.datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0))
        if zone not in (None, "Z"):
            moment -= datetime.timedelta(hours=int(zone[:3]), minutes=int(f"{zone[0]}{zone[3:].strip(':') or 0}"))
    except (ValueError, OverflowError):
        return text
    return _of_moment(moment, (fraction or "").rstrip("0"))


def _of_moment(moment: datetime.datetime, fraction: str) -> str:
    midnight = not (moment.hour or moment.minute or moment.second or fraction)
    day = f"{moment.year:04}-{moment.month:02}-{moment.day:02}"
    if midnight:
        return day
    return f"{day} {moment:%H:%M:%S}" + (f".{fraction}" if fraction else "")


def _of_other(value: object) -> str | None:
    """What is no plain text."""
    if isinstance(value, bool | np.bool_):
        return "True" if value else "False"
    if isinstance(value, float | np.floating):
        return _of_float(value)
    if isinstance(value, int | np.integer):
        try:
            return str(int(value))
        except ValueError:  # more digits than Python turns into text
            raise Unspellable("the number is too long") from None
    if any(value is missing for missing in _MISSING):
        return None
    if isinstance(value, str):
        return spelled(str(value))
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, datetime.datetime):
        return _of_datetime(value)
    if isinstance(value, bytes | bytearray | memoryview | list | tuple | dict | set | frozenset | np.ndarray):
        raise Unspellable(f"{_short(value)} is neither text nor a number")
    return str(value)


def _of_float(value: float | np.floating[Any]) -> str | None:
    number = float(value)
    if number != number:
        return None
    if not math.isfinite(number):
        return str(number)
    single = isinstance(value, np.float32 | np.float16)
    if abs(number) >= (_EXACT_SINGLE if single else _EXACT):
        held = "float32" if single else "float64"
        raise Unspellable(
            f"{number!r} is held as {held}, in which whole numbers of that size are not told apart",
            "Store the column as integers or as text",
        )
    if number.is_integer():
        return str(int(number))
    return f"{Decimal(str(value) if single else repr(number)):f}"


def _of_decimal(value: Decimal) -> str | None:
    if value.is_nan():
        return None
    if value == value.to_integral_value():
        return str(int(value))
    return f"{value:f}".rstrip("0")


def _of_datetime(value: datetime.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(datetime.UTC)
    nanoseconds = value.microsecond * 1000 + getattr(value, "nanosecond", 0)
    return _of_moment(value, f"{nanoseconds:09}".rstrip("0"))


def _refuse_rounded(text: str) -> NoReturn:
    raise Unspellable(
        f"{text!r} is how a float is written in which whole numbers of that size are not told apart",
        "Store the column as integers or as text before it is written",
    )


def _spelled_series(column: pd.Series[Any], *, free_text: bool) -> pa.Array | pa.ChunkedArray:
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        names = pa.array(
            _spelled_series(pd.Series(column.cat.categories), free_text=free_text).to_pylist(), pa.string()
        )
        codes = column.cat.codes.to_numpy()
        return names.take(pa.array(codes, mask=codes < 0))
    cells = written if free_text else spelled
    plain = getattr(kind, "numpy_dtype", kind)  # of pandas' nullable types, and Arrow's
    if isinstance(kind, pd.StringDtype | pd.DatetimeTZDtype | pd.ArrowDtype) or (
        isinstance(plain, np.dtype) and plain.kind in "iufbM"
    ):
        return spelled_array(pa.array(column, from_pandas=True), free_text=free_text)
    values = column.astype(object).tolist()
    if set(map(type, values)) <= {str, type(None)}:
        return spelled_array(pa.array(values, pa.string()), free_text=free_text)
    # Value for value: pandas' own hashing takes True and 1 for one.
    return pa.array(map(cells, values), pa.string())


def _spelled_texts(texts: pa.Array) -> pa.Array:
    """Only the texts that may be spelled otherwise are looked at one by one."""
    texts = _without_empty(texts)
    places = _suspicious(texts)
    if not len(places):
        return texts
    looked_at = texts if len(places) == len(texts) else texts.take(pa.array(places))
    suspects = np.zeros(len(texts), dtype=np.bool_)
    suspects[places] = np.asarray(pc.fill_null(pc.match_substring_regex(looked_at, _SUSPECTS), False))
    if not suspects.any():
        return texts
    suspects = pa.array(suspects)
    done = pc.fill_null(pc.match_substring_regex(texts, _SPELLED_TIMES), False)
    done = pc.and_not(done, pc.fill_null(pc.ends_with(texts, " 00:00:00"), False))
    suspects = pc.and_not(suspects, done)
    coded = texts.filter(suspects).dictionary_encode()
    names = pa.array(map(spelled, coded.dictionary.to_pylist()), pa.string())
    return pc.replace_with_mask(texts, suspects, names.take(coded.indices))


def _without_empty(texts: pa.Array) -> pa.Array:
    empty = pc.equal(texts, "")
    return pc.replace_with_mask(texts, empty, _null()) if pc.any(empty).as_py() else texts


def _suspicious(texts: pa.Array) -> np.ndarray:
    """Places of the texts that begin as one that may be spelled otherwise: by bytes, much quicker than by patterns."""
    _, edges, content = texts.buffers()
    if content is None or not len(texts):
        return np.zeros(0, dtype=np.int64)
    ends = np.frombuffer(edges, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    letters = np.frombuffer(content, dtype=np.uint8)
    places = np.flatnonzero(ends[1:] > ends[:-1])
    places = places[_STARTS[letters[ends[places]]]]
    if len(places) and not _INSIDE[letters[ends[0] : ends[-1]]].any():
        return places[:0]
    return places


def _spelled_times(values: pa.Array) -> pa.Array:
    texts = values.cast(pa.timestamp(values.type.unit)).cast(pa.string())
    texts = pc.replace_substring_regex(texts, r"\.0+$", "")
    texts = pc.replace_substring_regex(texts, r"(\.[0-9]*[1-9])0+$", r"\1")
    return pc.replace_substring_regex(texts, r" 00:00:00$", "")


def _scalars(values: pa.Array) -> list[Any]:
    """Python's values, floats in the precision that holds them."""
    return list(values.to_numpy(zero_copy_only=False)) if pa.types.is_floating(values.type) else values.to_pylist()


def _null() -> pa.Scalar:
    return pa.scalar(None, pa.string())


def _refuse(column: pd.Series[Any], error: Unspellable, cells: Callable[[object], str | None]) -> NoReturn:
    for row, value in enumerate(column):
        try:
            cells(column.dtype.type(value) if column.dtype == np.float32 else value)
        except Unspellable as found:
            raise DataError(
                f"column {column.name!r}, row {row} (counted from 0): {found.problem}", found.remedy
            ) from None
    raise DataError(f"column {column.name!r}: {error.problem}", error.remedy) from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
