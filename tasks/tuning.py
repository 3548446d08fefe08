"""The search for a challenger's hyperparameters within its budget. No choice of rows, no final fit.

The search is a pure function of its seed and of what the trials gave: an in-memory Optuna study asks for one batch
of `tuning.workers` parameter sets at a time, its sampler seeded anew per batch. The journal file is a memo of the
trials that ended, one atomic line each. Whoever is killed and started again walks the same way, takes from the memo
what is there, and evaluates the rest; nothing is half-recorded, so nothing needs repair.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from perennial.definition import GREATER_IS_BETTER, ModelDefinition
from perennial.errors import DataError
from perennial.plugins import content_digest, split_spec
from tasks.estimators import (
    build_pipeline,
    built_in_space,
    default_parameters,
    is_custom,
    parameter_suggestion,
)
from tasks.split import Fold
from tasks.training import data_digest
from tasks.trials import Evaluation, Executor, FoldEvaluator, Parameters, trial_threads, used_rows

Direction = Literal["minimize", "maximize"]
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
    stopped_by: Literal["trials", "seconds", "nothing to search"]


def tune(
    definition: ModelDefinition,
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    *,
    storage: Path,
    study_name: str,
    champion_parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[TrialRecord, TrialRecord | None], None] | None = None,
    executor: Executor | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TuningResult:
    """Search within `training.tuning`'s budget; with 0 trials, evaluate the champion's or default parameters once.

    With a budget of trials alone the outcome depends on seed and `workers` only, interrupted or not. The budget of
    seconds counts interrupted runs too; a batch that would probably overrun it isn't begun, the first one always is.

    Args:
        definition: The model, with metric, budget, estimator and fixed parameters.
        frame: Labelled rows; the folds are positions in it.
        folds: `split_by_time(...).folds`.
        storage: The journal file; made with its folder when missing. Several studies may share one.
        study_name: Its name there. A change of definition, rows, folds or seed starts a study of its own.
        champion_parameters: Tried first, before the defaults; what no longer fits the search space is moved into it.
        seed: Of the sampler and the fits.
        progress: Called in this thread after each trial with it and the best so far.
        executor: Runs one batch; by default threads of this process.
        clock: Seconds, monotonic.

    Raises:
        DataError: Every trial failed; the first reason is given. Or the target can't be used.
        DefinitionError: The estimator can't be built.
    """
    if not folds:
        raise DataError("tuning got no validation fold", "Give those of split_by_time")
    build_pipeline(definition, {}, seed)  # a wrong definition is an error here, not the failure of every trial
    evaluator = FoldEvaluator(definition, frame, folds, seed)
    identity = _identity(definition, frame, folds, seed)
    search = _Search(definition, seed, champion_parameters)
    with _quiet_optuna(), contextlib.ExitStack() as stack:
        memo = _Memo(storage, f"{study_name}:{identity}", search.direction)
        run = executor or stack.enter_context(trial_threads(definition.training.tuning.workers))
        return _run(search, evaluator, memo, run, progress, clock)


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
    def direction(self) -> Direction:
        return "maximize" if self.definition.tuning_metric in GREATER_IS_BETTER else "minimize"

    def start(self) -> None:
        import optuna

        self.study = optuna.create_study(direction=self.direction)
        for parameters in self._first_points():
            self.study.enqueue_trial(parameters, skip_if_exists=True)

    def ask(self, batch: int, count: int) -> list[tuple[Any, Parameters]]:
        import optuna

        suggest = parameter_suggestion(self.definition)
        assert suggest is not None
        mixed = hashlib.sha256(f"{self.seed}:{batch}".encode()).digest()
        self.study.sampler = optuna.samplers.TPESampler(
            seed=int.from_bytes(mixed[:4], "little"), n_startup_trials=_STARTUP_TRIALS
        )
        asked = []
        for _ in range(count):
            trial = self.study.ask()
            asked.append((trial, {**suggest(trial), **self.definition.training.parameters}))
        return asked

    def tell(self, trial: Any, evaluation: Evaluation) -> None:
        from optuna.trial import TrialState

        if evaluation.value is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, evaluation.value)

    def given(self) -> Parameters:
        return given_parameters(self.definition, self.champion_parameters)

    def _first_points(self) -> list[Parameters]:
        champion = dict(self.champion_parameters or {})
        if is_custom(self.definition):
            return [champion] if champion else []
        defaults = default_parameters(self.definition)
        fitting = _fitting(self.definition, champion)
        return [{**defaults, **fitting}, defaults] if fitting else [defaults]


class _Memo:
    """The trials that ended, in an Optuna journal: each is added whole, by one append of one line."""

    def __init__(self, path: Path, study_name: str, direction: Direction) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _journal_lock(path)
        lock.acquire()
        try:
            _drop_torn_line(path)
        finally:
            lock.release()
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._study = optuna.create_study(
            study_name=study_name, storage=storage, direction=direction, load_if_exists=True
        )
        self._known: dict[tuple[int, str], Evaluation] = {}
        self.elapsed = 0.0
        for trial in self._study.get_trials(deepcopy=False):
            notes = trial.user_attrs
            key = (notes["number"], notes["parameters"])
            self._known.setdefault(key, Evaluation(trial.value, notes["seconds"], notes["error"]))
            self.elapsed = max(self.elapsed, notes["elapsed"])

    def get(self, number: int, parameters: Parameters) -> Evaluation | None:
        return self._known.get((number, _canonical(parameters)))

    def put(self, number: int, trial: Any, parameters: Parameters, evaluation: Evaluation, elapsed: float) -> None:
        from optuna.trial import TrialState, create_trial

        complete = evaluation.value is not None
        notes = {
            "number": number,
            "parameters": _canonical(parameters),
            "seconds": evaluation.seconds,
            "error": evaluation.error,
            "elapsed": elapsed,
        }
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                value=evaluation.value,
                params=trial.params if trial else {},
                distributions=trial.distributions if trial else {},
                user_attrs=notes,
            )
        )


def _run(
    search: _Search,
    evaluator: FoldEvaluator,
    memo: _Memo,
    executor: Executor,
    progress: Callable[[TrialRecord, TrialRecord | None], None] | None,
    clock: Callable[[], float],
) -> TuningResult:
    tuning = search.definition.training.tuning
    started, before = clock(), memo.elapsed
    searching = tuning.trials > 0 and parameter_suggestion(search.definition) is not None
    if searching:
        search.start()
    records: list[TrialRecord] = []
    stopped_by: Literal["trials", "seconds", "nothing to search"] = "trials" if searching else "nothing to search"
    wanted = tuning.trials if searching else 1
    for batch, first in enumerate(range(0, wanted, tuning.workers)):
        count = min(tuning.workers, wanted - first)
        asked = search.ask(batch, count) if searching else [(None, search.given())]
        known = [memo.get(first + offset, parameters) for offset, (_, parameters) in enumerate(asked)]
        missing = [offset for offset, evaluation in enumerate(known) if evaluation is None]
        if missing and records and _overruns(tuning.seconds, before + clock() - started, batch):
            stopped_by = "seconds"
            break
        results = iter(executor(evaluator, [asked[offset][1] for offset in missing]) if missing else ())
        for offset, (trial, parameters) in enumerate(asked):
            resumed = known[offset]
            evaluation = resumed or next(results)
            if resumed is None:
                memo.put(first + offset, trial, parameters, evaluation, before + clock() - started)
            if searching:
                search.tell(trial, evaluation)
            records.append(_record(first + offset, parameters, evaluation, resumed is not None))
            if progress is not None:
                progress(records[-1], _best(records, search.direction))
    return _result(search, records, clock() - started, stopped_by)


def _overruns(budget: float | None, elapsed: float, batches: int) -> bool:
    """Whether one more batch, taking as long as the mean of those so far, would end after the budget."""
    return budget is not None and elapsed + elapsed / batches > budget


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
    stopped_by: Literal["trials", "seconds", "nothing to search"],
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


def _identity(definition: ModelDefinition, frame: pd.DataFrame, folds: Sequence[Fold], seed: int) -> str:
    """What the trials' values depend on, and not the budget: a larger one goes on with what is there."""
    parts = definition.model_dump(mode="json", include={"name", "task", "positive", "data", "features"})
    training = definition.training.model_dump(mode="json")
    training["tuning"] = {"metric": definition.tuning_metric, "workers": definition.training.tuning.workers}
    if is_custom(definition):
        training["file"] = content_digest(split_spec(definition.training.estimator, definition.folder)[0])
    columns = [*definition.features.columns, definition.data.target]
    rows = hashlib.sha256(data_digest(frame.iloc[used_rows(folds)][columns]).encode())
    for fold in folds:
        rows.update(np.asarray(fold.train, dtype="<i8").tobytes() + b"|")
        rows.update(np.asarray(fold.validation, dtype="<i8").tobytes() + b"|")
    return hashlib.sha256(_canonical([parts, training, rows.hexdigest(), seed]).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _journal_lock(path: Path) -> Any:
    """A lock that the system frees when its holder is killed; Optuna's own is then waited for half a minute."""
    from filelock import FileLock
    from optuna.storages.journal import JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        def __init__(self) -> None:
            self._lock = FileLock(f"{path}.lock")

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    return Lock()


def _drop_torn_line(path: Path) -> None:
    """Cut off an unfinished last line, to which the next append would otherwise be glued."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
