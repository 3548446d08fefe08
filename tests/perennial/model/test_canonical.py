"""One spelling of categories, ids and times: cell by cell, by column and by Arrow's types."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.errors import DataError
from perennial.model.canonical import (
    Unspellable,
    joined,
    joined_columns,
    parted,
    spelled,
    spelled_array,
    spelled_column,
    written,
)

SPELLINGS: list[tuple[Any, str | None]] = [
    *((value, "3") for value in (3, 3.0, "3", "3.0", "3.00", Decimal("3.00"))),
    *((value, "3") for value in (np.int8(3), np.uint64(3), np.float32(3))),
    *((value, "0") for value in (0, -0.0, "-0", "-0.0", "0.0", Decimal("-0.0"))),
    *((value, value) for value in ("007", "007.0", "1e3", "1e7", "1.0E7", "1e-1234", "+3", " 3", "3.", ".5", "1,5")),
    ("2.50", "2.50"), ("3.10", "3.10"), ("1.5e+10", "15000000000"), ("1e+06", "1000000"),
    ("1e-7", "0.0000001"), ("-2.5e-2", "-0.025"), ("0e+0", "0"), ("1e-400", "1e-400"),
    (2.5, "2.5"), (np.float32(0.1), "0.1"), (Decimal("2.50"), "2.5"), (1e-05, "0.00001"), ("1e-05", "0.00001"),
    (-7, "-7"), ("-7.0", "-7"), (10**30, "1" + "0" * 30), ("12345678901234567890", "12345678901234567890"),
    ("12345678901234567890.00", "12345678901234567890"), (9007199254740993, "9007199254740993"),
    *((value, "True") for value in (True, np.True_, "true", "TRUE", "True")),
    *((value, "False") for value in (False, "false", "FALSE", "False")),
    ("tRUE", "tRUE"), ("t", "t"), ("yes", "yes"), ("inf", "inf"), ("nan", "nan"),
    *((value, None) for value in (None, np.nan, pd.NA, pd.NaT, "", np.float32("nan"), Decimal("NaN"))),
    *((value, value) for value in ("NA", "None", "null", "n/a", " ", "NaN")),
    *((value, "2012-12-21 22:00:00") for value in (
        "2012-12-21T22:00:00", "2012-12-21 22:00:00", "2012-12-21T22:00Z", "2012-12-21T22:00:00.000Z",
        "2012-12-22T00:00:00+02:00", "2012-12-21T17:00:00-0500", "2012-12-21 22:00:00+00", "2012-12-21 22:00:00 +00:00",
        pd.Timestamp("2012-12-21 22:00"), pd.Timestamp("2012-12-21 23:00", tz="Europe/Berlin"),
        dt.datetime(2012, 12, 21, 22), dt.datetime(2012, 12, 21, 22, tzinfo=dt.UTC), np.datetime64("2012-12-21T22"),
    )),
    *((value, "2012-12-21") for value in (
        "2012-12-21", "2012-12-21T00:00", "2012-12-21 00:00:00.000", dt.date(2012, 12, 21), pd.Timestamp("2012-12-21"),
        "2012-12-20T23:30:00-00:30",
    )),
    ("2012-12-21T22:00:00.123456789Z", "2012-12-21 22:00:00.123456789"),
    (pd.Timestamp("2012-12-21 22:00:00.1234567"), "2012-12-21 22:00:00.1234567"),
    *((value, value) for value in (
        "2012-13-21T22:00:00", "2012-12-21T24:00", "20121221", "2012-W01", "21.12.2012", "now", "today", "22:00",
        "0001-01-01T00:00+02:00", "2012-12-21T22", "2012-12-21T22:00:00 Berlin",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), SPELLINGS, ids=repr)
def test_the_spelling_of_one_value_alone_and_in_a_column(value: object, text: str | None) -> None:
    assert spelled(value) == text
    if text is not None:
        assert spelled(text) == text
    column = pd.Series([value, "beside"], dtype=object)
    assert [None if pd.isna(cell) else cell for cell in spelled_column(column)] == [text, "beside"]
    if isinstance(value, str):
        for kind in ("str", "string", "category"):
            made = spelled_column(pd.Series([value, "beside", None], dtype=kind))
            assert [None if pd.isna(cell) else cell for cell in made] == [text, "beside", None]


UNSPELLABLE = [
    2.0**53, -1e16, "1e+16", "1.2345678901234568e+17", "9007199254740994.0", np.float32(2**24),
    [1], (1,), {"a": 1}, b"x", np.array([1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("value", UNSPELLABLE, ids=repr)
def test_what_has_no_spelling_is_refused_with_its_row(value: object) -> None:
    with pytest.raises(Unspellable):
        spelled(value)
    column = pd.Series([value] * 2, dtype=object, name="c")
    column[0] = "fine"
    with pytest.raises(DataError, match=r"column 'c', row 1 \(counted from 0\): "):
        spelled_column(column)


def test_a_float_column_beyond_its_precision_is_refused_by_name() -> None:
    for kind, size in (("float64", 2**53), ("float32", 2**24)):
        with pytest.raises(DataError, match=rf"column 'k', row 1.*{kind}.*Store the column as integers or as text"):
            spelled_column(pd.Series([1, size], dtype=kind, name="k"))
    codes = pd.Series([2**53 + 1, None, 2**53], dtype="Int64")
    assert spelled_column(codes).dropna().tolist() == ["9007199254740993", "9007199254740992"]


def test_free_text_stays_as_it_is_written() -> None:
    texts = ["3.0", "true", "2012-12-21T22:00", "1e+16", "", None]
    made = spelled_column(pd.Series(texts, dtype="str"), free_text=True)
    assert made.dropna().tolist() == texts[:4]
    assert [written(text) for text in texts] == [*texts[:4], None, None]
    assert (written(3.0), written(True)) == ("3", "True")


NANOSECONDS = st.integers(-(2**61), 2**61)


def arrays(cells: st.SearchStrategy[Any], kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.one_of(st.none(), cells), min_size=1).map(lambda values: pa.array(values, kind))


@given(
    st.one_of(
        arrays(st.integers(-(2**63), 2**63 - 1), pa.int64()),
        arrays(st.booleans(), pa.bool_()),
        arrays(st.floats(-1e15, 1e15), pa.float64()),
        arrays(st.floats(-1e7, 1e7, width=32), pa.float32()),
        arrays(st.decimals(-(10**6), 10**6, places=3), pa.decimal128(12, 3)),
        arrays(NANOSECONDS, pa.timestamp("ns")),
        arrays(NANOSECONDS, pa.timestamp("ns", "Europe/Berlin")),
        arrays(st.text(), pa.large_string()),
        arrays(st.sampled_from(["3.0", "true", "2012-12-21T22:00", "-0", "", "a"]), pa.string()).map(
            lambda values: values.dictionary_encode()
        ),
    )
)
def test_a_column_of_any_type_is_spelled_as_its_values_one_by_one(values: pa.Array) -> None:
    cells = list(values.to_numpy(zero_copy_only=False)) if values.type == pa.float32() else values.to_pylist()
    names = spelled_array(values).to_pylist()
    assert names == [spelled(cell) for cell in cells]
    columns = [values.to_pandas(types_mapper=pd.ArrowDtype)]
    if not (values.null_count and pa.types.is_integer(values.type)):  # pandas' own float of an integer beside a gap
        columns.append(values.to_pandas())
    for column in columns:
        assert [None if pd.isna(cell) else cell for cell in spelled_column(column)] == names


LOOKALIKES = st.text("0123456789.-+eETtrueFals: Zö", max_size=12) | st.sampled_from(
    ["3.0", "-0", "TRUE", "false", "1e-05", "2012-12-21T22:00", "2012-12-21 22:00", "9007199254740993", "fine", "-é"]
)


@given(st.lists(st.none() | LOOKALIKES, max_size=20), st.integers(0, 5), st.integers(0, 20))
def test_a_slice_of_texts_that_look_like_others_is_spelled_as_its_values(
    cells: list[str | None], start: int, length: int
) -> None:
    values = pa.array(cells, pa.string()).slice(min(start, len(cells)), length)
    try:
        names = [spelled(cell) for cell in values.to_pylist()]
    except Unspellable:
        with pytest.raises(Unspellable):
            spelled_array(values)
    else:
        assert spelled_array(values).to_pylist() == names


@given(st.lists(st.text(min_size=1), min_size=2, max_size=4))
def test_ids_of_several_columns_are_told_apart(parts: list[str]) -> None:
    assert parted(joined(parts), len(parts)) == parts
    assert parted(joined(parts), len(parts) + 1) is None


def test_ids_of_several_columns_as_columns() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, None], "b": ["x|y", "back\\slash", "z"]})
    made = joined_columns([frame["a"], frame["b"]])
    assert made[:2].tolist() == [joined(["1", "x|y"]), joined(["2", "back\\slash"])]
    assert pd.isna(made[2])
    assert joined(["a|b"]) == "a|b"  # one column needs no joint
    assert parted("a|b", 1) == ["a|b"]
    assert parted("|b", 2) is None
