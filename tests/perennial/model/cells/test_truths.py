"""Tests of truth values: what is one is read, everything else is refused by name and never folded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.model.cells.truths import spelled_truths, truth_value, truth_values

TRUE = [
    True,
    "true",
    "TRUE",
    "True",
    "t",
    "T",
    "yes",
    "YES",
    "1",
    "1.0",
    1,
    1.0,
    np.bool_(True),
    np.int8(1),
    Decimal(1),
]
FALSE = [False, "false", "F", "no", "No", "0", "0.0", 0, -0.0, np.float32(0), Decimal("0.00"), " false "]
MISSING = [None, np.nan, pd.NA, pd.NaT, "", "  ", Decimal("NaN")]
NEITHER = ["y", "on", "unknown", "2", "10", 2, 0.5, -1, np.inf, "truee", b"true", [], pd.Timestamp(1), "NaN"]


def test_words_and_numbers_are_read() -> None:
    assert [truth_value(cell) for cell in TRUE] == [1.0] * len(TRUE)
    assert [truth_value(cell) for cell in FALSE] == [0.0] * len(FALSE)
    assert all(np.isnan(truth_value(cell)) for cell in MISSING)  # type: ignore[arg-type]
    assert [truth_value(cell) for cell in NEITHER] == [None] * len(NEITHER)


@given(st.lists(st.sampled_from([*TRUE, *FALSE, *MISSING, *NEITHER]), max_size=8))
def test_a_column_is_read_as_its_cells(cells: list[Any]) -> None:
    column = pd.Series(cells, dtype=object)
    wanted = [truth_value(cell) for cell in cells]
    values, wrong = truth_values(column)
    assert wrong.tolist() == [cell is None for cell in wanted]
    np.testing.assert_array_equal(values, [np.nan if cell is None else cell for cell in wanted])


@pytest.mark.parametrize("dtype", ["bool", "boolean", "int8", "Int64", "float32", "str", "category", "object"])
def test_every_type_of_column_is_read_alike(dtype: str) -> None:
    cells: list[Any] = ["yes", "0", "T"] if dtype in ("str", "category") else [1, 0, 1]
    gap = dtype not in ("bool", "int8")
    column = pd.Series([*cells, None] if gap else cells).astype(dtype)  # type: ignore[call-overload]
    values, wrong = truth_values(column)
    assert not wrong.any()
    np.testing.assert_array_equal(values, [1.0, 0.0, 1.0, *([np.nan] if gap else [])])
    assert spelled_truths(column).tolist()[:3] == ["True", "False", "True"]


def test_what_is_none_stays_as_it_is_written() -> None:
    spelled = spelled_truths(pd.Series(["yes", "perhaps", None, 2], dtype=object))
    assert spelled.tolist()[:2] == ["True", "perhaps"]
    assert spelled.isna().tolist() == [False, False, True, False]
    assert spelled.iloc[3] == "2"
