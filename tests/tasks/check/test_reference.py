"""What is kept of a champion's training data: order of no account, texts as numbers, clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, make_frame, make_inputs, make_reference

from perennial.definition import Monitoring
from perennial.errors import DataError
from tasks.check.decision import check
from tasks.check.reference import Reference, build_reference, duplicate_share, row_digests, summarise
from tasks.measures.profiles import column_codes, make_columns, microseconds

FRAME = make_frame(13)


def test_the_order_of_rows_is_of_no_account() -> None:
    shuffled = FRAME.sample(frac=1, random_state=0, ignore_index=True)
    one, other = make_reference(FRAME), make_reference(shuffled)
    assert one.profile.counts.tolist() == other.profile.counts.tolist()
    assert one.runs == other.runs
    assert one.target_runs == other.target_runs


def test_runs_are_whole_windows_and_limits_know_how_many() -> None:
    reference = make_reference(FRAME)
    assert len(reference.runs) == 13 or len(reference.runs) == 12
    assert {run.rows for run in reference.runs[1:]} <= set(range(660, 685))
    assert reference.null.runs == 13
    assert reference.trained_rows == len(FRAME)
    assert reference.trained_from == START


def test_a_long_past_keeps_few_blocks_and_runs() -> None:
    times = pd.Series(pd.date_range("2000-01-01", "2020-01-01", periods=20_000, tz="UTC")).astype("datetime64[us, UTC]")
    frame = pd.DataFrame({"time": times, "x": np.random.default_rng(0).normal(size=20_000)})
    reference = build_reference(
        frame, time="time", task="regression", loss="mse", window_seconds=7 * 86_400, numeric=["x"]
    )
    assert len(reference.profile.starts) <= 1_401
    assert len(reference.runs) == 60
    assert len(json.dumps(reference.to_dict())) < 200_000


def test_a_reference_needs_rows_and_columns() -> None:
    with pytest.raises(DataError, match="lacks wind"):
        make_reference(FRAME, numeric=("wind",))
    with pytest.raises(DataError, match="no rows"):
        make_reference(FRAME[:0])


def test_summaries_say_what_lies_outside() -> None:
    columns = make_columns(FRAME, ["speed"], ["carrier"])
    window = FRAME[:100].assign(speed=1e6, carrier=pd.Series(["??"] * 100, dtype="str"))
    codes = column_codes(window, columns)
    summary = summarise(window, microseconds(window["time"]), columns, codes)
    assert summary.columns["speed"].outside == 1.0
    assert summary.columns["speed"].top_share == 1.0
    assert summary.columns["carrier"].outside == 1.0
    assert sum(summary.hours) == 100


def test_repeated_rows_are_counted_and_near_repeats_are_not() -> None:
    columns = make_columns(FRAME, ["speed"], ["carrier"])
    rows = FRAME[:50]
    again = pd.concat([rows, rows[:10]], ignore_index=True)
    assert duplicate_share(again, microseconds(again["time"]), columns) == pytest.approx(10 / 60)
    later = pd.concat([rows, rows[:10].assign(time=rows["time"][:10] + timedelta(seconds=1))], ignore_index=True)
    assert duplicate_share(later, microseconds(later["time"]), columns) == 0
    digests = row_digests(FRAME, microseconds(FRAME["time"]), columns)
    assert len(np.unique(digests)) == len(FRAME)


def test_texts_are_watched_by_their_length_and_unknown_words() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(200)])
    frame = make_frame(20)
    notes = pd.Series([" ".join(rng.choice(words, 8)) for _ in range(len(frame))], dtype="str")
    frame = frame.assign(note=notes)
    training = frame[frame["time"] < pd.Timestamp(START + 13 * WEEK)]
    reference = make_reference(training, text=("note",), importance={"note": 1.0})
    assert Reference.from_dict(json.loads(json.dumps(reference.to_dict()))).watched == reference.watched
    as_of = START + 15 * WEEK
    inputs = make_inputs(reference, frame, as_of)
    rows = frame.loc[(frame["time"] >= pd.Timestamp(as_of - WEEK)) & (frame["time"] < pd.Timestamp(as_of)), "note"]
    policy = Monitoring(growth=10)
    same = check(replace(inputs, window=inputs.window.assign(note=rows.to_numpy())), policy, as_of=as_of)
    assert not any(s.fired for s in same.signals if s.kind in ("drift", "health"))
    foreign = inputs.window.assign(
        note=pd.Series(["ein ganz anderes Wort steht hier jetzt da"] * len(rows), dtype="str")
    )
    moved = check(replace(inputs, window=foreign), policy, as_of=as_of)
    assert any("unknown words" in s.name and s.fired for s in moved.signals)
    assert check(inputs, policy, as_of=as_of).verdict == "repair"
