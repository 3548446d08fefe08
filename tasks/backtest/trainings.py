"""The trainings of a backtest: each made once, however many policies ask for it; of a fit only its scores are kept.

A fit depends on its rows, their truth and the parameters, not on the policy that asked, so those are its key. Nothing
is judged or decided here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from perennial.definition import ModelDefinition
from tasks.backtest.fits import Made, Order, carry_out
from tasks.backtest.past import Floats, Moment, Past, Positions, micros
from tasks.check.complaints.masks import refusal_name
from tasks.check.reference import Reference
from tasks.compute.cluster import Cluster, Shared
from tasks.learning.fitting import FittedModel
from tasks.learning.search import given_parameters, tune
from tasks.rows.classes import of_codes, require_every_class
from tasks.rows.frames import LabelledRows
from tasks.rows.split import split_by_time
from tasks.steps.describe import measure_importance, reference
from tasks.steps.retrain import Judged, Measured, Prepared, without_refused_holdout

T = TypeVar("T")


@dataclass(frozen=True)
class Costed(Generic[T]):
    """A value and the CPU seconds of the thread that made it."""

    value: T
    cpu_seconds: float


@dataclass(frozen=True)
class ScoredFit:
    """What remains of a fit.

    Attributes:
        first: The position of the first row that it scored; `scores` go on from there.
        measured: As the gate wants it, without scores of a holdout.
    """

    first: int
    scores: Floats
    measured: Measured
    trained_from: datetime

    def on(self, rows: Positions) -> Floats:
        """Its scores of these rows."""
        return self.scores[rows - self.first]

    @property
    def trained_until(self) -> datetime:
        return self.measured.trained_until


@dataclass(frozen=True)
class Elsewhere:
    """A cluster and the past on it."""

    cluster: Cluster
    past: Shared


class Trainings:
    """Every fit that a backtest asks for.

    Args:
        past: The rows.
        parameters: The champion's, which fits use without a search, and from which a search starts.
        tuning_folder: Where searches are remembered; None fits with the given parameters.
        reach: How far back before its moment a new champion may be asked to score.
        elsewhere: The past on a cluster, and what runs trials there; None fits in the thread that asks.
    """

    def __init__(
        self,
        past: Past,
        parameters: Mapping[str, Any] | None,
        tuning_folder: Path | None,
        reach: timedelta,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._past = past
        self._start = dict(parameters or {})
        self._folder = tuning_folder
        self._reach = reach
        self._cluster = elsewhere
        self._elsewhere = threading.local()
        self._made = _Once(self.clock)
        self._pipelines: dict[int, dict[str, FittedModel]] = {}
        self._late = _late_rows(past)
        self._counting = threading.Lock()
        self.fits = 0

    def prepare(self, moment: Moment, definition: ModelDefinition, champion_until: datetime | None) -> Prepared:
        """What a training at the moment starts from, as `tasks.steps.retrain.prepare` reads it from the tables.

        Raises:
            DataError: There are too few labelled rows, or none since the champion's training.
        """
        frame = moment.labelled_frame
        classes = self._past.classes
        encoded = of_codes(definition, classes)
        split = split_by_time(frame, encoded, moment.as_of, champion_until)
        split = without_refused_holdout(split, frame, encoded, moment.refused)
        require_every_class(frame[definition.data.target].iloc[split.learning], classes, definition.name)
        data = LabelledRows(frame, {}, "")
        return Prepared(definition, encoded, moment.as_of, "", data, frame, split, None, classes, moment.refused)

    def challenger(self, moment: Moment, prepared: Prepared) -> Costed[ScoredFit]:
        """The model fitted on everything before the holdout; it has scored the holdout."""
        learning = prepared.split.learning
        last = int(moment.labelled[prepared.split.holdout[-1]]) + 1
        return self._fitted(moment, prepared, learning, last)

    def final(self, moment: Moment, prepared: Prepared) -> Costed[ScoredFit]:
        """The model fitted on everything; it has scored all rows that it may be asked for."""
        everything = np.concatenate([prepared.split.learning, prepared.split.holdout])
        return self._fitted(moment, prepared, everything, None)

    def measured(self, moment: Moment, prepared: Prepared, challenger: ScoredFit) -> Measured:
        """The challenger as the gate sees it."""
        return replace(challenger.measured, score=challenger.on(moment.labelled[prepared.split.holdout]))

    def reference(self, moment: Moment, prepared: Prepared, judged: Judged) -> Costed[Reference]:
        """What checks of a champion compare with: as `tasks.steps.describe` writes it down."""
        window = prepared.definition.monitoring.window.total_seconds()
        learning = prepared.split.learning
        key = ("reference", moment.now, window, self._digest(moment, prepared, learning))

        def make() -> Reference:
            challenger = self._pipeline(moment, prepared, learning)
            importance = measure_importance(prepared, challenger, judged)
            return reference(prepared, judged, importance)

        return self._made.get(key, make)

    def clock(self) -> float:
        """CPU seconds of this thread, with those of fits and trials that ran for it in other threads or elsewhere."""
        return time.thread_time() + float(getattr(self._elsewhere, "seconds", 0.0))

    def leave(self, moment: Moment) -> None:
        """Forget the pipelines of a moment that is over."""
        self._pipelines.pop(moment.now, None)

    def _fitted(self, moment: Moment, prepared: Prepared, rows: Positions, last: int | None) -> Costed[ScoredFit]:
        digest = self._digest(moment, prepared, rows)
        if last is not None and (known := self._made.known(("final", digest))):
            return known  # the same rows as a champion's: its scores reach over this holdout
        kind = "final" if last is None else "challenger"
        return self._made.get((kind, digest), lambda: self._score(moment, prepared, rows, last))

    def _score(self, moment: Moment, prepared: Prepared, rows: Positions, last: int | None) -> ScoredFit:
        past = self._past
        first = int(np.searchsorted(past.times, past.times[moment.labelled[rows]].max(), side="right"))
        if last is None:
            # A champion may meet rows that came late, or those of the window before its moment.
            reached = int(np.searchsorted(past.times, micros(moment.as_of - self._reach)))
            first = min(first, reached, self._late(moment.now))
        made = self._fit(moment, prepared, rows, first, last)
        measured = Measured(
            score=np.empty(0),
            baseline=made.fitted.baseline,
            trained_until=made.fitted.trained_until,
            scoring_seconds=made.scoring_seconds,
            latency_ms=made.latency_ms,
            size_mb=made.size_mb,
        )
        return ScoredFit(first, made.scores, measured, made.fitted.trained_from)

    def _pipeline(self, moment: Moment, prepared: Prepared, rows: Positions) -> FittedModel:
        """The fitted pipeline; kept as long as its moment lasts, since a promotion asks for it once more."""
        known = self._pipelines.get(moment.now, {}).get(self._digest(moment, prepared, rows))
        return known or self._fit(moment, prepared, rows, 0, 0).fitted

    def _fit(self, moment: Moment, prepared: Prepared, rows: Positions, first: int, last: int | None) -> Made:
        with self._counting:
            self.fits += 1
        positions = moment.labelled[rows]
        order = Order(
            definition=prepared.encoded,
            rows=positions,
            truth=moment.truth[positions],
            parameters=self._parameters(moment, prepared),
            first=first,
            last=last,
            timed=int(moment.labelled[-1]),
            refused=prepared.refused,
        )
        if self._cluster is None:
            made = carry_out(self._past, order)
        else:
            made = self._cluster.past.call(carry_out, order)
            self._spent(made.cpu_seconds)
        self._pipelines.setdefault(moment.now, {})[self._digest(moment, prepared, rows)] = made.fitted
        return made

    def _spent(self, seconds: float) -> None:
        self._elsewhere.seconds = getattr(self._elsewhere, "seconds", 0.0) + seconds

    def _parameters(self, moment: Moment, prepared: Prepared) -> Mapping[str, Any]:
        if self._folder is None:
            return given_parameters(prepared.encoded, self._start)
        folder, name = self._folder, _name(moment.labelled[prepared.split.learning], refusal_name(prepared.refused))

        def search() -> dict[str, Any]:
            workers = prepared.encoded.training.tuning.workers
            with self._cluster.cluster.trials(workers) if self._cluster else contextlib.nullcontext() as executor:
                found = tune(
                    prepared.encoded, prepared.learned, prepared.split.folds, storage=folder / "tuning.journal",
                    study_name=name, champion_parameters=self._start, seed=prepared.definition.training.seed,
                    executor=executor,
                )  # fmt: skip
            self._spent(sum(trial.seconds for trial in found.trials if not trial.resumed))
            return dict(found.parameters)

        found: Mapping[str, Any] = self._made.get(("parameters", moment.now, name), search).value
        return found

    def _digest(self, moment: Moment, prepared: Prepared, rows: Positions) -> str:
        positions = moment.labelled[rows]
        parameters = json.dumps(self._parameters(moment, prepared), sort_keys=True, default=repr)
        return _name(positions, parameters + refusal_name(prepared.refused), moment.truth[positions])


def _name(positions: Positions, parameters: str, *arrays: Floats) -> str:
    digest = hashlib.sha256(parameters.encode())
    for array in (positions.astype("<i8"), *arrays):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _late_rows(past: Past) -> Callable[[int], int]:
    """From a moment to the first position at or after which rows lie that are known only later; n if there are none."""
    order = np.argsort(past.ingested, kind="stable")
    moments = past.ingested[order]
    # The least position among those known from here on.
    least = np.append(np.minimum.accumulate(order[::-1])[::-1], len(order))

    def first(now: int) -> int:
        return int(least[np.searchsorted(moments, now, side="right")])

    return first


@dataclass
class _Once:
    """Values that are made once: who asks while one is being made waits for it."""

    _clock: Callable[[], float]
    _values: dict[Any, Costed[Any]] = field(default_factory=dict)
    _locks: dict[Any, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def known(self, key: Any) -> Costed[Any] | None:
        return self._values.get(key)

    def get(self, key: Any, make: Callable[[], Any]) -> Costed[Any]:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._values:
                started = self._clock()
                value = make()
                self._values[key] = Costed(value, self._clock() - started)
            return self._values[key]
