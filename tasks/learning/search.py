"""The search for a challenger's hyperparameters within its budget. No choice of rows, no final fit.

The search is a pure function of its seed and of what the trials gave: an in-memory Optuna study is asked for one
parameter set after the other, its sampler seeded anew for each, and knows of a fixed number of trials by then: those
before the latest 2 × `tuning.workers`. So a slow trial holds up no other, and still no timing has a say. The journal
file is a memo of the trials that ended, one atomic line each. Whoever is killed and started again walks the same way,
takes from the memo what is there, and evaluates the rest; nothing is half-recorded, so nothing needs repair.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from perennial.definition import GREATER_IS_BETTER, ModelDefinition
from perennial.errors import DataError
from perennial.model.plugins import content_digest
from tasks.learning.estimators import (
    build_pipeline,
    built_in_space,
    default_parameters,
    is_custom,
    parameter_suggestion,
    points_from_elsewhere,
)
from tasks.learning.fitting import data_digest
from tasks.learning.foreign import estimator_file
from tasks.learning.trial_memo import TrialMemo, canonical
from tasks.learning.trials import Evaluation, Executor, FoldEvaluator, Parameters, trial_threads, used_rows
from tasks.rows.split import Fold

Direction = Literal["minimize", "maximize"]
StoppedBy = Literal["trials", "seconds", "nothing to search"]
# The sampler draws at random until so many trials ended; then it models them.
_STARTUP_TRIALS = 8


@dataclass(frozen=True)
class TrialRecord:
    """One trial; `resumed` ones were evaluated by an earlier, interrupted run."""

    number: int
    parameters: Parameters
    value: float | None
    seconds: float
    state: Literal["complete", "failed"]
    error: str | None = None
    resumed: bool = False


@dataclass(frozen=True)
class TuningResult:
    """The search's outcome.

    Args:
        parameters: The best trial's, fixed ones of the definition included: what `build_pipeline` takes.
        value: Its metric, the mean over the folds.
        metric: The metric's name; `greater_is_better` says which way.
        trials: All of them, in the order of their numbers.
        seconds: Wall time of this run.
        resumed_trials: How many trials an earlier run had evaluated.
        stopped_by: What ended the search.
    """

    parameters: Parameters
    value: float
    metric: str
    greater_is_better: bool
    trials: tuple[TrialRecord, ...]
    seconds: float
    resumed_trials: int
    stopped_by: StoppedBy


def tune(
    definition: ModelDefinition,
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    *,
    storage: Path,
    study_name: str,
    champion_parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    rows_digest: str | None = None,
    progress: Callable[[TrialRecord, TrialRecord | None], None] | None = None,
    executor: Executor | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TuningResult:
    """Search within `training.tuning`'s budget; with 0 trials, evaluate the champion's or default parameters once.

    With a budget of trials alone the outcome depends on seed and `workers` only, interrupted or not. The budget of
    seconds counts interrupted runs too; a trial that would probably overrun it isn't begun, the first ones always are.

    Args:
        definition: The model, with metric, budget, estimator and fixed parameters.
        frame: Labelled rows; the folds are positions in it.
        folds: `split_by_time(...).folds`.
        storage: The journal file; made with its folder when missing. Several studies may share one.
        study_name: Its name there. A change of definition, rows, folds or seed starts a study of its own.
        champion_parameters: Tried first, before the defaults; what no longer fits the search space is moved into it.
        seed: Of the sampler and the fits.
        rows_digest: Of the frame's rows, where it is known; else it is taken of those that the folds use.
        progress: Called in this thread after each trial with it and the best so far.
        executor: Evaluates trials; by default threads of this process.
        clock: Seconds, monotonic.

    Raises:
        DataError: Every trial failed; the first reason is given. Or the target can't be used.
        DefinitionError: The estimator can't be built.
    """
    if not folds:
        raise DataError("tuning got no validation fold", "Give those of split_by_time")
    build_pipeline(definition, {}, seed)  # a wrong definition is an error here, not the failure of every trial
    evaluator = FoldEvaluator(definition, frame, folds, seed)
    identity = _identity(definition, frame, folds, seed, rows_digest)
    search = _Search(definition, seed, champion_parameters)
    with _quiet_optuna(), contextlib.ExitStack() as stack:
        memo = TrialMemo(storage, f"{study_name}:{identity}", search.direction)
        run = executor or stack.enter_context(trial_threads(definition.training.tuning.workers))
        return _Walk(search, evaluator, memo, run, progress, clock).run()


def given_parameters(definition: ModelDefinition, champion_parameters: Mapping[str, Any] | None) -> Parameters:
    """The parameters without a search: the definition's over the champion's over the defaults."""
    known = dict(champion_parameters or {})
    if not is_custom(definition):
        known = _fitting(definition, known)
    return {**default_parameters(definition), **known, **definition.training.parameters}


@dataclass
class _Search:
    """What to try next: the in-memory study. Asking again after the same answers gives the same questions."""

    definition: ModelDefinition
    seed: int
    champion_parameters: Mapping[str, Any] | None
    study: Any = field(init=False, default=None)

    @property
    def searching(self) -> bool:
        """Whether there is something to search, and a budget to do so."""
        return self.definition.training.tuning.trials > 0 and parameter_suggestion(self.definition) is not None

    @property
    def direction(self) -> Direction:
        return "maximize" if self.definition.tuning_metric in GREATER_IS_BETTER else "minimize"

    def start(self) -> None:
        import optuna

        self.study = optuna.create_study(direction=self.direction)
        for parameters in self._first_points():
            self.study.enqueue_trial(parameters, skip_if_exists=True)

    @property
    def ahead(self) -> int:
        """How many trials may be in the air when the sampler models what it knows."""
        return 2 * self.definition.training.tuning.workers

    def knows(self, number: int) -> int:
        """How many outcomes the study has been told of when this trial is asked for."""
        return 0 if number < _STARTUP_TRIALS else max(0, number - self.ahead + 1)

    def ask(self, number: int) -> tuple[Any, Parameters]:
        if not self.searching:
            return None, given_parameters(self.definition, self.champion_parameters)
        import optuna

        suggest = parameter_suggestion(self.definition)
        assert suggest is not None
        mixed = hashlib.sha256(f"{self.seed}:{number}".encode()).digest()
        self.study.sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(mixed[:4], "little"), n_startup_trials=max(2, self.knows(_STARTUP_TRIALS))
        )
        trial = self.study.ask()
        return trial, {**suggest(trial), **self.definition.training.parameters}

    def tell(self, trial: Any, evaluation: Evaluation) -> None:
        from optuna.trial import TrialState

        if trial is None:
            return
        if evaluation.value is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, evaluation.value)

    def _first_points(self) -> list[Parameters]:
        """The champion's, the defaults, then known good points while they leave half of the trials to the search."""
        champion = dict(self.champion_parameters or {})
        if is_custom(self.definition):
            return [champion] if champion else []
        defaults = default_parameters(self.definition)
        fitting = _fitting(self.definition, champion)
        own = [{**defaults, **fitting}, defaults] if fitting else [defaults]
        free = self.definition.training.tuning.trials // 2 - len(own)
        return own + points_from_elsewhere(self.definition)[: max(0, free)]


@dataclass(frozen=True)
class _Flying:
    """A trial that was begun; one that the memo knows has its future's result already."""

    number: int
    trial: Any
    parameters: Parameters
    future: Future[Evaluation]
    resumed: bool


@dataclass
class _Walk:
    """The search under way: trials in the air, those that landed in their order, and how many the study knows of."""

    search: _Search
    evaluator: FoldEvaluator
    memo: TrialMemo
    executor: Executor
    progress: Callable[[TrialRecord, TrialRecord | None], None] | None
    clock: Callable[[], float]
    flying: deque[_Flying] = field(default_factory=deque)
    landed: list[tuple[Any, Evaluation]] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)
    told: int = 0

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.before = self.memo.elapsed

    def run(self) -> TuningResult:
        tuning, searching = self.search.definition.training.tuning, self.search.searching
        stopped_by: StoppedBy = "trials" if searching else "nothing to search"
        if searching:
            self.search.start()
        for number in range(tuning.trials if searching else 1):
            self._tell(self.search.knows(number))
            trial, parameters = self.search.ask(number)
            known = self.memo.get(number, parameters)
            if known is None and number >= tuning.workers and self._overruns(tuning.seconds, tuning.workers):
                stopped_by = "seconds"
                break
            future = _known(known) if known else self.executor.submit(self.evaluator, parameters)
            self.flying.append(_Flying(number, trial, parameters, future, resumed=known is not None))
        while self.flying:
            self._land()
        return _result(self.search, self.records, self.clock() - self.started, stopped_by)

    @property
    def elapsed(self) -> float:
        """Seconds so far, those of interrupted runs included."""
        return self.before + self.clock() - self.started

    def _overruns(self, budget: float | None, workers: int) -> bool:
        """Whether one more trial, at the pace of those that ended, would end after the budget."""
        if budget is None:
            return False
        if not self.landed:
            wait([flying.future for flying in self.flying], return_when=FIRST_COMPLETED)
        while self.flying and self.flying[0].future.done():
            self._land()
        ended = len(self.landed) + sum(flying.future.done() for flying in self.flying)
        under_way = len(self.landed) + len(self.flying) - ended
        return self.elapsed + self.elapsed / ended * max(workers, under_way + 1) > budget

    def _tell(self, count: int) -> None:
        while self.told < count:
            if self.told == len(self.landed):
                self._land()
            self.search.tell(*self.landed[self.told])
            self.told += 1

    def _land(self) -> None:
        """Wait for the oldest trial in the air, and write it down."""
        oldest = self.flying.popleft()
        evaluation = oldest.future.result()
        if not oldest.resumed:
            self.memo.put(oldest.number, oldest.trial, oldest.parameters, evaluation, self.elapsed)
        self.landed.append((oldest.trial, evaluation))
        self.records.append(_record(oldest.number, oldest.parameters, evaluation, oldest.resumed))
        if self.progress is not None:
            self.progress(self.records[-1], _best(self.records, self.search.direction))


def _known(evaluation: Evaluation) -> Future[Evaluation]:
    future: Future[Evaluation] = Future()
    future.set_result(evaluation)
    return future


def _record(number: int, parameters: Parameters, evaluation: Evaluation, resumed: bool) -> TrialRecord:
    state: Literal["complete", "failed"] = "failed" if evaluation.value is None else "complete"
    return TrialRecord(number, parameters, evaluation.value, evaluation.seconds, state, evaluation.error, resumed)


def _best(records: Sequence[TrialRecord], direction: Direction) -> TrialRecord | None:
    sign = -1.0 if direction == "maximize" else 1.0
    complete = [record for record in records if record.value is not None]
    return min(complete, key=lambda record: (sign * (record.value or 0.0), record.number), default=None)


def _result(
    search: _Search,
    records: list[TrialRecord],
    seconds: float,
    stopped_by: StoppedBy,
) -> TuningResult:
    best = _best(records, search.direction)
    if best is None or best.value is None:
        raise DataError(
            f"all {len(records)} tuning trials of {search.definition.name} failed, the first by {records[0].error}",
            "Correct the data, training.parameters or the estimator",
        )
    return TuningResult(
        parameters=best.parameters,
        value=best.value,
        metric=search.definition.tuning_metric,
        greater_is_better=search.direction == "maximize",
        trials=tuple(records),
        seconds=seconds,
        resumed_trials=sum(record.resumed for record in records),
        stopped_by=stopped_by,
    )


def _fitting(definition: ModelDefinition, parameters: Mapping[str, Any]) -> Parameters:
    """The given parameters that the search space has, each moved to its nearest allowed value."""
    space = built_in_space(definition)
    near = {name: space[name].nearest(value) for name, value in parameters.items() if name in space}
    return {name: value for name, value in near.items() if value is not None}


def _identity(
    definition: ModelDefinition, frame: pd.DataFrame, folds: Sequence[Fold], seed: int, rows_digest: str | None
) -> str:
    """What the trials' values depend on, and not the budget: a larger one goes on with what is there."""
    parts = definition.model_dump(mode="json", include={"name", "task", "positive", "data", "features"})
    if len(definition.classes) > 2:
        parts["classes"] = definition.classes
    training = definition.training.model_dump(mode="json")
    training["tuning"] = {"metric": definition.tuning_metric, "workers": definition.training.tuning.workers}
    if (own := estimator_file(definition)) is not None:
        training["file"] = content_digest(own)
    columns = [*definition.features.columns, definition.data.target]
    rows = hashlib.sha256((rows_digest or data_digest(frame.iloc[used_rows(folds)][columns])).encode())
    for fold in folds:
        rows.update(np.asarray(fold.train, dtype="<i8").tobytes() + b"|")
        rows.update(np.asarray(fold.validation, dtype="<i8").tobytes() + b"|")
    return hashlib.sha256(canonical([parts, training, rows.hexdigest(), seed]).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
