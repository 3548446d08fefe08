"""What checks make of more than two classes: estimates, label shift, the profile, a complaint's trial."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from decision_world import START, WEEK, make_frame, make_inputs, make_reference
from scipy.special import softmax

from perennial.definition import Data, Features, GatePolicy, ModelDefinition, Monitoring, Source
from perennial.model.calibrated import apply_map
from perennial.model.scores import score_array, score_column
from tasks.calibration.fit import Recalibrator
from tasks.check.complaints.trial import hold_trial
from tasks.check.decision import CheckInputs, check
from tasks.check.estimate.estimates import estimate_class_loss
from tasks.check.plain import summary
from tasks.check.reference import Reference, build_reference, is_prediction
from tasks.check.signals.columns import label_shift_signals
from tasks.check.text import render_markdown, render_text
from tasks.measures.quality import row_losses
from tasks.steps.recalibrate import cross_fitted_map

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


AS_OF = START + 20 * WEEK
CALM = Monitoring(growth=10, recalibration_sigmas=3, recalibration_strength=1.0)
BEND = (1.0, 2.0, 0.0, 0.0)
DEFINITION = ModelDefinition(
    name="world", task="classification", classes=NAMES, gate=GatePolicy(resamples=200), monitoring=CALM,
    data=Data(source=Source(parquet="-"), id="id", time="time", target="truth", label_delay=WEEK),
    features=Features(numeric=("speed",), categorical=("carrier",)),
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> CheckInputs:
    """A champion that knows the true chances of three classes, 20 weeks on, with seven windows of its past."""
    frame = make_frame(21, per_day=48)
    pull = [np.zeros(len(frame)), 0.25 * (frame["speed"] - 8), 1.5 * (frame["carrier"] == "BB") - 0.5]
    chances = softmax(np.column_stack(pull), axis=1)
    drawn_at = np.random.default_rng(0).random(len(frame))
    truth = (chances.cumsum(axis=1) < drawn_at[:, None]).sum(axis=1).astype(np.float64)
    frame = frame.assign(chance=score_column(chances), truth=truth)
    reference = make_reference(frame[frame["time"] < pd.Timestamp(START + 8 * WEEK)], classes=NAMES)
    past = frame[(frame["time"] >= pd.Timestamp(AS_OF - 12 * WEEK)) & (frame["time"] < pd.Timestamp(AS_OF - 5 * WEEK))]
    logged = past.assign(score=past["chance"], version="1")[["id", "time", "score", "version"]]
    return make_inputs(reference, frame, AS_OF, past=logged.reset_index(drop=True))


def bent(log: pd.DataFrame, bend: tuple[float, ...] = BEND) -> pd.DataFrame:
    scores = apply_map(score_array(log["score"]), "shifted", bend, "classification")
    return log.assign(score=score_column(scores, log.index))


def told(inputs: CheckInputs) -> tuple[str, str, str]:
    """The verdict, what the map's signal says, and the plain sentences."""
    decision = check(inputs, CALM, as_of=AS_OF)
    found = {signal.name: signal for signal in decision.signals}
    assert found["loss"].value == pytest.approx(decision.evidence["loss"]["mean"])
    plain = " ".join(summary(decision))
    assert plain in " ".join(render_text(decision).split())
    assert render_markdown(decision)
    return decision.verdict, found["recalibration"].detail, plain


def test_a_right_champion_of_three_classes_is_left_alone(world: CheckInputs) -> None:
    verdict, _, plain = told(world)
    assert verdict == "hold"
    assert "Nothing needs doing." in plain


def test_a_bend_of_three_classes_gets_a_map_that_mends_it(world: CheckInputs) -> None:
    crooked = replace(world, mature=bent(world.mature), past=bent(world.past))
    verdict, detail, plain = told(crooked)
    assert verdict == "recalibrate"
    assert detail.startswith("a new temperature map saves")
    assert "A small correction of the probabilities" in plain
    found, rows, court = cross_fitted_map(crooked, DEFINITION, AS_OF)
    assert (found.method, court.note) == ("shifted", "")
    biases = np.array(found.parameters[1:])
    np.testing.assert_allclose(biases - biases[1], [-2.0, 0.0, 0.0], atol=0.4)
    before, after = (
        row_losses(rows["truth"].to_numpy(), score_array(rows[name]), "log_loss").mean()
        for name in ("score", "challenger")
    )
    assert after < before


def test_maps_of_three_classes_that_never_carried_are_taken_off(world: CheckInputs) -> None:
    """Each past window was bent another way, and the map in force bends what needs none."""
    ages = ((world.past["time"].max() - world.past["time"]) // WEEK).to_numpy()
    ways = [BEND, (1.0, 0.0, 2.0, 0.0), (1.0, 0.0, 0.0, 2.0)]
    past = pd.concat([bent(world.past[ages == age], ways[age % 3]) for age in range(7)], ignore_index=True)
    mapped = replace(world, past=past, recalibrator=Recalibrator("classification", "shifted", BEND))
    verdict, detail, plain = told(mapped)
    assert verdict == "recalibrate"
    assert detail.startswith("the score without a map (maps of 5 earlier windows would have changed the loss")
    assert "the one in force is taken off" in plain
    found, rows, court = cross_fitted_map(mapped, DEFINITION, AS_OF)
    assert court.strength == 0
    np.testing.assert_allclose(found.parameters, [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(score_array(rows["challenger"]), score_array(rows["raw_score"]), atol=1e-5)


def test_a_complaint_against_the_rows_of_a_window_holds_back_every_classs_answers(world: CheckInputs) -> None:
    """Answers follow the columns: of many classes none of their drifts persists while a complaint stands."""
    window = world.window.assign(speed=np.nan)
    moved = replace(world, window=window, predictions=bent(world.predictions, (1.0, 5.0, 0.0, 0.0)))
    drift = next(signal for signal in check(moved, CALM, as_of=AS_OF).signals if signal.name == "drift")
    assert drift.fired
    assert "a complaint stands against what moved" in drift.detail
    assert not drift.persistent
    whole = replace(moved, window=world.window)
    drift = next(signal for signal in check(whole, CALM, as_of=AS_OF).signals if signal.name == "drift")
    assert "(prediction of a)" in drift.detail
    assert "a complaint" not in drift.detail
