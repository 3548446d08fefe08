"""The policies that Perennial is measured against, as choosers for a replay. None of Perennial's own rules is here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prequential.replay import Replay
from prequential.runs import Chooser
from prequential.sets import Floats

LEVEL = 0.05
EVIDENTLY_ROWS = 5_000


def never(_: Replay) -> Chooser:
    return lambda *_: False


def always(_: Replay) -> Chooser:
    return lambda *_: True


def every(count: int) -> Callable[[Replay], Chooser]:
    """Retrain before each count-th window."""

    def make(replay: Replay) -> Chooser:
        return lambda window, *_: (window + 1 - replay.data.start) % count == 0

    return make


def evenly(count: int) -> Callable[[Replay], Chooser]:
    """So many trainings in all, evenly spread: the calendar to beat at the same cost."""

    def make(replay: Replay) -> Chooser:
        moments = replay.data.windows - 1 - replay.data.start
        chosen = {replay.data.start + math.floor((turn + 0.5) * moments / count) for turn in range(count)}
        return lambda window, *_: window in chosen

    return make


def ks_bonferroni(replay: Replay) -> Chooser:
    """Kolmogorov–Smirnov per number, chi-squared per category, each at 5 % over their count; any of them retrains."""

    def choose(window: int, model: int, _: Floats) -> bool:
        current, reference = _frames(replay, window, model)
        level = LEVEL / current.shape[1]
        return any(_p_value(current[name], reference[name]) < level for name in current)

    return choose


def adwin(_: Replay) -> Chooser:
    """river's ADWIN with its defaults, on the champion's losses as their labels arrive; forgets when it retrains."""
    from river import drift

    state = {"model": -1, "detector": drift.ADWIN()}

    def choose(_: int, model: int, losses: Floats) -> bool:
        if state["model"] != model:
            state.update(model=model, detector=drift.ADWIN())
        found = False
        for loss in losses:
            state["detector"].update(float(min(loss, 5.0)))
            found = found or bool(state["detector"].drift_detected)
        return found

    return choose


def evidently_default(cache: Path | None) -> Callable[[Replay], Chooser]:
    """Evidently's dataset drift with every default (half of the columns), on at most 5,000 rows of each side."""

    def make(replay: Replay) -> Chooser:
        rows = len(replay.data.target)
        path = cache / f"{replay.data.name}-{rows}-evidently-{replay.label_delay}.json" if cache else None
        known: dict[str, bool] = json.loads(path.read_text()) if path and path.exists() else {}

        def choose(window: int, model: int, _: Floats) -> bool:
            key = f"{window} {model}"
            if key not in known:
                current, reference = _frames(replay, window, model)
                known[key] = evidently_drift(_spread(current), _spread(reference))
                if path:
                    path.write_text(json.dumps(known))
            return known[key]

        return choose

    return make


def evidently_drift(current: pd.DataFrame, reference: pd.DataFrame) -> bool:
    """Whether Evidently, with its defaults, calls the whole frame drifted."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount

    # An empty or constant column stops a whole report: leave it out on both sides.
    usable = [c for c in reference if reference[c].nunique() > 1 and current[c].notna().any()]
    numeric = [c for c in usable if reference[c].dtype.kind == "f"]
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[c for c in usable if c not in set(numeric)]
    )
    sides = [Dataset.from_pandas(side[usable].reset_index(drop=True), definition) for side in (current, reference)]
    result = Report([DriftedColumnsCount()]).run(*sides).dict()
    return bool(result["metrics"][0]["value"]["share"] >= 0.5)


def make_policies(cache: Path | None) -> dict[str, Callable[[Replay], Chooser]]:
    """Every baseline by the name that it has in the figures."""
    return {
        "never": never,
        "always": always,
        "every_4th": every(4),
        "every_8th": every(8),
        "ks_bonferroni": ks_bonferroni,
        "adwin": adwin,
        "evidently": evidently_default(cache),
    }


def _frames(replay: Replay, window: int, model: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    features = replay.data.features
    return features.iloc[replay.rows(window, window)], features.iloc[replay.rows(0, model - 1)]


def _spread(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:: max(1, -(-len(frame) // EVIDENTLY_ROWS))]


def _p_value(current: pd.Series[Any], reference: pd.Series[Any]) -> float:
    mine, theirs = current.dropna(), reference.dropna()
    if not len(mine) or not len(theirs):
        return 1.0
    if current.dtype.kind == "f":
        return float(stats.ks_2samp(mine, theirs, method="asymp").pvalue)
    names = sorted(set(mine) | set(theirs))
    table = np.array([side.value_counts().reindex(names, fill_value=0).to_numpy() for side in (mine, theirs)])
    return float(stats.chi2_contingency(table).pvalue) if len(names) > 1 else 1.0
