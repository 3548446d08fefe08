"""What one parameter set is worth: its fit and score on the validation folds, and the threads trials run in.

Trials run in threads with their share of OpenMP threads each: the boosting's loops release the interpreter's lock,
and a thread waits for no other, while OpenMP teams across cores spin when the host is busy.
No search and no record of trials belongs here.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import joblib
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from tasks.learning.estimators import build_pipeline
from tasks.learning.fitting import encode_target, fit_pipeline, predict_score, row_weights, target_classes
from tasks.measures.described.images import stored_features
from tasks.measures.metrics import metric_value
from tasks.rows.split import Fold, Index

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What one parameter set gave: its metric's mean over the folds, or why it has none."""

    value: float | None
    seconds: float
    error: str | None = None


Evaluate = Callable[[Parameters], Evaluation]


class Executor(Protocol):
    """Where trials are evaluated; `concurrent.futures.Executor` is one: the seam for a cluster."""

    def submit(self, evaluate: Evaluate, parameters: Parameters, /) -> Future[Evaluation]:
        """Start an evaluation as soon as there is room for it."""
        ...


class FoldEvaluator:
    """Evaluates parameter sets on the folds; what no trial changes is fitted once per fold, whichever trial is first.

    The steps before the estimator are known by their own parameters: those of a custom pipeline that a trial does
    change are fitted anew, and the two latest variants of each fold are kept. Picklable, for clusters.
    """

    _KEPT_VARIANTS = 2

    def __init__(self, definition: ModelDefinition, frame: pd.DataFrame, folds: Sequence[Fold], seed: int) -> None:
        self.definition = definition
        self.seed = seed
        used = used_rows(folds)
        frame = frame.iloc[used]
        # The folds as positions among the used rows: the rest need not be labelled, nor be kept.
        self.folds = tuple(
            Fold(np.searchsorted(used, fold.train), np.searchsorted(used, fold.validation)) for fold in folds
        )
        column = frame[definition.data.target]
        self.classes = target_classes(column, definition)
        self.target = encode_target(column, definition, self.classes)
        self.features = stored_features(frame, definition.features)
        self.weights = row_weights(frame, definition)
        self._prepared: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._locks = [threading.Lock() for _ in self.folds]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_locks": None, "_prepared": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _locks=[threading.Lock() for _ in state["folds"]])

    def __call__(self, parameters: Parameters) -> Evaluation:
        started = time.perf_counter()
        try:
            values = [self._fold_value(number, parameters) for number in range(len(self.folds))]
            value = float(np.mean(values))
            if not math.isfinite(value):
                raise DataError(
                    f"{self.definition.tuning_metric} is {value} on a validation block",
                    "Use fewer or larger blocks, so that each holds all classes and differing values",
                )
        except Exception as error:  # noqa: BLE001 (one bad parameter set must not end the search; its reason is kept)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
            return Evaluation(None, time.perf_counter() - started, reason)
        return Evaluation(value, time.perf_counter() - started)

    def _fold_value(self, number: int, parameters: Parameters) -> float:
        fold, definition = self.folds[number], self.definition
        pipeline = build_pipeline(definition, parameters, self.seed)
        train, validation = self._prepare(number, pipeline)
        estimator = pipeline.steps[-1][1]
        weights = None if self.weights is None else self.weights[fold.train]
        fit_pipeline(estimator, train, self.target[fold.train], definition, weights)
        score = predict_score(estimator, validation, definition.task, classes=len(self.classes) or None)
        return metric_value(definition.tuning_metric, definition.task, self.target[fold.validation], score)

    def _prepare(self, number: int, pipeline: Pipeline) -> tuple[Any, Any]:
        fold = self.folds[number]
        if len(pipeline.steps) == 1:
            return self.features.iloc[fold.train], self.features.iloc[fold.validation]
        before = pipeline[:-1]
        key = (number, str(joblib.hash(before)))
        with self._locks[number]:
            if key not in self._prepared:
                target = self.target[fold.train]
                train = before.fit_transform(self.features.iloc[fold.train], target)
                variants = [known for known in self._prepared if known[0] == number]
                for old in variants[: len(variants) - self._KEPT_VARIANTS + 1]:
                    del self._prepared[old]
                self._prepared[key] = (train, _transformed(before, self.features.iloc[fold.validation]))
            return self._prepared[key]


def _transformed(fitted: Pipeline, features: Any) -> Any:
    # Step by step: a pipeline asks its last step for signs of a fit, which a stateless step of a team's has none of.
    for _, step in fitted.steps:
        if step is not None and step != "passthrough":
            features = step.transform(features)
    return features


def used_rows(folds: Sequence[Fold]) -> Index:
    """The positions that any fold uses, ascending."""
    return np.unique(np.concatenate([part for fold in folds for part in (fold.train, fold.validation)]))


@contextlib.contextmanager
def trial_threads(workers: int) -> Iterator[Executor]:
    """An executor of so many trials at once in this process, for as long as the context lasts."""
    share = max(1, joblib.cpu_count() // workers)

    def limit() -> None:
        # OpenMP's number of threads belongs to the thread that sets it, and dies with it.
        threadpool_limits(share, user_api="openmp")

    # The BLAS's number is the whole process's: set once outside, so that no thread restores another's.
    with threadpool_limits(share, user_api="blas"), ThreadPoolExecutor(workers, "trial", initializer=limit) as pool:
        yield pool
