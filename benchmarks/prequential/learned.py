"""What a fault left behind after it was mended: a run that saw it beside the same run that never did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import GatePolicy
from prequential.replay import Replay
from prequential.runs import run_perennial
from prequential.scores import design_matrix, fit_scores, score_matrix
from prequential.sets import DriftingSet
from tasks.measures.quality import row_losses

FAULT_WINDOWS = 3
Damage = Callable[[pd.Series, np.random.Generator], pd.Series]


def scramble(values: pd.Series, rng: np.random.Generator) -> pd.Series:
    """The column's own values, at the wrong rows: a broken join."""
    return pd.Series(values.to_numpy()[rng.permutation(len(values))], index=values.index, dtype=values.dtype)


def change_unit(values: pd.Series, _: np.random.Generator) -> pd.Series:
    """Numbers a thousandfold; of a category, every name in another spelling."""
    return values * 1000 if values.dtype.kind == "f" else (values + "_v2").astype(values.dtype)


def lose(values: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Seven values in ten are missing."""
    return values.mask(rng.random(len(values)) < 0.7)


def die(values: pd.Series, _: np.random.Generator) -> pd.Series:
    """The feed repeats its last value."""
    known = values.dropna()
    return pd.Series([known.iloc[0] if len(known) else None] * len(values), index=values.index, dtype=values.dtype)


DAMAGES: dict[str, Damage] = {"scrambled": scramble, "unit": change_unit, "missing": lose, "dead feed": die}


def measure_learned(replay: Replay, gate: GatePolicy | None, cache: Path | None) -> dict[str, Any]:
    """Break the column that the first model leans on most, for three windows in the middle, and mend it again.

    The fault is one of four, by the set's name. While the fault lasts, both runs differ in what they are given; what
    counts is the loss afterwards.

    Returns:
        fault, column, windows: What was done; `named`: the checks in the faulty windows that asked for repair;
        `loss_after`, `clean_after`: mean loss in the windows after it; `harm`: their ratio less one; `harm_of_always`:
        the same of retraining at each window, which learns from all.
    """
    data = replay.data
    digest = int(hashlib.sha256(data.name.encode()).hexdigest(), 16)
    fault = list(DAMAGES)[digest % len(DAMAGES)]
    if data.words is not None:
        return {}
    column = most_used_column(data)
    first = (data.start + data.windows) // 2 - FAULT_WINDOWS
    broken = break_column(data, column, fault, first)
    world = Replay(broken, score_matrix(broken, cache), replay.label_delay)
    clean = run_perennial(replay, replay.policy(), gate)
    faulty = run_perennial(world, world.policy(), gate)
    after = first + FAULT_WINDOWS
    weights = np.diff(replay.first)[after:]
    skipped = after - data.start
    losses = [float(np.average(run.window_losses[skipped:], weights=weights)) for run in (faulty, clean)]
    always = [_always_after(each, after) for each in (world, replay)]
    verdicts = [decision.verdict for decision in faulty.decisions]
    within = verdicts[first - data.start : after - data.start]
    return {
        "fault": fault,
        "column": column,
        "windows": [first, after - 1],
        "named": within.count("repair"),
        "named_first": next((i for i, verdict in enumerate(within) if verdict == "repair"), None),
        "repairs_after": verdicts[after - data.start :].count("repair"),
        "loss_after": losses[0],
        "clean_after": losses[1],
        "harm": losses[0] / losses[1] - 1,
        "harm_of_always": always[0] / always[1] - 1,
    }


def break_column(data: DriftingSet, column: str, fault: str, first: int) -> DriftingSet:
    """The set with one column damaged in `FAULT_WINDOWS` windows, each by itself."""
    features, rng = data.features.copy(), np.random.default_rng(0)
    for window in range(first, first + FAULT_WINDOWS):
        rows = slice(data.first_row(window), data.first_row(window + 1))
        damaged = DAMAGES[fault](features[column].iloc[rows], rng)
        features.iloc[rows, features.columns.get_loc(column)] = damaged.to_numpy()
    return replace(data, name=f"{data.name}-{fault.replace(' ', '-')}", features=features)


def most_used_column(data: DriftingSet) -> str:
    """Whose values, shuffled over the newest window of the first training, cost the model before it most."""
    matrix, categories = design_matrix(data)
    end, stop = data.first_row(data.start - 1), data.first_row(data.start)
    names = [name for name in data.features if name not in data.text]
    if np.ptp(data.target[:end]) == 0:
        return names[0]  # a constant leans on nothing
    rng, mixed = np.random.default_rng(0), []
    for position in range(len(names)):
        mixed.append(matrix[end:stop].copy())
        mixed[-1][:, position] = rng.permutation(mixed[-1][:, position])
    scores = fit_scores(data, np.vstack([matrix[:end], *mixed]), categories, data.start - 1, slice(end, None))
    loss = "log_loss" if data.task == "classification" else "mse"
    truth = data.target[end:stop]
    costs = [row_losses(truth, part, loss).mean() for part in np.split(scores, len(names))]
    return names[int(np.argmax(costs))]


def _always_after(replay: Replay, after: int) -> float:
    """The loss of retraining at each window, from `after` on."""
    total, count = 0.0, 0
    for window in range(after, replay.data.windows):
        part = replay.rows(window, window)
        raw = replay.raw(replay.known(window - 1), window, window)
        losses = row_losses(replay.data.target[part], raw, replay.loss)
        total, count = total + float(losses.sum()), count + len(losses)
    return total / count
