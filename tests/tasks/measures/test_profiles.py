"""Profiles are mergeable, survive JSON, and put each value into its bin."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.errors import DataError
from tasks.measures.profiles import (
    Column,
    Profile,
    make_columns,
    microseconds,
    profile,
)


def _frame(rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    number = rng.normal(size=rows)
    number[rng.random(rows) < 0.1] = np.nan
    word = pd.Series(rng.choice(["a", "b", "c"], rows), dtype="str").mask(rng.random(rows) < 0.1)
    times = np.sort(rng.integers(0, 20 * 86_400_000_000, rows))
    return pd.DataFrame({"number": number, "word": word}), times


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 199), st.integers(0, 5))
def test_two_parts_merged_are_the_whole(cut: int, seed: int) -> None:
    frame, times = _frame(200, seed)
    columns = make_columns(frame, ["number"], ["word"])
    whole = profile(frame, times, columns, 86_400)
    merged = profile(frame[:cut], times[:cut], columns, 86_400).merge(
        profile(frame[cut:], times[cut:], columns, 86_400)
    )
    assert np.array_equal(whole.counts, merged.counts)
    assert np.array_equal(whole.starts, merged.starts)
    assert whole.rows == 200


def test_profile_survives_json() -> None:
    frame, times = _frame(300)
    made = profile(frame, times, make_columns(frame, ["number"], ["word"]), 86_400)
    back = Profile.from_dict(json.loads(json.dumps(made.to_dict())))
    assert back.columns == made.columns
    assert np.array_equal(back.counts, made.counts)
    assert np.array_equal(back.starts, made.starts)


def test_different_bins_are_not_merged() -> None:
    frame, times = _frame(50)
    one = profile(frame, times, make_columns(frame, ["number"], []), 86_400)
    two = profile(frame, times, make_columns(frame, [], ["word"]), 86_400)
    with pytest.raises(DataError, match="different bins"):
        one.merge(two)


def test_numeric_bins_keep_what_lies_outside_and_what_is_missing_apart() -> None:
    column = Column("x", "numeric", edges=(0.0, 1.0, 2.0))
    codes = column.codes(pd.Series([-0.1, 0.0, 0.5, 1.0, 2.0, 2.1, np.inf, -np.inf, np.nan]))
    assert codes.tolist() == [0, 1, 1, 2, 2, 3, 3, 0, 4]


def test_categories_unseen_rare_and_missing_have_their_own_bins() -> None:
    column = Column("x", "categorical", categories=("a", "b"), rare=("c",))
    codes = column.codes(pd.Series(["b", "a", "c", "z", None], dtype="str"))
    assert codes.tolist() == [1, 0, 2, 3, 4]


@pytest.mark.parametrize("values", [[np.nan, np.nan], [3.0, 3.0], []])
def test_columns_with_little_to_say_still_profile(values: list[float]) -> None:
    frame = pd.DataFrame({"x": np.array(values, dtype=np.float64)})
    made = profile(frame, np.arange(len(frame)), make_columns(frame, ["x"], []), 60)
    assert made.rows == len(values)


def test_text_where_numbers_belong_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="speed holds str"):
        Column("speed", "numeric", (0.0, 1.0)).codes(pd.Series(["fast"], dtype="str", name="speed"))


def test_times_must_be_times() -> None:
    with pytest.raises(DataError, match="not times"):
        microseconds(pd.Series([1, 2], name="t"))
    zoned = pd.Series(pd.to_datetime(["2024-01-01T01:00+01:00"]))
    assert microseconds(zoned).tolist() == [1704067200000000]


@pytest.mark.parametrize("values", [[0.0] * 97 + [1.0] * 3, [1.0, 2.0, 3.0] * 9, list(range(15)) * 4])
def test_a_few_values_have_a_bin_each(values: list[float]) -> None:
    """Of noughts and ones both used to share the last bin: a share of ones could go from 3 % to all unseen."""
    (column,) = make_columns(pd.DataFrame({"x": np.array(values, dtype=np.float64)}), ["x"], [])
    codes = column.codes(pd.Series(sorted(set(values)), dtype="float64"))
    assert len(set(codes.tolist())) == len(set(values))
    assert column.codes(pd.Series([min(values) - 1.0, max(values) + 1.0])).tolist() == [0, column.bins - 1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=30, unique=True),
    st.lists(st.floats(), min_size=1, max_size=30),
)
def test_a_number_s_bin_is_how_many_edges_it_reaches(edges: list[float], others: list[float]) -> None:
    edges = sorted(edges)
    numbers = np.array([*edges[:-1], *others])
    codes = Column("number", "numeric", tuple(edges)).codes(pd.Series(numbers))
    within = ~np.isnan(numbers) & (numbers != edges[-1])
    assert (codes[within] == np.searchsorted(edges, numbers[within], side="right")).all()
    assert (codes[numbers == edges[-1]] == len(edges) - 1).all()
    assert (codes[np.isnan(numbers)] == len(edges) + 1).all()


def test_more_edges_than_a_byte_counts() -> None:
    numbers = pd.Series(np.arange(1000) + 0.5)
    codes = Column("number", "numeric", tuple(float(edge) for edge in range(1000))).codes(numbers)
    assert codes.tolist() == list(range(1, 1001))
