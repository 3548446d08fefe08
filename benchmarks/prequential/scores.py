"""Every model's scores on every later window of a set: after that, any policy is simulated without another fit.

`score_matrix` fits one model per window on all rows before it, and scores all rows from it on. No policy is judged.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.scores import class_scores, is_many
from prequential.sets import DriftingSet, Floats

TEXT_WORDS = 500
FIRST_ITERATIONS = 100
TRAINED_ROWS = 400_000  # of a larger training set every second, third … row is taken: it must end some day


def design_matrix(data: DriftingSet) -> tuple[Any, list[int]]:
    """float64 of shape (rows, columns) with category codes, and the positions of the categorical columns."""
    columns, categories = [], []
    for position, name in enumerate([name for name in data.features if name not in data.text]):
        values = data.features[name]
        if values.dtype.kind == "f":
            columns.append(values.to_numpy(np.float64))
            continue
        codes = pd.factorize(values, sort=True)[0].astype(np.float64)
        if codes.max(initial=-1) < 255:
            categories.append(position)
        codes[codes < 0] = np.nan
        columns.append(codes)
    return np.column_stack(columns) if columns else np.empty((len(data.target), 0)), categories


def fit_scores(data: DriftingSet, matrix: Any, categories: list[int], before: int, rows: slice) -> Floats:
    """Fit on all rows before window `before`, score the rows given."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.feature_selection import chi2

    end = data.first_row(before)
    truth = data.target[:end]
    if np.ptp(truth) == 0 and not data.classes:  # nothing to learn yet
        always = (truth.sum() + 0.5) / (end + 1) if data.task == "classification" else truth[0]
        return np.full(len(data.target[rows]), always)
    if data.words is not None:
        classes = truth if data.task == "classification" else (truth > np.median(truth))
        strength = np.nan_to_num(chi2(data.words[:end], classes)[0])
        best = np.sort(np.argsort(-strength, kind="stable")[:TEXT_WORDS])
        beside = matrix if data.text else np.empty((len(data.target), 0))
        train = np.hstack([beside[:end], data.words[:end, best].toarray()])
        later = np.hstack([beside[rows], data.words[rows, best].toarray()])
    else:
        train, later = matrix[:end], matrix[rows]
    train = np.where(np.isnan(train).all(axis=0), 0.0, train)  # scikit-learn bins no column without a value
    spaced = slice(None, None, -(-end // TRAINED_ROWS))
    kind = HistGradientBoostingClassifier if data.task == "classification" else HistGradientBoostingRegressor
    model = kind(
        max_iter=FIRST_ITERATIONS, early_stopping=False, random_state=0, categorical_features=categories or None
    ).fit(train[spaced], truth[spaced])
    if data.task == "classification":
        return class_scores(model.predict_proba(later), model.classes_, len(data.classes) or 2)
    return np.asarray(model.predict(later), dtype=np.float64)


@dataclass(frozen=True)
class ScoreMatrix:
    """What every model says about every later row.

    Attributes:
        scores: Per number of training windows s, scores of shape (rows from window s on,), of many classes (…, k).
        fit_seconds: Per s, the CPU seconds of fitting and scoring.
    """

    scores: dict[int, Floats]
    fit_seconds: dict[int, float]


class MaskedScores(dict[int, Floats]):
    """Scores of a run that may not learn from all: models are fitted when they are asked for.

    Those that serve or have served stay as they are, whatever is refused later.
    """

    def __init__(self, data: DriftingSet, scores: dict[int, Floats], fit_seconds: dict[int, float]) -> None:
        super().__init__(scores)
        self.data, self.plain, self.fit_seconds = data, scores, fit_seconds
        self.kept: set[int] = {data.start}
        self.refused = ""

    def refuse(self, name: str, learned: pd.DataFrame, sound: NDArray[np.bool_]) -> None:
        """From now on learn from these features, of the sound rows; `name` tells one such choice from another."""
        if name == self.refused:
            return
        self.refused = name
        for model in [model for model in self.plain if model not in self.kept]:
            self.pop(model, None)
            if not name:
                self[model] = self.plain[model]
        self.learned, self.sound = learned, sound

    def __missing__(self, model: int) -> Floats:
        """Fit the model on what is sound; it scores the rows as they came."""
        end = self.data.first_row(model)
        rows = np.flatnonzero(self.sound[:end])
        both = replace(
            self.data,
            features=pd.concat([self.learned.iloc[rows], self.data.features.iloc[end:]], ignore_index=True),
            target=np.concatenate([self.data.target[rows], self.data.target[end:]]),
            window=np.concatenate([self.data.window[rows], self.data.window[end:]]),
            words=None if self.data.words is None else self.data.words[np.r_[rows, end : len(self.data.target)]],
        )
        began = time.process_time()
        matrix, categories = design_matrix(both)
        self[model] = fit_scores(both, matrix, categories, model, slice(len(rows), None))
        self.fit_seconds[model] = time.process_time() - began
        return self[model]


def score_matrix(data: DriftingSet, cache: Path | None) -> ScoreMatrix:
    """Fit once per window, from the one before `start` (for its holdout) to the last; kept in the cache folder."""
    digest = hashlib.sha256(pd.util.hash_pandas_object(data.features, index=False).to_numpy().tobytes())
    digest.update(data.target.tobytes() + data.window.tobytes() + f"{FIRST_ITERATIONS} {TEXT_WORDS}".encode())
    path = cache / f"{data.name}-{digest.hexdigest()[:12]}.npz" if cache else None
    if path and path.exists():
        with np.load(path) as kept:
            seconds = dict(zip(kept["windows"].tolist(), kept["fit_seconds"].tolist(), strict=True))
            return ScoreMatrix({s: _stored(kept[f"s{s}"]) for s in seconds}, seconds)
    matrix, categories = design_matrix(data)
    scores: dict[int, Floats] = {}
    seconds = {}
    for before in range(data.start - 1, data.windows):
        began = time.process_time()
        rows = slice(data.first_row(before), None)
        scores[before] = _stored(fit_scores(data, matrix, categories, before, rows).astype(np.float32))
        seconds[before] = time.process_time() - began
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"s{s}": values.astype(np.float32) for s, values in scores.items()}
        np.savez(path, windows=list(seconds), fit_seconds=list(seconds.values()), **arrays)  # type: ignore[arg-type]
    return ScoreMatrix(scores, seconds)


def _stored(kept: NDArray[np.float32]) -> Floats:
    """Scores as they come out of the cache; of many classes each row adds up to one again."""
    scores = kept.astype(np.float64)
    return scores / scores.sum(axis=1, keepdims=True) if is_many(scores) else scores
