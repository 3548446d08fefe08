"""Planted weak segments are found, of pairs too; where nothing is weak, hardly ever one is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.measures.segments import Levels, Search, make_levels, search

ROWS = 4000


def features(seed: int, rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "place": random.choice(["north", "south", "east", "west"], rows),
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "hour": random.integers(0, 6, rows),
            **{f"noise_{number}": random.choice(list("abcd"), rows) for number in range(8)},
        }
    )


def losses(seed: int, rows: int = ROWS) -> np.ndarray:
    """As skewed as the log loss of rare events is."""
    return np.random.default_rng(seed).exponential(1.0, rows) ** 1.5


def found(loss: np.ndarray, frame: pd.DataFrame, columns: int = 2) -> Search:
    return search(loss, frame, make_levels(frame), columns=columns, minimum_rows=100, confidence=0.95)


def test_a_weak_pair_is_named_and_neither_of_its_columns_alone() -> None:
    frame = features(0)
    inside = ((frame["place"] == "east") & (frame["hour"] == 3)).to_numpy()
    result = found(losses(0) + 6.0 * inside, frame)
    assert result.found[0].where == "place = east and hour = 3"
    assert result.found[0].own.rows == inside.sum()
    assert 0 < result.found[0].low < 6.0 < result.found[0].high
    pairs = [segment.where for segment in result.found if " and " in segment.where]
    assert pairs == ["place = east and hour = 3"]
    assert result.looked_at > 500


def test_a_weak_column_is_not_told_again_by_its_pairs() -> None:
    frame = features(1)
    result = found(losses(1) + 3.0 * (frame["place"] == "east").to_numpy(), frame)
    assert [segment.where for segment in result.found] == ["place = east"]


def test_a_pair_needs_two() -> None:
    frame = features(0)
    inside = ((frame["place"] == "east") & (frame["hour"] == 3)).to_numpy()
    alone = found(losses(0) + 6.0 * inside, frame, columns=1)
    assert not [segment for segment in alone.found if " and " in segment.where]
    assert alone.looked_at < 60


@pytest.mark.parametrize("columns", [1, 2])
def test_where_nothing_is_weak_hardly_ever_one_is_named(columns: int) -> None:
    wrong = sum(bool(found(losses(seed), features(seed + 100), columns).found) for seed in range(40))
    assert wrong <= 6  # 2 are expected at 95 %


def test_a_stretch_of_bad_time_is_no_segment() -> None:
    """Blocks of time carry what comes and goes with them: a value that was frequent then is not to blame."""
    rows = 4000
    frame = features(3)
    bad = np.arange(rows) >= 7 * rows // 8
    wrong = 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        frame["place"] = np.where(bad & (random.random(rows) < 0.5), "east", frame["place"])
        wrong += any(segment.where == "place = east" for segment in found(losses(seed) + 0.8 * bad, frame, 1).found)
    assert wrong <= 2


def test_levels_are_the_same_segments_on_other_rows() -> None:
    before = features(4)
    levels = {level.column: level for level in make_levels(before)}
    assert levels["hour"].values != ()
    assert len(levels["size"].cuts) == 3
    low, median, high = levels["size"].cuts
    codes = levels["size"].codes(pd.Series([low, np.nextafter(low, 9.0), median, high, high + 1, np.nan]))
    assert codes.tolist() == [0, 1, 1, 2, 3, 4]
    assert [levels["size"].names[code] for code in (0, 4)] == [f"size ≤ {low:.4g}", "size is missing"]
    place = levels["place"]
    told = [place.names[code] if code >= 0 else None for code in place.codes(pd.Series(["east", "moon", None]))]
    assert told == ["place = east", None, "place is missing"]
    assert Levels("n", values=("3",)).codes(pd.Series([3.0, 4.0])).tolist() == [0, -1]


def test_infinities_and_bytes_are_no_levels() -> None:
    frame = pd.DataFrame({"x": [np.inf, *range(40)], "picture": [b"1"] * 41})
    (level,) = make_levels(frame)
    assert level.column == "x"
    assert np.isfinite(level.cuts).all()
