"""Tests of the one form in which models see their features."""

from __future__ import annotations

import datetime
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.definition import Features
from perennial.errors import DataError
from perennial.model.canonical import spelled_column
from perennial.model.features import feature_frame, numeric_values


def test_exactly_the_columns_in_order_with_their_types() -> None:
    features = Features(numeric=("b", "a"), categorical=("c",), text=("t",), image=("i",))
    frame = pd.DataFrame(
        {"x": [1, 2], "i": ["p.png", None], "t": ["words", None], "c": ["k", None], "a": [1, 2], "b": [True, False]},
        index=[7, 9],
    )
    made = feature_frame(frame, features)
    assert list(made.columns) == ["b", "a", "c", "t", "i"]
    assert [str(kind) for kind in made.dtypes] == ["float64", "float64", "str", "str", "object"]
    assert made.index.equals(pd.RangeIndex(2))
    assert made["c"].isna().tolist() == [False, True]
    assert made["i"].tolist() == ["p.png", None]
    again = feature_frame(made, features)
    pd.testing.assert_frame_equal(again, made)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([5, 6, 5]),
        pd.Series([5.0, 6.0, 5.0]),
        pd.Series(["5", "6", "5"], dtype=object),
        pd.Series(["5", "6", "5"], dtype="string"),
        pd.Series([5, 6, 5], dtype="Int64"),
        pd.Series([5, 6, 5], dtype="category"),
        pd.Series(["5", "6", "5"], dtype="category"),
        pd.Series([Decimal(5), Decimal(6), Decimal(5)]),
    ],
    ids=lambda series: str(series.dtype),
)
def test_a_category_reads_the_same_whatever_held_it(values: pd.Series[Any]) -> None:
    made = spelled_column(values)
    assert made.tolist() == ["5", "6", "5"]
    assert str(made.dtype) == "str"


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=30))
def test_missing_values_change_no_other_category(values: list[int | None]) -> None:
    made = spelled_column(pd.Series(values))
    assert [None if value is None else str(value) for value in values] == [
        None if pd.isna(value) else value for value in made
    ]


@pytest.mark.parametrize(
    "kind", ["int8", "uint16", "float32", "Int64", "Float64", "bool", "boolean", "object", "category"]
)
def test_numbers_of_any_type_become_float64(kind: str) -> None:
    made = numeric_values(pd.Series([1, 0, 1]).astype(kind))
    assert made.dtype == np.float64
    assert made.tolist() == [1.0, 0.0, 1.0]


def test_missing_numbers_of_any_kind_become_nan() -> None:
    for series in (
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, None], dtype=object),
        pd.Series([1, pd.NA], dtype=object),
        pd.Series(["1", None], dtype="str"),
        pd.Series([1, np.nan]),
    ):
        made = numeric_values(series)
        assert made[0] == 1
        assert np.isnan(made[1])


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (pd.Series([1.0, np.inf, np.nan], name="v"), ["'v'", "row 1", "inf", "not finite"]),
        (pd.Series([np.inf, -np.inf], name="v"), ["row 0", "not finite"]),
        (pd.Series(["1", "n/a"], name="v"), ["'v'", "row 1", "'n/a'", "1 of 2"]),
        (pd.Series([1, [2]], name="v"), ["row 1", "[2]"]),
        (pd.Series(pd.to_datetime(["2013-01-01"]), name="v"), ["datetime64", "not numeric"]),
        (pd.Series([1 + 2j], name="v"), ["complex"]),
    ],
)
def test_what_is_no_finite_number_is_named(series: pd.Series[Any], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        numeric_values(series)
    for word in words:
        assert word in str(caught.value)


def test_large_finite_numbers_pass() -> None:
    assert numeric_values(pd.Series([1e308, 1e308])).tolist() == [1e308, 1e308]


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"bytes", (1, 2)], ids=str)
def test_a_category_must_be_one_value(value: object) -> None:
    with pytest.raises(DataError, match="row 1"):
        spelled_column(pd.Series(["a", value], dtype=object, name="c"))


def test_images_are_paths_or_bytes() -> None:
    with pytest.raises(DataError, match=r"row 0.*no image"):
        feature_frame(pd.DataFrame({"i": [3]}), Features(image=("i",)))


def test_dates_as_categories_read_as_text() -> None:
    assert spelled_column(pd.Series([datetime.date(2013, 1, 1)])).tolist() == ["2013-01-01"]


def test_missing_columns_are_named_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        feature_frame(pd.DataFrame({"distnace": [1.0]}), Features(numeric=("distance", "temp")))
    assert "distance, temp" in str(caught.value)
    assert "distnace" in str(caught.value)


def test_a_column_given_twice_is_refused() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match="twice: a"):
        feature_frame(frame, Features(numeric=("a",)))


def test_no_rows_give_no_rows_of_the_right_types() -> None:
    made = feature_frame(pd.DataFrame({"a": [], "c": []}), Features(numeric=("a",), categorical=("c",)))
    assert len(made) == 0
    assert [str(kind) for kind in made.dtypes] == ["float64", "str"]


@pytest.mark.process
def test_imports_only_numpy_and_pandas() -> None:
    heavy = "('sklearn', 'pydantic', 'scipy')"
    code = f"import sys, perennial.model.features; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
