"""What checks make of more than two classes: estimates, label shift, the profile, a complaint's trial."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from perennial.model.calibrated import apply_map
from tasks.calibration.fit import Recalibrator
from tasks.check.complaints.trial import hold_trial
from tasks.check.estimate.estimates import estimate_class_loss
from tasks.check.reference import Reference, build_reference, is_prediction
from tasks.check.signals.columns import label_shift_signals
from tasks.measures.quality import row_losses

NAMES = ("a", "b", "c")


def drawn(rows: int, power: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    raw = np.exp(generator.normal(size=(rows, 3)) * 1.5)
    score = raw / raw.sum(axis=1, keepdims=True)
    chance = apply_map(score, "shifted", [power, 0.0, 0.4, 0.0], "classification")
    return (chance.cumsum(axis=1) < generator.random(rows)[:, None]).sum(axis=1).astype(np.float64), score


@pytest.mark.parametrize("loss", ["log_loss", "brier", "error"])
@pytest.mark.parametrize("in_force", [None, Recalibrator("classification", "shifted", (0.7, 0.0, 0.2, 0.0))])
def test_the_estimate_is_near_what_the_labels_say_later(loss: str, in_force: Recalibrator | None) -> None:
    truth, raw = drawn(3000, 0.7, 0)
    later, window = drawn(3000, 0.7, 1)
    found = estimate_class_loss(truth, raw, window, in_force, loss)
    realised = row_losses(later, window if in_force is None else in_force.apply(window), loss)
    assert found.value == pytest.approx(realised.mean(), abs=4 * found.standard_error)
    assert 0.5 < (found.auc or 0) < 1
    turned = estimate_class_loss(truth, raw, window[::-1], in_force, loss)
    assert turned.value == pytest.approx(found.value)


def reference_of(truth: np.ndarray, scores: np.ndarray) -> Reference:
    frame = pd.DataFrame({"x": scores[:, 0], "at": pd.date_range("2026-01-01", periods=len(truth), freq="h", tz="UTC")})
    return build_reference(
        frame, time="at", task="classification", loss="log_loss",
        window_seconds=timedelta(days=7).total_seconds(), numeric=("x",), scores=scores, truth=truth, classes=NAMES,
    )  # fmt: skip


def test_the_reference_knows_each_class_and_is_kept_whole() -> None:
    truth, scores = drawn(1500, 1.0, 0)
    made = reference_of(truth, scores)
    assert [c.name for c in made.profile.columns if is_prediction(c.name)] == [f"(prediction of {n})" for n in NAMES]
    assert [column.name for column in made.columns] == ["x"]
    assert np.shape(made.target_runs) == (len(made.runs), 3)
    again = Reference.from_dict(made.to_dict())
    assert (again.classes, again.target_runs) == (NAMES, made.target_runs)


def test_a_shift_of_the_classes_shares_names_the_class() -> None:
    truth, scores = drawn(1500, 1.0, 0)
    made = reference_of(truth, scores)
    (calm,) = label_shift_signals(made, pd.DataFrame({"truth": truth}))
    assert not calm.fired
    (moved,) = label_shift_signals(made, pd.DataFrame({"truth": np.where(truth == 0, 2.0, truth)}))
    assert moved.fired
    assert moved.detail.startswith(("a is 0.0%", "c is "))
    assert "of 3 classes are beyond theirs" in moved.detail


def test_a_complaint_is_tried_by_every_class() -> None:
    """Codes are no numbers: of the classes a, b, c the column tells b from both others, which their mean does not."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=1200)
    truth = np.where(x > 0.5, 1.0, np.where(generator.random(1200) < 0.5, 0.0, 2.0))
    sound = pd.DataFrame({"x": generator.permutation(x), "_truth": truth})[:700]
    moved = pd.DataFrame({"x": x, "_truth": truth})[700:].reset_index(drop=True)
    by_class = hold_trial(moved, sound, "x", undo=None, classes=3)
    by_code = hold_trial(moved, sound, "x", undo=None)
    assert by_class.later is not None
    assert by_code.later is not None
    assert by_class.later.sigmas > 2
    assert by_class.later.gain > 5 * abs(by_code.later.gain)
