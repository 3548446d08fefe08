"""Statistics of parts, merged, are those of the whole: exactly where that is said, else as nearly as is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.profiles import Column, make_columns
from tasks.measures.statistics import (
    HASHES,
    POINTS,
    QUANTILES,
    ColumnStatistics,
    add_up,
    from_row,
    of_categories,
    of_numbers,
    to_row,
)

NUMBERS = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.just(float("nan")), st.just(float("inf"))),
    max_size=60,
)


def numbers(values: list[float] | np.ndarray, low: float = -10, high: float = 10) -> ColumnStatistics:
    array = np.asarray(values, dtype=np.float64)
    outside = int(((array < low) | (array > high)).sum())
    return of_numbers(
        array[np.isfinite(array)], rows=len(array), missing=int(np.isnan(array).sum()), unseen=outside
    )  # fmt: skip


COLUMN = Column("c", "categorical", categories=("a", "b"), rare=("c", "d"))


def categories(values: list[str | None]) -> ColumnStatistics:
    series = pd.Series(values, dtype="str")
    return of_categories(COLUMN, series, COLUMN.codes(series))


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_parts_of_numbers_are_the_whole(parts: list[list[float]]) -> None:
    whole, merged = numbers([value for part in parts for value in part]), add_up([numbers(part) for part in parts])
    for name in ("rows", "missing", "unseen", "finite", "low", "high", "distinct"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), nan_ok=True), name
    assert merged.mean == pytest.approx(whole.mean, abs=1e-6, nan_ok=True)
    assert merged.deviation == pytest.approx(whole.deviation, rel=1e-6, abs=1e-3, nan_ok=True)
    assert merged.weights.sum() == pytest.approx(merged.finite)
    assert (np.diff(merged.points) >= 0).all()


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), max_size=30), min_size=1, max_size=6))
def test_parts_of_categories_are_the_whole(parts: list[list[str | None]]) -> None:
    merged = add_up([categories(part) for part in parts])
    values = [value for part in parts for value in part]
    assert merged.rows == len(values)
    assert merged.missing == values.count(None)
    assert merged.unseen == values.count("e")
    assert merged.values == {value: values.count(value) for value in set(values) - {None}}
    assert merged.distinct == len(set(values) - {None})
    assert list(merged.top.values()) == sorted(merged.top.values(), reverse=True)


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_a_row_keeps_what_is_merged_later(parts: list[list[float]]) -> None:
    direct = add_up([numbers(part) for part in parts])
    kept = add_up([from_row(to_row(numbers(part))) for part in parts])
    for name in ("rows", "missing", "unseen", "finite", "low", "high", "distinct"):
        assert getattr(kept, name) == pytest.approx(getattr(direct, name), nan_ok=True), name
    assert kept.mean == pytest.approx(direct.mean, nan_ok=True)
    assert kept.deviation == pytest.approx(direct.deviation, rel=1e-6, abs=1e-6, nan_ok=True)
    assert kept.weights.sum() == pytest.approx(kept.finite)


@pytest.mark.parametrize("seed", range(4))
def test_quantiles_of_many_unlike_windows_are_near_those_of_their_rows(seed: int) -> None:
    """Windows of other sizes and places: none may weigh as much as a greater one."""
    random = np.random.default_rng(seed)
    parts = [
        random.normal(random.normal(0, 2), random.uniform(0.3, 3), int(random.integers(50, 9000))) for _ in range(20)
    ]
    rows = np.sort(np.concatenate(parts))
    for merged in (
        add_up([numbers(part) for part in parts]), add_up([from_row(to_row(numbers(part))) for part in parts]),
    ):  # fmt: skip
        ranks = np.searchsorted(rows, merged.quantiles()) / len(rows)
        assert np.abs(ranks - np.array(QUANTILES)).max() < 0.03
        assert len(to_row(merged)["points"]) == POINTS


def test_different_values_are_counted_exactly_while_few_and_nearly_when_many() -> None:
    few = numbers(np.random.default_rng(0).integers(0, HASHES - 1, 50_000).astype(float))
    assert few.distinct == HASHES - 1
    many = [numbers(np.arange(start, start + 40_000, dtype=float)) for start in (0, 20_000, 40_000)]
    assert add_up(many).distinct == pytest.approx(80_000, rel=0.3)
    texts = [f"value {number}" for number in range(3000)]
    assert categories(texts).distinct == pytest.approx(3000, rel=0.3)
    assert len(categories(texts).values) == 1000


def test_values_of_other_types_are_counted_as_their_text() -> None:
    (column,) = make_columns(pd.DataFrame({"c": pd.Series(["x", "y"], dtype=object)}), [], ["c"])
    series = pd.Series(["x", 3, None, True], dtype=object)
    assert of_categories(column, series, column.codes(series)).values == {"x": 1, "3": 1, "True": 1}


def test_nothing_has_no_moments() -> None:
    empty = numbers([])
    assert np.isnan(empty.mean)
    assert empty.quantiles() == ()
    assert to_row(empty)["mean"] is None
    assert empty.plus(numbers([1.0, 3.0])).mean == 2.0
