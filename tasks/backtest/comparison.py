"""History replayed under any number of policies side by side: what each would have done, kept and cost.

Each check is `tasks.check.decision.check` on what was known then, each training goes through the gate that judges live.
Only the way in and out differs: tables are read once, and a fit that several policies ask for is made once. The
policies walk in step, moment by moment, so that no more than one moment's rows are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import Monitoring, duration_text
from perennial.errors import DataError
from perennial.model.scores import known_scores
from tasks.backtest.advice import Advice, advise, share_interval
from tasks.backtest.past import Floats, Moment, Past, Positions, micros
from tasks.backtest.policies import Candidate
from tasks.backtest.results import PolicyResult
from tasks.backtest.trainings import Costed, Elsewhere, ScoredFit, Trainings
from tasks.backtest.walker import Action, Walker
from tasks.check.decision import Decision
from tasks.measures.quality import additive_loss, row_losses

BASELINES: Mapping[str, int] = {"never": 0, "always": 1, "every 4th": 4, "every 8th": 8}


LEAST_WINDOWS = 2


_FIRST_SHARE = 0.25


_EMPTY_SHARE = 0.1  # so much of the last window may lie after the newest labelled row


Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Backtest:
    """All policies on one history.

    Attributes:
        loss: The loss per row that quality is measured by.
        moments: When checks were made; the first model was trained at the first, quality is measured between
            the first and the last.
        window_rows: Rows whose loss was measured, by window.
        fits: Fits made for all policies together.
        decisions: Of each policy, oldest first.
    """

    model: str
    loss: str
    every: timedelta
    moments: tuple[datetime, ...]
    window_rows: tuple[int, ...]
    fits: int
    results: tuple[PolicyResult, ...]
    advice: Advice
    notes: tuple[str, ...]
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict, repr=False)

    @property
    def windows(self) -> int:
        return len(self.moments) - 1

    @property
    def rows(self) -> int:
        return sum(self.window_rows)

    def result(self, name: str) -> PolicyResult:
        return next(item for item in self.results if item.name == name)


def run_backtest(
    past: Past,
    candidates: Sequence[Candidate],
    *,
    every: timedelta,
    start: datetime | None = None,
    until: datetime | None = None,
    in_step_with: datetime | None = None,
    parameters: Mapping[str, Any] | None = None,
    tuning_folder: Path | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> Backtest:
    """Replay the history under every policy and the baselines.

    Args:
        past: The model's tables.
        candidates: The policies; names are distinct, and none is a baseline's.
        every: The time between two checks.
        start: When the first model is trained; by default when a quarter of the labelled time is over.
        until: The end of the last window, at most; by default that of the labelled rows.
        in_step_with: A real check's moment: without `start`, whole steps lie between it and the replayed checks. Where
            rows and labels come once a step, checks of another hour would find stale rows and few labels.
        parameters: What fits use (the live champion's); the defaults else.
        tuning_folder: Tune at each fit, and remember the trials there.
        jobs: Threads; each fit uses one.
        progress: Called with moments done, moments in all, and what is being done.
        elsewhere: The past on a cluster, where fits are made then; this process asks for as many as it has threads.

    Raises:
        DataError: The history is too short for a first training and two windows.
    """
    definition = past.definition
    reach = max([every, definition.data.label_delay, *(each.policy.window for each in candidates)])
    trainings = Trainings(past, parameters, tuning_folder, reach, elsewhere)
    told = progress or _tell_nobody
    moments = _moments(past, trainings, every, start, until, in_step_with)
    walkers = [Walker(each, past, trainings) for each in candidates]
    fits: list[Costed[ScoredFit]] = []

    def always(moment: Moment) -> Costed[ScoredFit]:
        return trainings.final(moment, trainings.prepare(moment, definition, None))

    threads = max(jobs, min(elsewhere.cluster.threads, len(walkers) + 1)) if elsewhere else jobs
    with _threads(threads) as pool, _ahead(elsewhere, lambda at: always(past.at(at)), moments[:-1]) as begun:
        for number, as_of in enumerate(moments):
            told(number, len(moments), f"{as_of:%Y-%m-%d}")
            moment = past.at(as_of)
            retrained = begun[as_of].result if as_of in begun else partial(always, moment)
            if as_of == moments[-1]:
                list(pool.map(_run, [partial(walker.score, moment) for walker in walkers]))
            elif number == 0:
                fits.append(retrained())
                list(pool.map(_run, [partial(walker.begin, moment) for walker in walkers]))
            else:
                steps = [retrained, *(partial(walker.step, moment) for walker in walkers)]
                found, *_ = pool.map(_run, steps)
                fits.append(found)
            trainings.leave(moment)
        told(len(moments), len(moments), "measuring")
    costs = [found.cpu_seconds for found in fits]
    return _measure(past, moments, every, walkers, [found.value for found in fits], costs, trainings.fits)


def _run(step: Callable[[], Any]) -> Any:
    return step()


@contextmanager
def _ahead(
    elsewhere: Elsewhere | None, work: Callable[[datetime], Costed[ScoredFit]], moments: Sequence[datetime]
) -> Iterator[dict[datetime, Future[Costed[ScoredFit]]]]:
    """What always retraining needs depends on no decision: a cluster, which has the room, makes it beforehand."""
    if elsewhere is None:
        yield {}
        return
    with _threads(elsewhere.cluster.threads) as pool:
        yield {as_of: pool.submit(work, as_of) for as_of in moments}


def _tell_nobody(done: int, total: int, note: str) -> None:
    """The progress of a backtest that nobody watches."""
    del done, total, note


@contextmanager
def _threads(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads with one OpenMP thread each: then a thread's clock counts all of a fit."""
    from threadpoolctl import threadpool_limits

    def limit() -> None:
        threadpool_limits(1, user_api="openmp")

    with threadpool_limits(1), ThreadPoolExecutor(jobs, "backtest", initializer=limit) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _moments(
    past: Past, trainings: Trainings, every: timedelta, start: datetime | None, until: datetime | None,
    in_step_with: datetime | None,
) -> tuple[datetime, ...]:  # fmt: skip
    """The first training's moment, then one every window, up to the last whole window of labelled rows."""
    labelled = np.flatnonzero(np.isfinite(past.truth))
    oldest, newest = (pd.Timestamp(past.times[labelled[end]], unit="us", tz="UTC") for end in (0, -1))
    end = newest.to_pydatetime() + every * _EMPTY_SHARE
    end = min(until, end) if until is not None else end
    if start is not None:
        trainings.prepare(past.at(start), past.definition, None)  # what is missing is an error here
        first = start
    else:
        first = _first_moment(past, trainings, oldest.to_pydatetime(), end, every, in_step_with)
    windows = int((end - first) / every) if end > first else 0
    if windows < LEAST_WINDOWS:
        raise DataError(
            f"{past.definition.name} has labelled rows from {oldest:%Y-%m-%d %H:%M} to {newest:%Y-%m-%d %H:%M}; after "
            f"the first training at {first:%Y-%m-%d %H:%M} that is {windows} windows of {duration_text(every)}, and "
            f"{LEAST_WINDOWS} are the least",
            "Ingest more of the past, or give a shorter --every or an earlier --from",
        )
    return tuple(first + number * every for number in range(windows + 1))


def _first_moment(
    past: Past, trainings: Trainings, oldest: datetime, end: datetime, every: timedelta, in_step_with: datetime | None
) -> datetime:
    first = oldest + (end - oldest) * _FIRST_SHARE
    if in_step_with is not None:
        first += (in_step_with - first) % every
    elif every >= timedelta(days=1):
        first = first.replace(hour=0, minute=0, second=0, microsecond=0)
    problem: DataError | None = None
    while first < end:
        try:
            trainings.prepare(past.at(first), past.definition, None)
        except DataError as error:
            problem = problem or error
            first += every
            continue
        return first
    assert problem is not None
    raise DataError(
        f"{past.definition.name}: at no moment until {end:%Y-%m-%d} could a first model be trained: {problem.problem}",
        problem.remedy or "Ingest more of the past",
    )


def _measure(
    past: Past, moments: Sequence[datetime], every: timedelta, walkers: Sequence[Walker], fits: Sequence[ScoredFit],
    costs: Sequence[float], fits_made: int,
) -> Backtest:  # fmt: skip
    """Every policy's loss on the rows that all have answered and whose truth is known."""
    edges = np.searchsorted(past.times, [micros(moment) for moment in moments])
    rows = np.arange(edges[0], edges[-1])
    answered = np.all([known_scores(walker.score_log[rows]) for walker in walkers], axis=0)
    rows = rows[answered & np.isfinite(past.truth[rows])]
    if not len(rows):
        raise DataError(
            f"no row of {past.definition.name} from {moments[0]:%Y-%m-%d} to {moments[-1]:%Y-%m-%d} was known in "
            "time to be answered and has its truth",
            "Ingest the past with --history: its rows then count as known when they happened",
        )
    window = np.searchsorted(edges, rows, side="right") - 1
    scores = {
        name: _baseline_scores(past, fits, rows, window, nth) for name, nth in BASELINES.items()
    } | {walker.candidate.name: walker.score_log[rows] for walker in walkers}  # fmt: skip
    loss = additive_loss(past.definition.loss, past.definition.task)
    losses = {name: row_losses(past.truth[rows], values, loss) for name, values in scores.items()}
    lost = float(losses["never"].mean() - losses["always"].mean())
    made = _baseline_results(moments, costs) | {w.candidate.name: _walked(w) for w in walkers}
    results = tuple(
        replace(
            made[name],
            loss=float(values.mean()),
            kept=float(losses["never"].mean() - values.mean()) / lost if lost > 0 else float("nan"),
            kept_interval=share_interval(losses["never"], values, window, lost),
            window_losses=_by_window(values, window, len(moments) - 1),
        )
        for name, values in losses.items()
    )
    return Backtest(
        model=past.definition.name,
        loss=loss,
        every=every,
        moments=tuple(moments),
        window_rows=tuple(np.bincount(window, minlength=len(moments) - 1).tolist()),
        fits=fits_made,
        results=results,
        advice=advise(results, losses, window, every),
        notes=tuple(dict.fromkeys(walker.note for walker in walkers if walker.note)),
        decisions={walker.candidate.name: tuple(walker.decisions) for walker in walkers},
    )


def _baseline_scores(past: Past, fits: Sequence[ScoredFit], rows: Positions, window: Positions, nth: int) -> Floats:
    """The scores when every nth moment's fit becomes champion at once; 0: only the first one ever does."""
    scores = past.no_scores(len(rows))
    for number in range(len(fits)):
        inside = window == number
        champion = number - number % nth if nth else 0
        scores[inside] = fits[champion].on(rows[inside])
    return scores


def _baseline_results(moments: Sequence[datetime], costs: Sequence[float]) -> dict[str, PolicyResult]:
    made = {}
    for name, nth in BASELINES.items():
        chosen = [number for number in range(1, len(costs)) if nth and number % nth == 0]
        actions = tuple(Action(moments[number], "retrain", "promote", "by the calendar") for number in chosen)
        spent = sum(costs[number] for number in chosen)
        made[name] = _result(name, "baseline", None, actions, spent, {})
    return made


def _walked(walker: Walker) -> PolicyResult:
    candidate, verdicts = walker.candidate, [decision.verdict for decision in walker.decisions]
    checks = {verdict: verdicts.count(verdict) for verdict in ("hold", "recalibrate", "retrain", "repair")}
    policy = None if candidate.doubt else candidate.policy
    return _result(candidate.name, candidate.kind, policy, tuple(walker.actions), walker.cpu_seconds, checks)


def _result(
    name: str, kind: str, policy: Monitoring | None, actions: tuple[Action, ...], cpu_seconds: float,
    checks: Mapping[str, int],
) -> PolicyResult:  # fmt: skip
    """What was done; what came of it is filled in by `_measure`."""

    def count(verdict: str, gate: str | None = None) -> int:
        return sum(each.verdict == verdict and gate in (None, each.gate) for each in actions)

    nan = float("nan")
    return PolicyResult(
        name=name,
        kind=kind,
        policy=policy,
        kept=nan,
        kept_interval=(nan, nan),
        loss=nan,
        window_losses=(),
        retrains=count("retrain"),
        promoted=count("retrain", "promote") + count("settle", "promote"),
        recalibrations=count("recalibrate"),
        maps_promoted=count("recalibrate", "promote"),
        undone=count("roll back"),
        cpu_seconds=cpu_seconds,
        actions=actions,
        checks=checks,
    )


def _by_window(losses: Floats, window: Positions, windows: int) -> tuple[float, ...]:
    total = np.bincount(window, weights=losses, minlength=windows)
    rows = np.bincount(window, minlength=windows)
    with np.errstate(invalid="ignore"):
        return tuple((total / rows).tolist())
