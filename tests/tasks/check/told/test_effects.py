"""What moved is ranked by what it does to the predictions, not by how far it moved."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.check.inputs import Aside
from tasks.check.reference import Reference, build_reference
from tasks.check.told.effects import taken_back, what_moved

ROWS = 2000


def rows(seed: int, *, used: float = 0.0, idle: float = 0.0, shop: float = 0.5) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    times = pd.date_range(datetime(2026, 1, 1, tzinfo=UTC), periods=ROWS, freq="min").astype("datetime64[us, UTC]")
    return pd.DataFrame(
        {
            "_time": times,
            "used": random.normal(used, 1, ROWS),
            "idle": random.normal(idle, 1, ROWS),
            "shop": pd.Series(np.where(random.random(ROWS) < shop, "new", "old"), dtype="str"),
        }
    )


def answer(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray(0.1 * frame["used"] + 0.3 * (frame["shop"] == "new"), dtype=np.float64)


def reference(frame: pd.DataFrame) -> Reference:
    return build_reference(
        frame, time="_time", task="regression", loss="mse", window_seconds=3600, numeric=["used", "idle"],
        categorical=["shop"],
    )  # fmt: skip


def test_a_column_that_the_model_does_not_look_at_comes_last() -> None:
    before, window = rows(0), rows(1, used=1.0, idle=4.0, shop=0.9)
    ratios = {"idle": 9.0, "used": 3.0, "shop": 2.0, "(prediction)": 5.0}
    told = what_moved(reference(before), Aside(window=window, sample=before, answer=answer), ratios)
    assert [item["column"] for item in told] == ["shop", "used", "idle"]
    by_name = {item["column"]: item for item in told}
    assert by_name["idle"]["change"] == 0
    assert by_name["used"]["shift"] == pytest.approx(0.1, abs=0.02)
    assert by_name["shop"]["shift"] == pytest.approx(0.3 * 0.4, abs=0.02)
    assert by_name["shop"]["change"] == pytest.approx(by_name["shop"]["shift"])


def test_what_did_not_move_changes_next_to_nothing() -> None:
    before, window = rows(0), rows(1)
    told = what_moved(
        reference(before), Aside(window=window, sample=before, answer=answer), {"used": 1.1, "shop": 1.1}
    )  # fmt: skip
    assert max(item["change"] for item in told) < 0.02


def test_many_classes_have_a_change_and_no_shift() -> None:
    before, window = rows(0), rows(1, shop=0.9)

    def many(frame: pd.DataFrame) -> np.ndarray:
        first = np.where(frame["shop"] == "new", 0.6, 0.2)
        return np.stack([first, 0.8 - first, np.full(len(frame), 0.2)], axis=1)

    (told,) = what_moved(reference(before), Aside(window=window, sample=before, answer=many), {"shop": 2.0})
    assert told["change"] == pytest.approx(0.4 * 0.4, abs=0.02)
    assert told["shift"] is None


def test_without_the_champion_the_furthest_comes_first() -> None:
    before = rows(0)
    told = what_moved(reference(before), Aside(window=before, sample=before), {"shop": 2.0, "used": 3.0, "idle": 0.9})
    assert told == [
        {"column": "used", "ratio": 3.0, "change": None, "shift": None},
        {"column": "shop", "ratio": 2.0, "change": None, "shift": None},
    ]


def test_the_champion_is_not_asked_where_nothing_moved() -> None:
    def never(_frame: pd.DataFrame) -> np.ndarray:
        raise AssertionError("loaded for nothing")

    before = rows(0)
    assert what_moved(reference(before), Aside(window=before, sample=before, answer=never), {"used": 0.9}) == []


VALUES = st.lists(st.one_of(st.integers(0, 5).map(float), st.just(float("nan"))), min_size=5, max_size=60)


@given(VALUES, VALUES.filter(lambda values: not all(np.isnan(values))))
@settings(max_examples=60)
def test_numbers_taken_back_have_the_training_s_shares_and_keep_their_order(
    window: list[float], training: list[float]
) -> None:
    now, before = pd.Series(window), pd.Series(training)
    back = taken_back(now, before, numeric=True)
    assert abs(back.isna().mean() - before.isna().mean()) <= 0.5 / len(now) + 1e-9
    if now.isna().sum() == back.isna().sum() and now.notna().any():
        order = now.dropna().sort_values(kind="stable").index
        highest = back[order].groupby(now[order]).agg(["min", "max"])
        assert (highest["min"].to_numpy()[1:] >= highest["max"].to_numpy()[:-1]).all()
    assert set(back.dropna()) <= set(before.dropna())


CATEGORIES = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=4, max_size=60)


@given(CATEGORIES, CATEGORIES)
@settings(max_examples=60)
def test_of_categories_only_the_surplus_is_moved(window: list[str | None], training: list[str | None]) -> None:
    now, before = pd.Series(window, dtype="str"), pd.Series(training, dtype="str")
    back = taken_back(now, before, numeric=False)
    shares = [part.value_counts(dropna=False, normalize=True).to_dict() for part in (now, back, before)]
    texts = [{str(name): share for name, share in part.items()} for part in shares]
    for name in set(texts[0]) | set(texts[2]):
        assert abs(texts[1].get(name, 0) - texts[2].get(name, 0)) < 1 / len(now) + 1e-9, name
    changed = (now.fillna("gone") != back.fillna("gone")).sum()
    surplus = sum(max(0.0, texts[0].get(name, 0) - texts[1].get(name, 0)) for name in texts[0]) * len(now)
    assert changed == round(surplus)
