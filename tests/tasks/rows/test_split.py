"""Tests of cutting rows by time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from tasks.rows.split import Split, split_by_time, time_ordered_folds, utc_times

START = datetime(2024, 1, 1, tzinfo=UTC)


def definition(**sections: dict[str, Any]) -> ModelDefinition:
    data = {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y", **sections.get("data", {})}
    training = {"minimum_rows": 10, **sections.get("training", {})}
    return ModelDefinition.model_validate(
        {
            "name": "m",
            "task": "regression",
            "data": data,
            "features": {"numeric": ["x"]},
            "training": training,
            "gate": sections.get("gate", {}),
        }
    )


def rows(hours: list[int]) -> pd.DataFrame:
    times = pd.to_datetime([START + timedelta(hours=hour) for hour in hours], utc=True).astype("datetime64[us, UTC]")
    return pd.DataFrame({"time": times, "y": np.arange(len(hours), dtype=float), "x": 0.0})


def check_order(frame: pd.DataFrame, split: Split) -> None:
    time = utc_times(frame["time"])
    assert time[split.train].max() < time[split.validation].min()
    assert time[split.learning].max() < time[split.holdout].min()
    for part in (split.train, split.validation, split.holdout):
        assert (time[part][1:] >= time[part][:-1]).all()


@settings(deadline=None, max_examples=150)
@given(
    hours=st.lists(st.integers(0, 60), min_size=30, max_size=120),
    share=st.floats(0.05, 0.6),
    validation=st.floats(0.05, 0.6),
    folds=st.integers(1, 4),
    delay=st.integers(0, 20),
    trained=st.none() | st.integers(0, 70),
    unlabelled=st.sets(st.integers(0, 29), max_size=10),
)
def test_parts_are_apart_ordered_mature_and_complete(
    hours: list[int],
    share: float,
    validation: float,
    folds: int,
    delay: int,
    trained: int | None,
    unlabelled: set[int],
) -> None:
    model = definition(
        data={"label_delay": f"{delay}h"},
        gate={"holdout_share": share},
        training={"tuning": {"folds": folds, "validation_share": validation}},
    )
    frame = rows(hours)
    frame.loc[list(unlabelled), "y"] = np.nan
    as_of = START + timedelta(hours=61)
    champion = None if trained is None else START + timedelta(hours=trained)
    try:
        split = split_by_time(frame, model, as_of, champion)
    except DataError as error:
        event(error.problem.split()[0])
        return
    event("split")
    check_order(frame, split)
    used = np.concatenate([split.learning, split.holdout])
    assert len(np.unique(used)) == len(used)
    mature = frame["y"].notna() & (frame["time"] + timedelta(hours=delay) <= as_of)
    assert set(used) == set(np.flatnonzero(mature))
    assert len(used) + split.unlabelled + split.immature + split.outside_window == len(frame)
    assert len(split.holdout) <= max(1, int(len(used) * share))
    assert split.holdout_from == frame["time"].iloc[split.holdout].min()
    if champion is not None:
        assert frame["time"].iloc[split.holdout].min() > champion
    for number, fold in enumerate(split.folds):
        times = utc_times(frame["time"])
        assert times[fold.train].max() < times[fold.validation].min()
        later = split.folds[number + 1].validation if number + 1 < len(split.folds) else split.holdout
        assert times[fold.validation].max() < times[later].min()


@given(st.permutations(list(range(60))))
@settings(deadline=None, max_examples=25)
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    as_of = START + timedelta(days=30)
    plain = split_by_time(rows(list(range(60))), definition(), as_of)
    mixed = split_by_time(rows(order), definition(), as_of)
    assert [order[position] for position in mixed.holdout] == plain.holdout.tolist()
    assert [order[position] for position in mixed.train] == plain.train.tolist()


def test_shares() -> None:
    model = definition(gate={"holdout_share": 0.2}, training={"tuning": {"validation_share": 0.25, "folds": 2}})
    split = split_by_time(rows(list(range(100))), model, START + timedelta(days=30))
    assert (len(split.train), len(split.validation), len(split.holdout)) == (60, 20, 20)
    assert [len(fold.validation) for fold in split.folds] == [10, 10]
    assert [len(fold.train) for fold in split.folds] == [60, 70]


def test_a_holdout_by_time() -> None:
    model = definition(gate={"holdout_window": "5h"})
    split = split_by_time(rows(list(range(100))), model, START + timedelta(days=30))
    assert split.holdout.tolist() == [95, 96, 97, 98, 99]


def test_the_training_window_drops_old_rows() -> None:
    model = definition(training={"window": "50h"})
    split = split_by_time(rows(list(range(100))), model, START + timedelta(hours=100))
    assert split.outside_window == 50
    assert split.train[0] == 50


def test_rows_the_champion_has_learned_from_are_no_holdout() -> None:
    frame, as_of = rows(list(range(100))), START + timedelta(days=30)
    split = split_by_time(frame, definition(), as_of, START + timedelta(hours=94))
    assert split.holdout.tolist() == [95, 96, 97, 98, 99]
    assert len(split.learning) == 95
    with pytest.raises(DataError, match="none of 100 labelled rows is newer"):
        split_by_time(frame, definition(), as_of, START + timedelta(hours=99))


def test_of_the_rows_since_the_champion_half_teach_the_challenger() -> None:
    frame, as_of = rows(list(range(100))), START + timedelta(days=30)
    few = definition(gate={"minimum_rows": 3})
    split = split_by_time(frame, few, as_of, START + timedelta(hours=89))
    assert split.holdout.tolist() == [95, 96, 97, 98, 99], "of ten new rows, five teach"
    judged = split_by_time(frame, definition(gate={"minimum_rows": 8}), as_of, START + timedelta(hours=89))
    assert len(judged.holdout) == 8, "as many as the gate needs are kept for it"
    old = split_by_time(frame, few, as_of, START + timedelta(hours=9))
    assert len(old.holdout) == 20, "the share is the most"


def test_new_rows_of_one_time_are_not_parted() -> None:
    frame = rows([*range(90), *[90] * 10])
    split = split_by_time(
        frame, definition(gate={"minimum_rows": 3}), START + timedelta(days=30), START + timedelta(hours=89)
    )
    assert split.holdout.tolist() == list(range(90, 100))


@pytest.mark.parametrize(
    ("hours", "sections", "words"),
    [
        ([], {}, ["no labelled rows", "Ingest"]),
        (list(range(10)), {}, ["only 8 labelled rows", "minimum_rows is 10"]),
        ([1] * 50, {}, ["leaves no holdout of 50", "finer time column"]),
        ([1] * 30 + [2] * 10, {"gate": {"holdout_share": 0.3}}, ["no validation block", "validation_share"]),
    ],
)
def test_too_few_rows_are_counted_with_a_remedy(hours: list[int], sections: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        split_by_time(rows(hours), definition(**sections), START + timedelta(days=30))
    for word in words:
        assert word in str(caught.value)


def test_wrong_times_are_refused() -> None:
    frame = rows(list(range(40)))
    with pytest.raises(DataError, match="not a datetime"):
        split_by_time(frame.assign(time="2024"), definition(), START)
    frame.loc[3, "time"] = pd.NaT
    with pytest.raises(DataError, match="row 3"):
        split_by_time(frame, definition(), START + timedelta(days=30))
    with pytest.raises(DataError, match="no time zone"):
        split_by_time(rows(list(range(40))), definition(), datetime(2024, 3, 1))
    with pytest.raises(DataError, match="missing columns: y"):
        split_by_time(rows([1]).drop(columns="y"), definition(), START)


def test_fewer_folds_where_times_are_coarse() -> None:
    times = np.repeat(np.arange(4).astype("datetime64[D]"), 10)
    folds = time_ordered_folds(times, 5, 0.5)
    assert [len(fold.validation) for fold in folds] == [10, 10]
