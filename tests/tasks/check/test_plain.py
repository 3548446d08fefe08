"""The first lines of a decision, as people read them who know no statistics."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.check.decision import Decision
from tasks.check.plain import summary
from tasks.check.signal import Signal

JARGON = ("log_loss", "sigma", "standard error", "p-value", "mature", "holdout", "persist")


def _signal(name: str, kind: Any, *, fired: bool = True, persistent: bool = True, detail: str = "") -> Signal:
    return Signal(name, kind, 1.0, 0.5, "a limit", fired, persistent, detail)


def _decision(verdict: Any, signals: tuple[Signal, ...] = (), **evidence: Any) -> Decision:
    known = {
        "judged": True,
        "loss": {"name": "log_loss", "mean": 0.56, "at_promotion": 0.5},
        "recalibration": {"method": "platt", "gain": 0.045, "rows": 500},
        "trained_until": "2024-03-10T00:00:00+00:00",
        "labelled_rows": 1500,
        "trained_rows": 1000,
        "complaints": [],
    }
    return Decision(
        decision_id="d", model="churn", as_of=datetime(2024, 6, 1, tzinfo=UTC), champion_version="3", policy="p",
        verdict=verdict, reasons=("because",), signals=signals, would_change=(), evidence=known | evidence,
        next_step="",
    )  # fmt: skip


FALLEN = _signal("loss", "quality")
STEADY = _signal("loss", "quality", fired=False, persistent=False)


def test_a_fall_that_a_correction_mends() -> None:
    told = " ".join(summary(_decision("recalibrate", (FALLEN,))))
    assert told == (
        "Predictions have become 12% worse than when the model was made (March 2024). "
        "A small correction of the probabilities takes back most of it; no new model is needed."
    )


@pytest.mark.parametrize(("gain", "word"), [(0.06, "all"), (0.03, "about half"), (0.005, "a part")])
def test_how_much_a_correction_takes_back(gain: float, word: str) -> None:
    found = summary(_decision("recalibrate", (FALLEN,), recalibration={"gain": gain}))
    assert f"takes back {word} of it" in found[-1]


def test_of_a_number_the_predictions_are_corrected_and_not_probabilities() -> None:
    loss = {"name": "mse", "mean": 4.0, "at_promotion": 4.0}
    told = summary(_decision("recalibrate", (STEADY,), loss=loss, recalibration={"gain": 0.2}))
    assert told == (
        "Predictions are as good as when the model was made (March 2024).",
        "A small correction of the predictions makes them 5% better; no new model is needed.",
    )


def test_what_chance_explains_is_not_called_a_fall() -> None:
    assert "which chance alone would explain" in summary(_decision("hold", (STEADY,)))[0]


def test_why_a_model_is_trained() -> None:
    assert "No small correction mends that: a new model is trained" in summary(_decision("retrain", (FALLEN,)))[-1]
    grown = summary(_decision("retrain", (STEADY, _signal("growth", "growth"))))[-1]
    assert grown.startswith("There are 50% more examples with known truth")
    assert summary(_decision("retrain", (STEADY, _signal("age", "schedule"))))[-1].startswith("The model is older")
    late = summary(_decision("retrain", (_signal("drift", "drift"),), judged=False))
    assert "can't be told yet" in late[0]
    assert "comes too late to wait for" in late[-1]


def test_broken_data_comes_by_name_and_says_what_to_do() -> None:
    broken = _signal("unit of price", "health", detail="price looks multiplied by 1000: median 5000")
    told = summary(_decision("repair", (STEADY, broken)))
    assert told[-1] == (
        "The data looks broken: price looks as if its unit had changed. Please look; nothing is learned from it until "
        "then."
    )
    dead = _signal("stale feed", "health", detail="the newest row is from 2024-05-01 00:00")
    assert "the newest row is from 2024-05-01" in summary(_decision("repair", (dead,)))[-1]


def test_a_complaint_that_stands_is_told_without_asking_again() -> None:
    open_one = {
        "name": "unseen carrier", "column": "carrier", "decision_id": "c", "opened": "2024-05-25T00:00:00+00:00",
        "since": "2024-05-18T00:00:00+00:00", "until": "2024-06-01T00:00:00+00:00", "state": "open", "firing": True,
        "value": 0.9, "reason": "", "judged_until": None, "numbers": None, "settled": None,
    }  # fmt: skip
    told = summary(_decision("hold", (STEADY,), complaints=[open_one]))
    assert told[1] == (
        "Carrier holds values never seen before since 25 May: its truth is waited for, and nothing is learned from it."
    )
    assert told[-1] == "Nothing needs doing."


def test_what_no_truth_has_judged_is_not_called_broken_by_it() -> None:
    untold = {
        "name": "unseen carrier", "column": "carrier", "decision_id": "c", "opened": "2024-05-25T00:00:00+00:00",
        "since": "2024-05-18T00:00:00+00:00", "until": "2024-06-01T00:00:00+00:00", "state": "confirmed",
        "firing": True, "value": 0.9, "reason": "", "judged_until": None, "numbers": None, "settled": None,
    }  # fmt: skip
    judged = untold | {"numbers": {"later_gain": -0.1}}
    assert "too little truth has come to judge it" in summary(_decision("hold", (STEADY,), complaints=[untold]))[1]
    assert "its truth says that it is broken" in summary(_decision("hold", (STEADY,), complaints=[judged]))[1]


def test_a_map_that_is_taken_off_is_no_correction() -> None:
    told = summary(_decision("recalibrate", (FALLEN,), recalibration={"gain": 0.1, "note": "maps harmed"}))[-1]
    assert told.startswith("Corrections of the probabilities have not lasted here: the one in force is taken off")


def test_drift_that_does_no_harm_and_a_training_that_must_wait() -> None:
    drift = _signal("drift", "drift")
    assert "by the known truth that does no harm so far" in summary(_decision("hold", (STEADY, drift)))[-1]
    waits = replace(_decision("hold", (FALLEN,)), reasons=("retraining is called for (loss), but the cooldown lasts",))
    assert "were it not too soon" in summary(waits)[-1]


@pytest.mark.parametrize("verdict", ["hold", "recalibrate", "retrain", "repair"])
def test_no_word_of_a_statistician(verdict: str) -> None:
    told = " ".join(summary(_decision(verdict, (FALLEN, _signal("growth", "growth"), _signal("drift", "drift")))))
    assert not any(word in told for word in JARGON)
