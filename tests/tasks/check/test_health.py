"""Each fault of a feed is named at the first check; the seasons are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, make_frame, make_inputs, make_reference

from perennial.definition import Monitoring
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.health import Freshness, check_predictions
from tasks.check.history import acceptance_row

FRAME = make_frame(40)
TRAINING = FRAME[FRAME["time"] < pd.Timestamp(START + 13 * WEEK)]
REFERENCE = make_reference(TRAINING)
AS_OF = START + 15 * WEEK


def _inputs() -> CheckInputs:
    return make_inputs(REFERENCE, FRAME, AS_OF)


def _check(inputs: CheckInputs) -> Decision:
    return check(inputs, Monitoring(), as_of=AS_OF)


def _fired(decision: Decision) -> list[str]:
    return [signal.name for signal in decision.signals if signal.kind == "health" and signal.fired]


def _with(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Decision:
    inputs = _inputs()
    return _check(replace(inputs, window=change(inputs.window.copy())))


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "thousandfold": (lambda f: f.assign(speed=f["speed"] * 1000), "unit of speed"),
    "fahrenheit": (lambda f: f.assign(temperature=f["temperature"] * 1.8 + 32), "unit of temperature"),
    "kelvin": (lambda f: f.assign(temperature=f["temperature"] + 273.15), "unit of temperature"),
    "rare values": (lambda f: f.assign(rain=f["rain"].where(f["rain"] > 4, 0) * 1000), "range of rain"),
    "missing": (lambda f: f.assign(speed=f["speed"].where(np.arange(len(f)) % 2 == 0)), "missing speed"),
    "empty": (lambda f: f.assign(carrier=pd.Series([None] * len(f), dtype="str")), "missing carrier"),
    "constant": (lambda f: f.assign(speed=8.0), "constant speed"),
    "constant category": (lambda f: f.assign(carrier=pd.Series(["AA"] * len(f), dtype="str")), "constant carrier"),
    "unseen": (lambda f: f.assign(carrier=f["carrier"].where(np.arange(len(f)) % 2 == 0, "??")), "unseen carrier"),
    "repeated": (lambda f: pd.concat([f, f[: len(f) // 4]], ignore_index=True), "duplicated rows"),
    "time zone": (lambda f: f.assign(time=f["time"] - timedelta(hours=6)), "clock shifted"),
    "lost column": (lambda f: f.drop(columns="rain"), "schema"),
    "lost type": (lambda f: f.assign(rain=f["rain"].astype("str")), "type of rain"),
    "thin": (lambda f: f[::20], "thin feed"),
    "nothing": (lambda f: f[:0], "stale feed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_at_once(fault: str) -> None:
    change, name = FAULTS[fault]
    decision = _with(change)
    assert decision.verdict == "repair"
    assert name in _fired(decision), _fired(decision)
    assert any(any(c.isdigit() for c in reason) for reason in decision.reasons)


def test_untouched_window_is_in_order() -> None:
    decision = _check(_inputs())
    assert _fired(decision) == []
    assert decision.verdict != "repair"


def test_a_year_of_seasons_is_not_called_broken() -> None:
    ledger: list[dict[str, object]] = []
    for week in range(14, 41):
        as_of = START + week * WEEK
        decision = check(make_inputs(REFERENCE, FRAME, as_of, ledger=tuple(ledger)), Monitoring(), as_of=as_of)
        assert decision.verdict != "repair", (week, decision.reasons)
        ledger.append(decision.to_dict())


def test_shifted_world_is_drift_and_not_broken() -> None:
    decision = _with(lambda f: f.assign(speed=f["speed"] + 8, temperature=f["temperature"] + 6))
    assert _fired(decision) == []
    assert any(s.name == "drift" and s.fired for s in decision.signals)


def test_feed_signals() -> None:
    late = AS_OF + timedelta(hours=5)
    inputs = replace(_inputs(), freshness=Freshness(late, future_rows=40))
    assert _fired(_check(inputs)) == ["clock ahead"]
    inputs = replace(_inputs(), freshness=Freshness(AS_OF - 2 * WEEK))
    assert "stale feed" in _fired(_check(inputs))
    inputs = replace(
        _inputs(), freshness=Freshness(AS_OF, duplicate_batches=1, duplicate_rows=96, example="monday.csv")
    )
    decision = _check(inputs)
    assert decision.verdict == "repair"
    assert "monday.csv" in decision.reasons[0]


def test_predictions_that_are_no_numbers_are_a_fault() -> None:
    inputs = _inputs()
    holes = replace(inputs, predictions=inputs.predictions.assign(score=np.nan))
    assert _fired(_check(holes)) == ["predictions"]
    assert check_predictions(np.full(5, np.nan)) == ()


def test_a_model_that_answers_one_value_is_trained_anew_at_once() -> None:
    inputs = _inputs()
    alike = replace(inputs, predictions=inputs.predictions.assign(score=0.25))
    decision = _check(alike)
    assert decision.verdict == "retrain"
    assert "answers 0.25 to" in decision.reasons[0]


def test_a_model_that_answers_one_value_stays_while_the_truth_is_one_value_too() -> None:
    inputs = _inputs()
    same = replace(inputs, predictions=inputs.predictions.assign(score=0.25), labels=inputs.labels.assign(truth=0.0))
    alike = next(signal for signal in _check(same).signals if signal.name == "predictions alike")
    assert not alike.fired


def test_people_can_accept_what_was_called_broken() -> None:
    inputs = _inputs()
    inputs = replace(inputs, window=inputs.window.assign(carrier=pd.Series(["AA"] * len(inputs.window), dtype="str")))
    first = _check(inputs)
    assert first.verdict == "repair"
    accepted = acceptance_row(first.decision_id, AS_OF + timedelta(hours=1), by="Ada", reason="one carrier is left")
    later = AS_OF + timedelta(hours=2)
    again = check(replace(inputs, ledger=(first.to_dict(), accepted)), Monitoring(), as_of=later)
    assert again.verdict != "repair"


def test_an_acceptance_is_told_and_ends_with_the_champion() -> None:
    inputs = replace(_inputs(), freshness=Freshness(AS_OF + timedelta(days=1), future_rows=3))
    first = _check(inputs)
    accepted = acceptance_row(first.decision_id, AS_OF + timedelta(hours=1), by="Ada", reason="planned flights")
    later, ledger = AS_OF + timedelta(hours=2), (first.to_dict(), accepted)
    again = check(replace(inputs, ledger=ledger), Monitoring(), as_of=later)
    assert again.verdict != "repair"
    assert any("accepted by Ada: planned flights" in signal.detail for signal in again.signals)
    other = replace(inputs, champion_version="2", ledger=ledger)
    assert check(other, Monitoring(), as_of=later).verdict == "repair"
