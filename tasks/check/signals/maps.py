"""Whether a new calibration map would help the champion, tested and judged as the gate would. No verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from perennial.definition import Monitoring
from perennial.model.scores import score_column
from tasks.calibration.carried import carried_gain
from tasks.calibration.fit import (
    TESTED_ROWS,
    RecalibrationTest,
    Recalibrator,
    carried_strength,
    check_recalibration,
    fit_recalibration,
    methods,
)
from tasks.check.history import History
from tasks.check.inputs import CheckInputs, labelled_scores, mature_rows
from tasks.check.signal import Signal
from tasks.gate.map_court import MapCourt, cross_fitted, judge_mapped

_CALLED = {"shifted": "temperature"}


def refit_map(joined: pd.DataFrame, court: MapCourt) -> Recalibrator:
    """The map that a verdict of `recalibrate` asks for, from the raw score, fitted on the rows it was tested on."""
    truth, raw, _ = labelled_scores(joined)
    return fit_recalibration(truth, raw, court.task, method=methods(court.task, raw)[0], strength=court.strength)


def map_court(inputs: CheckInputs, policy: Monitoring, past: pd.DataFrame | None) -> MapCourt:
    """By whose rules a new map for this champion is judged, in the check and in the run that it asks for.

    Where maps of earlier windows have harmed later ones, no part of the way to a new one is gone: what is judged then
    is the model's own score, beside the map in force.

    Args:
        past: Earlier predictions with their truth, of `join_with_past`. What a complaint refuses says nothing of maps,
            and versions that differ by their map are one model.
    """
    task, usual = inputs.reference.task, inputs.reference.target_runs
    metric = inputs.metric or ("log_loss" if task == "classification" else "mse")
    mean = np.mean(usual, axis=0) if usual else None
    baseline = float(mean) if mean is not None and not mean.ndim else mean
    strength = carried_strength(policy, inputs.label_delay)
    if past is not None:
        past = past[~past["refused"].to_numpy(dtype=bool)]
        past = past.assign(version=past["version"].astype(str).map(inputs.base_of))
    carried = carried_gain(
        past, task, inputs.reference.loss,
        window=policy.window, late=inputs.label_delay, strength=strength, minimum_rows=policy.minimum_rows,
    )  # fmt: skip
    return MapCourt(
        inputs.gate, task, metric, baseline, 0.0 if carried.harms else strength, policy.recalibration_sigmas,
        policy.minimum_rows, inputs.seed, carried.told() if carried.harms else "",
    )  # fmt: skip


def map_test(
    inputs: CheckInputs, policy: Monitoring, joined: pd.DataFrame, past: pd.DataFrame | None
) -> tuple[RecalibrationTest, str]:
    """The test of a new map, and why the gate would refuse it; empty if it would not, or the test is not passed."""
    truth, raw, score = labelled_scores(joined)
    task = inputs.reference.task
    if len(truth) < policy.minimum_rows:
        return RecalibrationTest(methods(task, raw)[0], 0.0, float("inf"), len(truth)), ""
    wanted = carried_strength(policy, inputs.label_delay)
    test = check_recalibration(truth, raw, score, task, strength=wanted)
    if test.sigmas <= policy.recalibration_sigmas:
        return test, ""
    court = map_court(inputs, policy, past)  # whether maps carry is only asked where one is wanted: it costs a few fits
    if court.strength < wanted:
        test = replace(check_recalibration(truth, raw, score, task, strength=court.strength), note=court.note)
    if test.sigmas <= policy.recalibration_sigmas:
        return test, ""
    rows = mature_rows(joined)
    rows = rows.iloc[:: max(1, -(-len(rows) // TESTED_ROWS))]
    mapped = rows.assign(challenger=score_column(cross_fitted(rows, court), rows.index))
    report = judge_mapped(mapped, court, every_metric=False)
    return test, "" if report.verdict == "promote" else report.reasons[0]


def map_signals(
    test: RecalibrationTest, refusal: str, policy: Monitoring, history: History, as_of: datetime
) -> tuple[Signal, ...]:
    source = "standard errors of the gain, cross-fitted; and the gate's own comparison"
    if not np.isfinite(test.standard_error):
        detail = f"recalibration: {test.rows} mature rows with labels are too few to test it"
        return (
            Signal("recalibration", "recalibration", None, policy.recalibration_sigmas, source, False, False, detail),
        )
    fired = test.sigmas > policy.recalibration_sigmas and not refusal
    rested = history.recalibrated is None or as_of - history.recalibrated >= policy.recalibration_cooldown
    does, called = "saves" if test.gain > 0 else "costs", _CALLED.get(test.method, test.method.capitalize())
    what = f"the score without a map ({test.note})" if test.note else f"a new {called} map"
    detail = (
        f"{what} {does} {abs(test.gain):.3g} loss per row on {test.rows} mature rows, "
        f"{test.sigmas:.1f} standard errors" + (f", but the gate would not let it in: {refusal}" if refusal else "")
    )
    limit = policy.recalibration_sigmas
    return (
        Signal("recalibration", "recalibration", round(test.sigmas, 6), limit, source, fired, fired and rested, detail),
    )
