"""After a promotion: a newcomer that is surely worse goes, a good one stays, and neither is judged on a handful."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_model
from copies import copy_workspace
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perennial.definition import GatePolicy
from perennial.workspace import Workspace
from tasks.gate.probation import Bout, ProbationReport, judge_newcomer, judge_waiting, look_confidence, probation_length
from tasks.gate.report import GateReport
from tasks.measures.bootstrap import paired_improvement
from tasks.rows.labels import label_frame
from tasks.steps.monitor import run_check
from tasks.steps.promote import was_rolled_back
from tasks.steps.retrain import promote
from tasks.steps.score import log_predictions
from tasks.steps.trial.probation import check_newcomer, end_probation

POLICY = GatePolicy(minimum_rows=100)
AS_ANSWERED = Bout(POLICY, "classification", "log_loss", 0, None)


def judged(noise: float, *, rows: int = 2000, seed: int = 0) -> ProbationReport:
    """A newcomer whose answers are the former champion's with so much noise, over 20 days."""
    random = np.random.default_rng(seed)
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows) * 20 / rows, unit="D")
    chance = random.uniform(0.05, 0.95, rows)
    score = np.clip(chance + random.normal(0, noise, rows), 0.01, 0.99)
    frame = pd.DataFrame(
        {"time": time, "truth": random.uniform(size=rows) < chance, "score": score, "shadow": chance}
    ).astype({"truth": float})
    return judge_newcomer(frame, replace(AS_ANSWERED, seed=seed), version=2, former=1)


def test_a_surely_worse_newcomer_goes() -> None:
    report = judged(0.3)
    assert report.verdict == "roll back"
    assert "surely worse" in report.reason


def test_one_that_answers_alike_stays() -> None:
    assert judged(0.0).verdict == "stay"


def test_too_few_rows_judge_nobody() -> None:
    report = judged(0.3, rows=99)
    assert (report.verdict, report.interval) == ("too early", None)
    assert "100 are needed" in report.reason


def after_days(days: int, worse: float, *, seed: int = 0, alike: float = 0.0) -> ProbationReport:
    """A newcomer whose squared error is greater by that share, after days of 100 rows; `alike`: within a day."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), 100)
    errors = (
        np.sqrt(1 - alike) * random.normal(size=(2, len(day))) + np.sqrt(alike) * random.normal(size=(2, days))[:, day]
    )
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, unit="D")
    score = np.sqrt(1 + worse) * errors[0]
    frame = pd.DataFrame({"time": time, "truth": 0.0, "score": score, "shadow": errors[1]})
    bout = Bout(GatePolicy(minimum_rows=50, resamples=100), "regression", "mse", 0, None)
    return judge_newcomer(frame, bout, version=2, former=1)


def test_a_ruinous_newcomer_goes_before_its_days_could_say_so() -> None:
    ruinous = after_days(2, 3.0)
    assert ruinous.interval is not None
    assert ruinous.interval.high > 0, "two days alone prove nothing"
    assert (ruinous.verdict, "no more days" in ruinous.reason) == ("roll back", True)
    assert after_days(1, 3.0).verdict == "too early", "one day may be a world of its own"
    assert after_days(2, 0.3).verdict == "stay", "a loss that is a little greater is the days' to judge"


@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_days_that_differ_ruin_no_harmless_newcomer(alike: float) -> None:
    gone = [after_days(2, 0.0, seed=seed, alike=alike).verdict == "roll back" for seed in range(40)]
    assert np.mean(gone) <= 0.05


def first_roll_back(worse: float, seed: int, *, naive: bool = False) -> int | None:
    """The day on which one of the looks at a newcomer ends its probation of 28 days: one every second day.

    Both models err alike, in their own way on rows and on whole days, but for what the newcomer is worse by.
    """
    random = np.random.default_rng(seed)
    days, count = np.repeat(np.arange(28), 12), 28 * 12
    errors = np.sqrt(0.9) * random.normal(size=(2, count)) + np.sqrt(0.1) * random.normal(size=(2, 28))[:, days]
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    frame = pd.DataFrame({"time": time, "truth": random.normal(size=count)})
    frame = frame.assign(score=(1 + worse) * errors[0], shadow=errors[1])
    for day in range(2, 29, 2):
        seen = frame[days < day]
        policy = GatePolicy(minimum_rows=20, resamples=100)
        if naive:  # the same interval at one look's confidence
            interval = paired_improvement(
                "mse", seen["truth"].to_numpy(), seen["score"].to_numpy(), seen["shadow"].to_numpy(),
                blocks=days[days < day], confidence=0.90, resamples=100,
            )  # fmt: skip
            gone = interval.high < 0
        else:
            bout = Bout(policy, "regression", "mse", 0, None)
            gone = judge_newcomer(seen, bout, version=2, former=1).verdict == "roll back"
        if gone:
            return day
    return None


@pytest.mark.slow
def test_looking_often_rolls_no_more_harmless_newcomers_back() -> None:
    sequential = np.mean([first_roll_back(0, seed) is not None for seed in range(60)])
    naive = np.mean([first_roll_back(0, seed, naive=True) is not None for seed in range(60)])
    assert sequential <= 0.05
    assert naive > 0.1  # or the test would prove nothing


def test_a_truly_worse_newcomer_does_not_outlast_its_probation() -> None:
    ended = [first_roll_back(0.6, seed) for seed in range(30)]
    assert np.mean([day is not None for day in ended]) >= 0.9
    assert np.median([day for day in ended if day is not None]) <= 20


@given(days=st.integers(1, 400), error=st.floats(0.001, 0.2))
def test_a_look_among_many_is_surer_than_one_alone(days: int, error: float) -> None:
    assert 1 - 2 * error < look_confidence(days, error) < 1
    assert look_confidence(21, error) > look_confidence(21, 1.5 * error)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_better_newcomer_is_never_rolled_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    chance = random.uniform(0.05, 0.95, 1000)
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(1000) * 29, unit="min")
    worse = np.clip(chance + random.normal(0, 0.3, 1000), 0.01, 0.99)
    truth = (random.uniform(size=1000) < chance).astype(float)
    frame = pd.DataFrame({"time": time, "truth": truth, "score": chance, "shadow": worse})
    bout = replace(AS_ANSWERED, metric="brier", seed=seed)
    assert judge_newcomer(frame, bout, version=2, former=1).verdict == "stay"
    turned = frame.rename(columns={"score": "shadow", "shadow": "score"})
    assert judge_waiting(frame, bout, version=2, former=1, time_is_up=False).verdict == "promote"
    assert judge_waiting(turned, bout, version=2, former=1, time_is_up=False).verdict in ("give up", "wait")
    assert judge_waiting(turned, bout, version=2, former=1, time_is_up=True).verdict == "give up"


@settings(max_examples=15, deadline=None)
@example(seed=976, shift=0.0)  # the same answers but for their last bit
@given(seed=st.integers(0, 10_000), shift=st.floats(-1, 1))
def test_behind_maps_a_newcomer_is_not_rolled_back_for_its_calibration(seed: int, shift: float) -> None:
    """The former champion has had its map for long; the newcomer, the same model, has none yet."""
    random = np.random.default_rng(seed)
    chance = random.uniform(0.05, 0.95, 2000)
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(2000) * 15, unit="min")
    truth = (random.uniform(size=2000) < chance).astype(float)
    shifted = 1 / (1 + (1 - chance) / chance * np.exp(-shift))
    frame = pd.DataFrame({"time": time, "truth": truth, "score": shifted, "shadow": chance})
    report = judge_newcomer(frame, replace(AS_ANSWERED, strength=1.0, seed=seed), version=2, former=1)
    assert report.interval is not None
    assert abs(report.interval.estimate) < 0.01
    assert report.verdict == "stay"


def test_a_challenger_without_later_rows_waits_until_its_time_is_up() -> None:
    nothing = pd.DataFrame({"time": pd.to_datetime([], utc=True), "truth": [], "score": [], "shadow": []})
    assert judge_waiting(nothing, AS_ANSWERED, version=2, former=1, time_is_up=False).verdict == "wait"
    given_up = judge_waiting(nothing, AS_ANSWERED, version=2, former=1, time_is_up=True)
    assert (given_up.verdict, given_up.interval) == ("give up", None)
    assert "has waited long enough" in given_up.reason


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    """Two versions trained on the same kind of data; the second reigns since day 15 and has answered nonsense."""
    workspace = make_workspace(tmp_path_factory.mktemp("newcomer"))
    definition = small_model.define(workspace, gate={"probation": "365d"})
    small_model.add(workspace, definition, small_model.rows(0, 15), as_of=small_model.day(15), history=True)
    first = small_model.retrain(workspace, definition, as_of=small_model.day(13))
    assert first.reign
    second = small_model.retrain(workspace, definition, as_of=small_model.day(15))
    if second.reign is None:
        at = small_model.day(15)
        workspace.registry.promote(second.version, action="promote", at=at, recorded_at=at, by="test", reason="")
    fresh = small_model.rows(15, 22)
    small_model.add(workspace, definition, fresh.drop(columns="even"), as_of=small_model.day(22))
    rows = pd.DataFrame({"_id": fresh["row"], "_time": pd.to_datetime(fresh["when"], utc=True)})
    nonsense = np.where(fresh["even"] == 1, 0.1, 0.9)
    made = {"version": second.version.number, "as_of": small_model.day(22), "origin": "test"}
    log_predictions(workspace.store, "digits", rows, nonsense, raw=nonsense, **made)
    label_frame(workspace.store, definition, fresh, as_of=small_model.day(23), author="test")
    return workspace


@pytest.fixture
def newcomer(once: Workspace, tmp_path: Path) -> Workspace:
    return copy_workspace(once, tmp_path)


@pytest.mark.slow
def test_nonsense_is_rolled_back_once_and_not_tried_again(newcomer: Workspace) -> None:
    definition = newcomer.definition("digits")
    report = check_newcomer(newcomer, definition, as_of=small_model.day(23))
    assert report is not None
    assert (report.verdict, report.version, report.former) == ("roll back", 2, 1)
    assert end_probation(newcomer, definition, report, as_of=small_model.day(23))
    line = newcomer.registry.history("digits")[-1]
    assert (line.version, line.action, line.by) == (1, "rollback", "probation")
    assert [row["version"] for row in newcomer.ledger("digits").rows() if row["kind"] == "rollback"] == [2]
    # The check of that very moment judges whoever is champion then, and so it does when it is repeated.
    for _ in range(2):
        assert run_check(newcomer, definition, as_of=small_model.day(23)).champion_version == "1"
    # The champion of now was rolled back to: it is on no probation.
    assert check_newcomer(newcomer, definition, as_of=small_model.day(23)) is None

    assert was_rolled_back(newcomer.registry.history("digits"), 2)
    again = small_model.retrain(newcomer, definition, as_of=small_model.day(15))
    assert again.version.number == 2
    report_again: GateReport = again.judged.report
    assert promote(newcomer, again.prepared, again.version, report_again, by="test", decision_id=None) is None
    assert newcomer.registry.history("digits")[-1].version == 1


@pytest.mark.slow
def test_after_its_time_nobody_is_on_probation(newcomer: Workspace) -> None:
    definition = newcomer.definition("digits")
    late = small_model.day(15) + probation_length(definition) + pd.Timedelta(days=1)
    assert check_newcomer(newcomer, definition, as_of=late) is None
