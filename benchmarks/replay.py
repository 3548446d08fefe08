"""A set replayed window by window: what a check would have been given at each moment. No policy is judged here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from drifting_sets import DriftingSet, Floats, ScoreMatrix

from perennial.definition import Monitoring
from tasks.decision import CheckInputs, Decision, check
from tasks.evidence import refit_map
from tasks.health import Freshness
from tasks.history import outcome_row
from tasks.profiles import microseconds
from tasks.quality import mean_loss, row_losses
from tasks.recalibration import Recalibrator
from tasks.reference import Reference, build_reference

WEEK = timedelta(days=7)


class Replay:
    """One set on a clock of equal windows.

    Real times are kept where the windows are equally long; else each window is spread evenly over one week, in order.

    Args:
        data: The set.
        matrix: Every model's scores.
        label_delay: After how many windows a window's labels are known; 0 means at its end.
    """

    def __init__(self, data: DriftingSet, matrix: ScoreMatrix, label_delay: int) -> None:
        self.data, self.matrix, self.label_delay = data, matrix, label_delay
        self.loss = "log_loss" if data.task == "classification" else "mse"
        self.first = np.array([data.first_row(w) for w in range(data.windows + 1)])
        times, self.window, self.origin = _clock(data, self.first)
        self.frame = data.features.assign(time=times)
        self.ids = pd.Series(np.arange(len(times))).astype("str")
        self.references: dict[int, Reference] = {}

    @property
    def task(self) -> Any:
        return self.data.task

    def rows(self, first: int, last: int) -> slice:
        """The rows of the windows first to last, the last one included."""
        return slice(int(self.first[max(first, 0)]), int(self.first[last + 1]))

    def end(self, window: int) -> datetime:
        """The moment at which a window ends, and the check after it takes place."""
        return self.origin + (window + 1) * self.window

    def known(self, window: int) -> int:
        """How many windows have labels at the end of the given one."""
        return max(self.data.start, window + 1 - self.label_delay)

    def raw(self, model: int, first: int, last: int) -> Floats:
        """Scores of the model trained on the windows before `model`, for the windows first to last."""
        offset = self.first[model]
        part = self.rows(first, last)
        return self.matrix.scores[model][part.start - offset : part.stop - offset]

    def reference(self, model: int) -> Reference:
        """The champion's reference: its loss at promotion is that of the model without the newest window, on it."""
        if model not in self.references:
            part = self.rows(0, model - 1)
            held = row_losses(
                self.data.target[self.rows(model - 1, model - 1)], self.raw(model - 1, model - 1, model - 1), self.loss
            )
            loss = mean_loss(held)
            self.references[model] = build_reference(
                self.frame.iloc[part],
                time="time",
                task=self.task,
                loss=self.loss,
                window_seconds=self.window.total_seconds(),
                numeric=self.data.numeric,
                categorical=self.data.categorical,
                text=self.data.text,
                truth=self.data.target[part],
                holdout_loss=loss.mean,
                holdout_error=loss.standard_error,
                holdout_rows=loss.rows,
            )
        return self.references[model]

    def inputs(self, window: int, model: int, log: pd.DataFrame, ledger: list[dict[str, Any]]) -> CheckInputs:
        """What the check at the end of a window is given.

        Args:
            window: The window that just ended.
            model: The champion.
            log: Every prediction so far: id, time, score, raw_score, version, by row.
            ledger: Earlier rows.
        """
        part = self.rows(window, window)
        mature = self.rows(window - self.label_delay, window - self.label_delay)
        frame = self.frame.iloc[part].reset_index(drop=True)
        labels = pd.DataFrame(
            {
                "id": self.ids.iloc[mature].to_numpy(),
                "truth": self.data.target[mature],
                "labelled_at": pd.Timestamp(self.end(window)),
            }
        )
        return CheckInputs(
            model=self.data.name,
            champion_version=str(model),
            reference=self.reference(model),
            time="time",
            window=frame,
            predictions=log.iloc[part].reset_index(drop=True),
            mature=log.iloc[mature].reset_index(drop=True),
            labels=labels,
            label_delay=self.label_delay * self.window,
            labelled_rows=int(self.first[self.known(window)]),
            freshness=Freshness(latest_event=frame["time"].max().to_pydatetime()),
            ledger=tuple(ledger),
        )

    def empty_log(self) -> pd.DataFrame:
        """A log without predictions; version 0 is nobody's."""
        log = pd.DataFrame({"id": self.ids, "time": self.frame["time"], "score": np.nan, "raw_score": np.nan})
        return log.assign(version=pd.Series(["none"] * len(log), dtype="str"))

    def policy(self, **changes: Any) -> Monitoring:
        """The default policy, with this clock's window."""
        return Monitoring(window=self.window, **changes)


@dataclass
class Run:
    """What a policy did to one set.

    Attributes:
        loss: The mean loss per row over all windows from `start` on.
        retrains, recalibrations: How many.
        cpu_seconds: Of fitting, checking and recalibrating.
        moments: (window, what was done).
        decisions: Of perennial's checks.
    """

    loss: float = 0.0
    retrains: int = 0
    recalibrations: int = 0
    cpu_seconds: float = 0.0
    moments: list[tuple[int, str]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


Chooser = Callable[[int, int, Floats], bool]


def run_chooser(replay: Replay, choose: Chooser) -> Run:
    """Retrain at the end of a window when `choose(window, model, newest mature losses)` says so; never recalibrate."""
    data, run, model, total = replay.data, Run(), replay.data.start, 0.0
    answered = np.full(len(data.target), np.nan)
    for window in range(data.start, data.windows):
        part = replay.rows(window, window)
        answered[part] = row_losses(data.target[part], replay.raw(model, window, window), replay.loss)
        total += float(answered[part].sum())
        if window + 1 == data.windows:
            break
        began = time.process_time()
        mature = answered[replay.rows(window - replay.label_delay, window - replay.label_delay)]
        new = replay.known(window)
        if choose(window, model, mature[np.isfinite(mature)]) and new > model:
            model = new
            run.retrains += 1
            run.cpu_seconds += replay.matrix.fit_seconds[model]
            run.moments.append((window, "retrain"))
        run.cpu_seconds += time.process_time() - began
    run.loss = total / (len(data.target) - replay.first[data.start])
    return run


def run_perennial(replay: Replay, policy: Monitoring) -> Run:
    """The live check at the end of every window, and what it asks for."""
    data, run, model, total = replay.data, Run(), replay.data.start, 0.0
    recalibrator = Recalibrator(replay.task, "identity")
    log, ledger = replay.empty_log(), list[dict[str, Any]]()
    for window in range(data.start, data.windows):
        part = replay.rows(window, window)
        raw = replay.raw(model, window, window)
        score = recalibrator.apply(raw)
        total += float(row_losses(data.target[part], score, replay.loss).sum())
        log.loc[log.index[part], ["score", "raw_score"]] = np.column_stack([score, raw])
        log.loc[log.index[part], "version"] = str(model)
        if window + 1 == data.windows:
            break
        began = time.process_time()
        as_of = replay.end(window)
        inputs = replace(replay.inputs(window, model, log, ledger), recalibrator=recalibrator)
        decision = check(inputs, policy, as_of=as_of)
        run.decisions.append(decision)
        ledger.append(decision.to_dict())
        if decision.verdict == "recalibrate":
            recalibrator = refit_map(inputs, policy, as_of)
            run.recalibrations += 1
            run.moments.append((window, "recalibrate"))
        new = replay.known(window)
        if decision.verdict == "retrain" and new > model:
            ledger.append(_outcome(replay, decision, log, model, new))
            model, recalibrator = new, Recalibrator(replay.task, "identity")
            run.retrains += 1
            run.cpu_seconds += replay.matrix.fit_seconds[model]
            run.moments.append((window, "retrain"))
        run.cpu_seconds += time.process_time() - began
    run.loss = total / (len(data.target) - replay.first[data.start])
    return run


def _outcome(replay: Replay, decision: Decision, log: pd.DataFrame, model: int, new: int) -> dict[str, Any]:
    """The gate's comparison on the newest mature window; here, as for the baselines, every challenger is promoted."""
    gain = champion = None
    part = replay.rows(new - 1, new - 1)
    if new - 1 >= model:
        truth = replay.data.target[part]
        champion = float(row_losses(truth, log["score"].to_numpy()[part], replay.loss).mean())
        challenger = float(row_losses(truth, replay.raw(new - 1, new - 1, new - 1), replay.loss).mean())
        gain = champion - challenger
    return outcome_row(
        decision.decision_id,
        decision.as_of + timedelta(seconds=1),
        "promote",
        gain=gain,
        champion_loss=champion,
        trained_rows=int(replay.first[new]),
    )


def _clock(data: DriftingSet, first: Any) -> tuple[pd.Series[Any], timedelta, datetime]:
    real = microseconds(data.time)
    starts = real[first[:-1]]
    step = np.median(np.diff(starts))
    length = timedelta(days=max(1, round(step / 86_400e6)))
    origin = pd.Timestamp(starts[0], unit="us", tz="UTC").normalize()
    edges = origin.value // 1000 + np.arange(data.windows + 1) * int(length.total_seconds() * 1e6)
    inside = (real >= edges[data.window]) & (real < edges[data.window + 1])
    if inside.all():
        return data.time, length, origin.to_pydatetime()
    position = np.arange(len(real)) - first[data.window]
    size = np.diff(first)[data.window]
    origin = pd.Timestamp("2020-01-06", tz="UTC")
    seconds = (data.window + position / size) * WEEK.total_seconds()
    times = pd.Series(origin + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us, UTC]")
    return times, WEEK, origin.to_pydatetime()
