"""Faults and shifts put into real sets, and shuffled sets, to count what the checks say. No policy is compared here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.model.scores import score_array, score_column
from prequential.baselines import _p_value, adwin, evidently_drift
from prequential.replay import Replay
from prequential.sets import Floats
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.health import STUCK_SHARE
from tasks.measures.quality import row_losses

STRENGTHS = ("weak", "medium", "strong")
SHARES = {"weak": 0.1, "medium": 0.4, "strong": 1.0}
FAULT_WINDOWS = 4
SHIFT_WINDOWS = 8
Fault = Callable[[CheckInputs, str, str, np.random.Generator], CheckInputs]


def measure_false_alarms(replay: Replay) -> dict[str, int]:
    """Shuffle all rows over all windows, so that nothing drifts, and check every window with two champions.

    Returns:
        checks; `alarms`: the drift signal persisted, so that it may act; `fired`: it was beyond its limit once;
        `repairs`: data called broken.
    """
    order = np.random.default_rng(0).permutation(len(replay.data.target))
    shuffled = replace(replay.data, features=replay.data.features.iloc[order].reset_index(drop=True))
    still = Replay(shuffled, replay.matrix, replay.label_delay)
    still.frame["time"] = replay.frame["time"].to_numpy()
    counts = {"checks": 0, "alarms": 0, "fired": 0, "repairs": 0}
    for model in (replay.data.start, (replay.data.start + replay.data.windows) // 2):
        for decision in _untouched(still, model):
            drift = next((s for s in decision.signals if s.name == "drift"), None)
            counts["checks"] += 1
            counts["alarms"] += bool(drift and drift.persistent)
            counts["fired"] += bool(drift and drift.fired)
            counts["repairs"] += decision.verdict == "repair"
    return counts


def measure_faults(replay: Replay) -> dict[str, Any]:
    """Put each fault at three strengths into single windows, and count the checks that name it.

    Returns:
        named: Per fault and strength (named, injected); checks, repairs: of the same windows untouched.
    """
    model, rng = replay.data.start, np.random.default_rng(0)
    untouched = list(_untouched(replay, model))
    named: dict[str, dict[str, list[int]]] = {}
    windows = np.linspace(model + 1, replay.data.windows - 2, FAULT_WINDOWS).astype(int)
    for number, window in enumerate(windows):
        ledger = [decision.to_dict() for decision in untouched[: window - model]]
        inputs = _inputs(replay, window, model, ledger)
        for kind, fault, column in _faults(replay, number):
            for strength in STRENGTHS:
                broken = fault(inputs, column, strength, rng)
                if _same(broken, inputs):
                    continue
                decision = check(broken, replay.policy(), as_of=replay.end(window))
                tally = named.setdefault(kind, {s: [0, 0] for s in STRENGTHS})[strength]
                tally[0] += decision.verdict == "repair" or any(
                    signal.name == "predictions alike" and signal.persistent for signal in decision.signals
                )
                tally[1] += 1
    repairs = sum(decision.verdict == "repair" for decision in untouched)
    return {"named": named, "checks": len(untouched), "repairs": repairs}


def measure_shifts(replay: Replay) -> dict[str, Any]:
    """From one window on the world moves for good; count the windows until each detector says so.

    `covariate`: the most varied number moves by 1.5 standard deviations. `concept`: the labels of a third of the rows
    turn (classification) or move by a standard deviation, while the features stay. False ones are counted in the
    windows before the shift, of the same length.
    """
    middle = (replay.data.start + replay.data.windows) // 2
    end = min(replay.data.windows, middle + SHIFT_WINDOWS)
    model = max(replay.data.start, middle - SHIFT_WINDOWS)
    return {
        "covariate": _covariate(replay, model, middle, end),
        "concept": _concept(replay, model, middle, end),
    }


def _covariate(replay: Replay, model: int, middle: int, end: int) -> dict[str, Any]:
    features = replay.data.features
    varied = sorted(replay.data.numeric, key=lambda name: -features[name].nunique())[0]
    before = features.iloc[replay.rows(0, model - 1)]
    moved = features.copy()
    later = slice(int(replay.first[middle]), None)
    moved.iloc[later, moved.columns.get_loc(varied)] += 1.5 * before[varied].std()
    world = Replay(replace(replay.data, features=moved), replay.matrix, replay.label_delay)
    ours = {}
    for window, decision in enumerate(_untouched(world, model), model):
        ours[window] = any((s.name == "drift" and s.persistent) or s.kind == "health" for s in decision.signals)
    level = 0.05 / moved.shape[1]
    ks, evidently = {}, {}
    for window in range(model, end):
        current = moved.iloc[world.rows(window, window)]
        ks[window] = any(_p_value(current[name], before[name]) < level for name in moved)
        step = max(1, len(before) // 2000)
        evidently[window] = evidently_drift(current.iloc[:2000], before.iloc[::step])
    found = {"perennial": ours, "ks_bonferroni": ks, "evidently": evidently}
    return {name: _delay(fired, model, middle, end) for name, fired in found.items()}


def _concept(replay: Replay, model: int, middle: int, end: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    target = replay.data.target.copy()
    turned = (np.arange(len(target)) >= replay.first[middle]) & (rng.random(len(target)) < 1 / 3)
    if replay.data.classes:  # every class is the next one
        target[turned] = (target[turned] + 1) % len(replay.data.classes)
    else:
        target[turned] = 1 - target[turned] if replay.task == "classification" else target[turned] + target.std()
    world = Replay(replace(replay.data, target=target), replay.matrix, replay.label_delay)
    log = world.empty_log()
    ledger: list[dict[str, Any]] = []
    ours, theirs = {}, {}
    choose = adwin(world)
    for window in range(model, end):
        part = world.rows(window, window)
        raw = world.raw(model, window, window)
        world.write(log, part, raw, raw, model)
        decision = check(world.inputs(window, model, log, ledger), world.policy(), as_of=world.end(window))
        ledger.append(decision.to_dict())
        ours[window] = any(s.kind == "quality" and s.fired for s in decision.signals)
        mature = world.rows(window - world.label_delay, window - world.label_delay)
        known = log["version"].to_numpy()[mature] == str(model)
        losses = row_losses(target[mature][known], score_array(log["score"].iloc[mature][known]), world.loss)
        theirs[window] = choose(window, model, losses)
    found = {"perennial": ours, "adwin": theirs}
    return {name: _delay(fired, model, middle, end) for name, fired in found.items()}


def _delay(fired: dict[int, bool], model: int, middle: int, end: int) -> dict[str, Any]:
    """Windows from the shift's first one to the first check that finds it; 0 is the check at that window's end."""
    first = next((window for window in range(middle, end) if fired.get(window)), None)
    return {
        "delay": None if first is None else first - middle,
        "false_before": sum(bool(fired.get(window)) for window in range(model, middle)),
        "checks_before": middle - model,
    }


def _untouched(replay: Replay, model: int) -> Iterator[Decision]:
    ledger: list[dict[str, Any]] = []
    for window in range(model, replay.data.windows):
        decision = check(_inputs(replay, window, model, ledger), replay.policy(), as_of=replay.end(window))
        ledger.append(decision.to_dict())
        yield decision


def _inputs(replay: Replay, window: int, model: int, ledger: list[dict[str, Any]]) -> CheckInputs:
    """The window's features and the champion's scores of it; no labels."""
    part = replay.rows(window, window)
    log = replay.empty_log().iloc[part]
    log = log.assign(score=score_column(replay.raw(model, window, window)).to_numpy(), version=str(model))
    full = replay.inputs(window, model, replay.empty_log(), ledger)
    return replace(full, predictions=log.reset_index(drop=True), labels=full.labels[:0])


def _faults(replay: Replay, number: int) -> Iterator[tuple[str, Fault, str]]:
    """Every fault that the set can have, each with the column whose turn it is."""
    features, data = replay.data.features.iloc[replay.rows(0, replay.data.start - 1)], replay.data
    warm = [name for name in data.numeric if any(part in name.lower() for part in ("temp", "dew"))]
    lively = [name for name in features if features[name].value_counts(normalize=True).max() < STUCK_SHARE]
    columns = {
        "schema": (_lose_column, list(features)),
        "type": (_lose_type, list(data.numeric)),
        "thousandfold": (_thousandfold, list(data.numeric)),
        "fahrenheit": (_fahrenheit, warm),
        "missing": (_lose_values, list(features)),
        "constant": (_stick, lively),
        "duplicated": (_repeat, list(features)),
        "clock ahead": (_advance, list(features)),
        "time zone": (_shift_zone, list(features) if _has_days(replay) else []),
        "unseen category": (_rename, list(data.categorical)),
        "stale feed": (_stop, list(features)),
        "predictions alike": (_flatten, list(features)),
    }
    for kind, (fault, names) in columns.items():
        if names:
            yield kind, fault, names[number * 3 % len(names)]


def _same(one: CheckInputs, other: CheckInputs) -> bool:
    return (
        one.window.equals(other.window)
        and one.predictions.equals(other.predictions)
        and one.freshness == other.freshness
    )


def _chosen(inputs: CheckInputs, strength: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The newest share of the rows: a fault begins and stays."""
    rows = len(inputs.window)
    return np.arange(rows) >= round(rows * (1 - SHARES[strength]))


def _lose_column(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    names = [name for name in inputs.window if name != "time"]
    count = max(1, round(len(names) * {"weak": 0.0, "medium": 0.3, "strong": 0.6}[strength]))
    lost = [column, *(name for name in names if name != column)][:count]
    return replace(inputs, window=inputs.window.drop(columns=lost))


def _lose_type(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    values = inputs.window[column].astype(object)
    values[_chosen(inputs, strength)] = inputs.window[column][_chosen(inputs, strength)].astype(str) + " units"
    return replace(inputs, window=inputs.window.assign(**{column: values}))


def _changed(inputs: CheckInputs, column: str, strength: str, values: Floats) -> CheckInputs:
    kept = inputs.window[column].to_numpy(np.float64)
    return replace(inputs, window=inputs.window.assign(**{column: np.where(_chosen(inputs, strength), values, kept)}))


def _thousandfold(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    return _changed(inputs, column, strength, inputs.window[column].to_numpy(np.float64) * 1000)


def _fahrenheit(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    return _changed(inputs, column, strength, inputs.window[column].to_numpy(np.float64) * 1.8 + 32)


def _lose_values(inputs: CheckInputs, column: str, strength: str, rng: np.random.Generator) -> CheckInputs:
    lost = rng.random(len(inputs.window)) < {"weak": 0.05, "medium": 0.25, "strong": 0.7}[strength]
    return replace(inputs, window=inputs.window.assign(**{column: inputs.window[column].mask(lost)}))


def _stick(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    chosen = _chosen(inputs, strength)
    values = inputs.window[column].copy()
    known = values[chosen].dropna()
    if len(known):
        values[chosen] = known.iloc[0]
    return replace(inputs, window=inputs.window.assign(**{column: values}))


def _repeat(inputs: CheckInputs, _: str, strength: str, __: np.random.Generator) -> CheckInputs:
    again = inputs.window[_chosen(inputs, strength)]
    return replace(inputs, window=pd.concat([inputs.window, again], ignore_index=True))


def _advance(inputs: CheckInputs, _: str, strength: str, __: np.random.Generator) -> CheckInputs:
    """The sender's clock is ahead: rows of the newest part are dated after the check, and so leave the window."""
    ahead = {"weak": timedelta(hours=1), "medium": timedelta(hours=12), "strong": timedelta(days=400)}[strength]
    end = inputs.window["time"].max()
    times = inputs.window["time"].where(~_chosen(inputs, "medium"), inputs.window["time"] + ahead)
    future = times > end
    freshness = replace(inputs.freshness, latest_event=times.max().to_pydatetime(), future_rows=int(future.sum()))
    moved = inputs.window.assign(time=times)[~future].reset_index(drop=True)
    return replace(inputs, window=moved, freshness=freshness)


def _has_days(replay: Replay) -> bool:
    """The set has a real clock and quiet hours: else no one could tell a time zone."""
    hours = np.bincount(replay.frame["time"].dt.hour.to_numpy(), minlength=24)
    return bool(hours.min() < 0.2 * hours.max())


def _shift_zone(inputs: CheckInputs, _: str, strength: str, __: np.random.Generator) -> CheckInputs:
    hours = {"weak": 1, "medium": 3, "strong": 8}[strength]
    moved = inputs.window["time"] - timedelta(hours=hours)
    return replace(inputs, window=inputs.window.assign(time=moved))


def _rename(inputs: CheckInputs, column: str, strength: str, _: np.random.Generator) -> CheckInputs:
    values = inputs.window[column].mask(_chosen(inputs, strength), "value never seen")
    return replace(inputs, window=inputs.window.assign(**{column: values}))


def _stop(inputs: CheckInputs, _: str, strength: str, __: np.random.Generator) -> CheckInputs:
    left = inputs.window[~_chosen(inputs, strength)].reset_index(drop=True)
    start = inputs.window["time"].min() - timedelta(seconds=1)
    latest = left["time"].max() if len(left) else start
    return replace(inputs, window=left, freshness=replace(inputs.freshness, latest_event=latest.to_pydatetime()))


def _flatten(inputs: CheckInputs, _: str, strength: str, __: np.random.Generator) -> CheckInputs:
    score = inputs.predictions["score"].to_numpy()
    flat = score.copy()
    for row in np.flatnonzero(_chosen(inputs, strength)):
        flat[row] = score[0]
    return replace(inputs, predictions=inputs.predictions.assign(score=flat))
