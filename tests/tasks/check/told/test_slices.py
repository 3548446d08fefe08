"""Slices and weak segments of a check: what fell or moved in one of them is told of it, and of no other."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.definition import Monitoring, Segments
from perennial.state.tables import ROW_ID
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.inputs import Aside
from tasks.check.reference import Reference, build_reference
from tasks.check.text import render_markdown, render_text

START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
AS_OF = START + 14 * WEEK
POLICY = Monitoring(window=WEEK)


def rows(count: int, start: datetime, length: timedelta, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    seconds = np.sort(random.random(count)) * length.total_seconds()
    times = pd.Series(pd.Timestamp(start) + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us, UTC]")
    frame = {"time": times, "x": random.normal(size=count), "y": random.normal(size=count)}
    frame["region"] = pd.Series(random.choice(["north", "south", "east"], count), dtype="str")
    frame["kind"] = pd.Series(random.choice(["a", "b"], count), dtype="str")
    return pd.DataFrame(frame)


def truths(frame: pd.DataFrame, seed: int) -> np.ndarray:
    return frame["x"].to_numpy() + np.random.default_rng(seed).normal(size=len(frame))


@pytest.fixture(scope="module")
def training() -> pd.DataFrame:
    return rows(26_000, START, 13 * WEEK, 0)


@pytest.fixture(scope="module")
def reference(training: pd.DataFrame) -> Reference:
    return build_reference(
        training, time="time", task="regression", loss="mse", window_seconds=WEEK.total_seconds(), numeric=["x", "y"],
        categorical=["region", "kind"], holdout_loss=1.0, holdout_error=0.02, holdout_rows=3000,
    )  # fmt: skip


def decide(
    reference: Reference, training: pd.DataFrame, *, window: pd.DataFrame | None = None, extra: Any = None,
    search: Segments | None = None, slices: tuple[str, ...] = ("region",),
) -> Decision:  # fmt: skip
    """A check whose champion answers x.

    Args:
        extra: Of the mature rows: what is added to their truth.
    """
    window = rows(3000, AS_OF - WEEK, WEEK, 1) if window is None else window
    mature = rows(3000, AS_OF - 2 * WEEK, WEEK, 2)
    ids = pd.Series([f"m{number}" for number in range(len(mature))], dtype="str")
    truth = truths(mature, 3) + (0.0 if extra is None else extra(mature))
    logged = pd.DataFrame({"id": ids, "time": mature["time"], "score": mature["x"], "version": "1"})
    sample = training.iloc[::5].reset_index(drop=True)
    judged = np.arange(len(sample)) % 2 == 0
    sample = sample.assign(_score=sample["x"].where(judged), target=truths(sample, 4))
    aside = Aside(
        window=window, sample=sample, target="target", slices=slices, search=search,
        mature_features=mature.drop(columns="time").assign(**{ROW_ID: ids}),
    )  # fmt: skip
    return check(
        CheckInputs(
            model="m", champion_version="1", reference=reference, time="time", window=window,
            predictions=logged.head(0), mature=logged,
            labels=pd.DataFrame({"id": ids, "truth": truth, "labelled_at": pd.Timestamp(AS_OF)}),
            label_delay=WEEK, labelled_rows=26_000, aside=aside,
        ),
        POLICY, as_of=AS_OF,
    )  # fmt: skip


def by_slice(decision: Decision) -> dict[str, dict[str, Any]]:
    return {item["slice"]: item for item in decision.evidence["slices"]}


def test_where_nothing_happened_nothing_is_told(reference: Reference, training: pd.DataFrame) -> None:
    found = by_slice(decide(reference, training))
    assert set(found) == {"region = north", "region = south", "region = east"}
    for item in found.values():
        assert item["moved"] == []
        assert not item["quality"]["fell"]
        assert item["quality"]["low"] < 1.0 < item["quality"]["high"]
        assert item["quality"]["at_promotion"] == pytest.approx(1.0, abs=0.15)
        assert item["share"] == pytest.approx(item["share_in_training"], abs=0.04)
    assert sum(item["rows"] for item in found.values()) == 3000


def test_a_slice_whose_quality_fell(reference: Reference, training: pd.DataFrame) -> None:
    decision = decide(reference, training, extra=lambda mature: 1.0 * (mature["region"] == "east").to_numpy())
    found = by_slice(decision)
    assert [name for name, item in found.items() if item["quality"]["fell"]] == ["region = east"]
    assert "region = east" in render_text(decision)
    assert "surely worse" in render_markdown(decision)


def test_a_slice_in_which_a_column_moved(reference: Reference, training: pd.DataFrame) -> None:
    window = rows(3000, AS_OF - WEEK, WEEK, 1)
    window["y"] += 1.2 * (window["region"] == "south")
    found = by_slice(decide(reference, training, window=window))
    assert [name for name, item in found.items() if item["moved"]] == ["region = south"]
    assert found["region = south"]["moved"][0]["column"] == "y"


def test_a_slice_that_training_did_not_have(reference: Reference, training: pd.DataFrame) -> None:
    window = rows(3000, AS_OF - WEEK, WEEK, 1)
    window["region"] = window["region"].where(np.arange(3000) % 10 > 0, "west")
    new = by_slice(decide(reference, training, window=window))["region = west"]
    assert (new["rows"], new["share_in_training"], new["quality"]) == (300, 0.0, None)


def test_weak_segments_are_told_beside_what_they_were(reference: Reference, training: pd.DataFrame) -> None:
    decision = decide(
        reference, training, slices=(), search=Segments(minimum_rows=100),
        extra=lambda mature: 2.0 * ((mature["region"] == "east") & (mature["kind"] == "b")).to_numpy(),
    )  # fmt: skip
    found = decision.evidence["segments"]
    assert found["found"][0]["where"] == "region = east and kind = b"
    assert found["found"][0]["lift_low"] > 2
    assert found["found"][0]["at_promotion"]["loss"] == pytest.approx(1.0, abs=0.3)
    assert "region = east and kind = b: mse" in render_text(decision)
    only = decide(reference, training, slices=(), search=Segments(columns=1, among=("kind",), minimum_rows=100))
    assert only.evidence["segments"]["looked_at"] == 2
    assert "slices" not in only.evidence


def test_what_is_told_decides_nothing_and_costs_nothing_where_nobody_asks(
    reference: Reference, training: pd.DataFrame
) -> None:
    told = decide(reference, training, search=Segments())
    json.dumps(told.to_dict(), allow_nan=False)
    quiet = decide(reference, training, slices=())
    assert {"slices", "segments", "effects"} & set(quiet.evidence) == set()
    without = {name: value for name, value in told.evidence.items() if name not in ("slices", "segments", "effects")}
    assert replace(told, evidence=without) == quiet


def test_each_column_has_statistics_of_the_window(reference: Reference, training: pd.DataFrame) -> None:
    window = rows(3000, AS_OF - WEEK, WEEK, 1)
    found = decide(reference, training, window=window).statistics
    assert found["x"].mean == pytest.approx(float(window["x"].mean()))
    assert found["x"].deviation == pytest.approx(float(window["x"].std()))
    assert found["region"].values == window["region"].value_counts().to_dict()
    assert Decision.from_dict(decide(reference, training).to_dict()).statistics == {}
