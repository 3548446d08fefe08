"""The estimated loss in a check: told always, believed by its record, acting only where labels can't judge."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, as_regression, make_frame, make_inputs, make_reference
from scipy.special import expit, logit

from perennial.definition import Monitoring, Triggers
from perennial.state.tables import ROW_ID
from tasks.calibration.fit import Recalibrator
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.estimate.record import past_rows
from tasks.check.history import read_history
from tasks.check.signal import Signal
from tasks.check.text import render_text

FRAME = make_frame(30)
REFERENCE = make_reference(FRAME[FRAME["time"] < pd.Timestamp(START + 13 * WEEK)])
AS_OF = START + 24 * WEEK
ON = Triggers(quality=False, drift=False, growth=False, schedule=False, estimate=True)
POLICY = Monitoring(recalibrate=False, triggers=ON, label_patience=timedelta(0), cooldown=timedelta(0))


def logged(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(score=frame["chance"], version="1")[["id", "time", "score", "version"]]


def given(frame: pd.DataFrame, as_of: datetime, ledger: list[dict[str, Any]], **changes: Any) -> CheckInputs:
    """A check's inputs with the past by which estimates are measured, and ids in the window."""
    inputs = make_inputs(REFERENCE, frame, as_of, ledger=tuple(ledger))
    log = logged(frame)
    inside = (frame["time"] >= pd.Timestamp(as_of - WEEK)) & (frame["time"] < pd.Timestamp(as_of))
    past = past_rows(
        read_history(ledger, as_of), WEEK, as_of - WEEK,
        lambda start, end: log[(log["time"] >= pd.Timestamp(start)) & (log["time"] < pd.Timestamp(end))],
    )  # fmt: skip
    features = frame.drop(columns=["chance", "truth", "time"]).rename(columns={"id": ROW_ID})
    read = {"past": past, "window_features": features[inside], "mature_features": features[~inside]}
    return replace(inputs, **(read | changes))


def moving(weeks: int, ledger_weeks: int = 10) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """A world whose chances swing between certain and doubtful by week, and the ledger of its checks.

    The loss swings with them, which the scores tell beforehand and no past week does.
    """
    frame = make_frame(weeks)
    week = ((frame["time"] - pd.Timestamp(START)).dt.days // 7).to_numpy()
    chance = expit(logit(frame["chance"]) * np.where(week % 2 == 0, 3.0, 0.2))
    truth = (np.random.default_rng(5).random(len(frame)) < chance).astype(float)
    frame = frame.assign(chance=chance, truth=truth)
    ledger: list[dict[str, Any]] = []
    for number in range(weeks - ledger_weeks, weeks):
        ledger.append(check(given(frame, START + number * WEEK, ledger), POLICY, as_of=START + number * WEEK).to_dict())
    return frame, ledger


@pytest.fixture(scope="module")
def swinging() -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    return moving(25)


def told(decision: Decision) -> Signal:
    (signal,) = [signal for signal in decision.signals if signal.kind == "estimate"]
    return signal


def doubtful(inputs: CheckInputs, factor: float = 0.1) -> CheckInputs:
    """The window's scores drawn to one half: whoever believes them must expect a greater loss."""
    scores = expit(logit(inputs.predictions["score"]) * factor)
    return replace(inputs, predictions=inputs.predictions.assign(score=scores))


class TestRecord:
    def test_it_is_measured_beside_the_guesses_of_its_time(self, swinging: Any) -> None:
        frame, ledger = swinging
        at = START + 25 * WEEK
        decision = check(given(frame, at, ledger), POLICY, as_of=at)
        record = decision.evidence["estimate"]["record"]
        assert record["windows"] == 10
        assert record["error"] < record["recent_error"] / 3
        assert record["error"] < record["promotion_error"] / 3
        assert decision.evidence["estimate"]["trusted"]
        assert "trusted: over 10 windows it was off by" in told(decision).detail
        assert "the estimate's own error over 10 windows" in told(decision).threshold_source
        assert "estimated loss" in render_text(decision)

    def test_a_check_of_the_past_repeats_itself(self, swinging: Any) -> None:
        frame, ledger = swinging
        at = START + 22 * WEEK
        before = next(row for row in ledger if row["as_of"] == at.isoformat())
        again = check(given(frame, at, ledger), POLICY, as_of=at).to_dict()
        assert again == before

    def test_corrected_labels_change_the_record_of_later_checks(self, swinging: Any) -> None:
        frame, ledger = swinging
        at = START + 25 * WEEK
        inputs = given(frame, at, ledger)
        wrong = inputs.labels.assign(truth=1 - inputs.labels["truth"], labelled_at=pd.Timestamp(at))
        later = replace(inputs, labels=pd.concat([inputs.labels, wrong], ignore_index=True))
        plain = check(inputs, POLICY, as_of=at).evidence["estimate"]["record"]
        assert check(later, POLICY, as_of=at).evidence["estimate"]["record"]["error"] > plain["error"] + 0.1
        unknown = replace(later, labels=later.labels.assign(labelled_at=pd.Timestamp(at + WEEK)).pipe(
            lambda rows: pd.concat([inputs.labels, rows], ignore_index=True)
        ))  # fmt: skip
        assert check(unknown, POLICY, as_of=at).evidence["estimate"]["record"] == plain

    def test_without_a_past_it_is_told_but_not_trusted(self) -> None:
        inputs = given(FRAME, AS_OF, [])
        decision = check(inputs, POLICY, as_of=AS_OF)
        assert decision.evidence["estimate"]["value"] == pytest.approx(REFERENCE.holdout_loss, abs=0.05)
        assert told(decision).threshold is None
        assert "0 of its estimates have met their labels" in told(decision).detail
        assert check(doubtful(inputs), POLICY, as_of=AS_OF).verdict == "hold"


class TestActing:
    def acted(self, swinging: Any, policy: Monitoring = POLICY, **changes: Any) -> Decision:
        """The check of a week of doubtful scores, after one in which the estimate was beyond its limit."""
        frame, ledger = swinging
        at = START + 25 * WEEK
        newest = ledger[-1]
        fired = [signal | {"fired": signal["kind"] == "estimate"} for signal in newest["signals"]]
        inputs = given(frame, at, [*ledger[:-1], newest | {"signals": fired}], **changes)
        # The promise of a champion that was promoted on certain weeks.
        sure = replace(REFERENCE, holdout_loss=0.2, holdout_error=0.005)
        return check(replace(doubtful(inputs), reference=sure), policy, as_of=at)

    def test_a_trusted_estimate_beyond_its_limit_retrains_where_labels_cannot_judge(self, swinging: Any) -> None:
        decision = self.acted(swinging)
        assert decision.evidence["blind"]
        assert told(decision).persistent
        assert decision.verdict == "retrain"
        assert "is estimated as" in decision.reasons[0]
        assert decision.would_change[0].startswith("hold, if estimated loss were at most")

    def test_where_labels_can_judge_it_is_told_only(self, swinging: Any) -> None:
        patient = POLICY.model_copy(update={"label_patience": timedelta(days=28)})
        decision = self.acted(swinging, patient)
        assert not decision.evidence["blind"]
        assert told(decision).fired
        assert decision.verdict == "hold"

    def test_the_policy_must_allow_it(self, swinging: Any) -> None:
        off = POLICY.model_copy(update={"triggers": ON.model_copy(update={"estimate": False})})
        assert self.acted(swinging, off).verdict == "hold"
        assert not Monitoring().triggers.estimate

    def test_without_trust_it_does_nothing(self, swinging: Any) -> None:
        decision = self.acted(swinging, past=None)
        assert not told(decision).persistent
        assert decision.verdict == "hold"

    def test_one_week_waits_for_the_next(self, swinging: Any) -> None:
        frame, ledger = swinging
        at = START + 25 * WEEK
        sure = replace(REFERENCE, holdout_loss=0.2, holdout_error=0.005)
        calm = [row | {"signals": []} for row in ledger]
        wary = POLICY.model_copy(update={"extreme": 100.0})
        decision = check(replace(doubtful(given(frame, at, calm)), reference=sure), wary, as_of=at)
        assert told(decision).fired
        assert decision.verdict == "hold"


class TestWhatItRestsOn:
    def test_a_new_champion_is_estimated_by_what_it_was_judged_on(self) -> None:
        inputs = given(FRAME, AS_OF, [])
        fresh = replace(inputs, mature=inputs.mature[:0], holdout=None)
        assert check(fresh, POLICY, as_of=AS_OF).evidence["estimate"] is None
        held = FRAME[:2_000].assign(_score=FRAME["chance"][:2_000], _truth=FRAME["truth"][:2_000])
        found = check(replace(fresh, holdout=held), POLICY, as_of=AS_OF).evidence["estimate"]
        assert found["value"] == pytest.approx(REFERENCE.holdout_loss, abs=0.05)
        assert found["fitted_rows"] == 2_000

    def test_labels_that_came_first_are_not_taken_for_all(self) -> None:
        """A third of the labels, all of them noughts: nothing is fitted on that."""
        inputs = given(FRAME, AS_OF, [])
        early = inputs.labels[(inputs.labels["truth"] == 0) & (np.arange(len(inputs.labels)) % 2 == 0)]
        found = check(replace(inputs, labels=early), POLICY, as_of=AS_OF)
        assert found.evidence["coverage"] < 0.5
        assert found.evidence["estimate"] is None
        assert "too small a share of them" in told(found).detail

    def test_a_value_is_estimated_from_features_and_answer(self) -> None:
        inputs = given(FRAME, AS_OF, [])
        values = replace(inputs, reference=as_regression(REFERENCE))
        found = check(values, POLICY, as_of=AS_OF).evidence["estimate"]
        brier = ((FRAME["truth"] - FRAME["chance"]) ** 2).mean()
        assert found["method"] == "DLE"
        assert found["value"] == pytest.approx(brier, abs=0.02)
        held = FRAME[:2_000].assign(_score=FRAME["chance"][:2_000], _truth=FRAME["truth"][:2_000])
        fresh = check(replace(values, mature=inputs.mature[:0], holdout=held), POLICY, as_of=AS_OF)
        assert fresh.evidence["estimate"]["value"] == pytest.approx(brier, abs=0.02)
        blind = replace(values, window_features=None)
        assert "can't be read as the champion's features" in told(check(blind, POLICY, as_of=AS_OF)).detail

    def test_a_broken_window_is_left_to_the_health_signals(self) -> None:
        values = replace(given(FRAME, AS_OF, []), reference=as_regression(REFERENCE))
        for column in (None, "fast"):
            window, features = (
                frame.drop(columns="speed") if column is None else frame.assign(speed=column)
                for frame in (values.window, values.window_features)
            )
            decision = check(replace(values, window=window, window_features=features), POLICY, as_of=AS_OF)
            assert decision.verdict == "repair"
            assert decision.evidence["estimate"] is None

    def test_it_is_about_the_map_in_force(self) -> None:
        inputs = given(FRAME, AS_OF, [])
        bent = Recalibrator("classification", "platt", (3.0, 1.0))
        plain, mapped = (
            check(replace(inputs, recalibrator=each), POLICY, as_of=AS_OF).evidence["estimate"] for each in (None, bent)
        )
        assert mapped["value"] > plain["value"] + 0.1
        assert mapped["map"] == bent.to_dict()
