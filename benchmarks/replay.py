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

from perennial.definition import Data, Features, GatePolicy, ModelDefinition, Monitoring, Source
from tasks.decision import CheckInputs, Decision, check
from tasks.evidence import map_court, refit_map
from tasks.gate import Evidence, judge
from tasks.health import Freshness
from tasks.history import outcome_row, recalibration_row
from tasks.map_gate import judge_mapped
from tasks.profiles import microseconds
from tasks.quality import mean_loss, row_losses
from tasks.recalibrating import cross_fitted_map
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
        newest = window - self.label_delay
        mature = self.rows(newest, newest)
        answers = log.iloc[mature].reset_index(drop=True)
        if newest >= model:  # whoever answered: the champion, too, has not learned from these rows
            raw = self.raw(model, newest, newest)
            answers = answers.assign(score=raw, raw_score=raw, version=str(model))
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
            mature=answers,
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

    def definition(self, policy: Monitoring, gate: GatePolicy) -> ModelDefinition:
        """What live code wants to know of the set."""
        columns = Features(numeric=self.data.numeric, categorical=self.data.categorical, text=self.data.text)
        data = Data(source=Source(parquet="-"), id="id", time="time", target="y")
        return ModelDefinition(
            name="set", task=self.task, data=data, features=columns, gate=gate, monitoring=policy
        )  # fmt: skip

    def policy(self, **changes: Any) -> Monitoring:
        """The default policy, with this clock's window."""
        return Monitoring(window=self.window, **changes)


@dataclass
class Run:
    """What a policy did to one set.

    Attributes:
        loss: The mean loss per row over all windows from `start` on.
        retrains, recalibrations: How many were asked for and made.
        refused: How many of both the gate kept out.
        cpu_seconds: Of fitting, checking and recalibrating.
        moments: (window, what was done).
        decisions: Of perennial's checks.
    """

    loss: float = 0.0
    retrains: int = 0
    recalibrations: int = 0
    refused: int = 0
    cpu_seconds: float = 0.0
    moments: list[tuple[int, str]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def act(self, window: int, what: str, let_in: bool) -> None:
        """Count what was done; a training that the gate refuses has cost as much as another."""
        self.retrains += what == "retrain"
        self.recalibrations += what == "recalibrate"
        self.refused += not let_in
        self.moments.append((window, what if let_in else f"{what}, refused"))


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


def run_perennial(replay: Replay, policy: Monitoring, gate: GatePolicy | None = None) -> Run:
    """The live check at the end of every window, and what it asks for; with `gate`, as far as the live gate lets it."""
    data, run, total = replay.data, Run(), 0.0
    court = Court(replay, policy, gate)
    log, ledger = replay.empty_log(), list[dict[str, Any]]()
    for window in range(data.start, data.windows):
        part = replay.rows(window, window)
        raw = replay.raw(court.model, window, window)
        score = court.recalibrator.apply(raw)
        total += float(row_losses(data.target[part], score, replay.loss).sum())
        log.loc[log.index[part], ["score", "raw_score"]] = np.column_stack([score, raw])
        log.loc[log.index[part], "version"] = str(court.model)
        if window + 1 == data.windows:
            break
        began = time.process_time()
        inputs = replace(replay.inputs(window, court.model, log, ledger), recalibrator=court.recalibrator)
        decision = check(inputs, policy, as_of=replay.end(window))
        run.decisions.append(decision)
        ledger.append(decision.to_dict())
        if decision.verdict == "recalibrate":
            run.act(window, "recalibrate", court.recalibrate(inputs, decision, ledger))
        elif decision.verdict == "retrain" and replay.known(window) > court.model:
            trained, let_in = court.retrain(replay.known(window), decision, ledger)
            run.cpu_seconds += trained
            run.act(window, "retrain", let_in)
        run.cpu_seconds += time.process_time() - began
    run.loss = total / (len(data.target) - replay.first[data.start])
    return run


class Court:
    """The champion and its map, and who comes after them: everyone without a gate, else whom the live gate lets in.

    The gate judges a challenger that has not seen the holdout: of the models at hand, the newest one whose later rows
    are within `gate.holdout_share`, or else the one that lacks the newest window. The champion answers through the
    newest of its maps that has not seen the holdout either. Who is let in is trained on all labelled rows.
    """

    def __init__(self, replay: Replay, policy: Monitoring, gate: GatePolicy | None) -> None:
        self.replay, self.gate, self.model = replay, gate, replay.data.start
        self.maps: list[tuple[datetime, Recalibrator]] = []
        self.definition = replay.definition(policy, gate or GatePolicy())

    @property
    def recalibrator(self) -> Recalibrator:
        """The map in force."""
        return self.maps[-1][1] if self.maps else Recalibrator(self.replay.task, "identity")

    def recalibrate(self, inputs: CheckInputs, decision: Decision, ledger: list[dict[str, Any]]) -> bool:
        """Put a new map in force, if it is let in."""
        as_of = decision.as_of
        if self.gate is None:
            found, until = refit_map(inputs, self.definition.monitoring, as_of), as_of
        else:
            found, rows = cross_fitted_map(inputs, self.definition, as_of)
            verdict = judge_mapped(rows, map_court(inputs, self.definition.monitoring)).verdict
            ledger.append(recalibration_row(decision.decision_id, as_of, verdict, champion_version=str(self.model)))
            if verdict != "promote":
                return False
            until = rows["time"].max().to_pydatetime()
        self.maps.append((until, found))
        return True

    def retrain(self, new: int, decision: Decision, ledger: list[dict[str, Any]]) -> tuple[float, bool]:
        """Train on the windows before `new`; the CPU seconds of all fits, and whether the model was let in."""
        seconds = self.replay.matrix.fit_seconds[new]
        learnt = new - 1 if self.gate is None else self._learnt(new)
        judged = self.replay.rows(learnt, new - 1)
        truth = self.replay.data.target[judged]
        answers = self._unseen_map(learnt).apply(self.replay.raw(self.model, learnt, new - 1))
        challenger = self.replay.raw(learnt, learnt, new - 1)
        champion = float(row_losses(truth, answers, self.replay.loss).mean())
        gain = champion - float(row_losses(truth, challenger, self.replay.loss).mean())
        verdict: Any = "promote"
        if self.gate is not None:
            seconds += self.replay.matrix.fit_seconds[learnt]
            evidence = Evidence(
                truth=truth,
                challenger=challenger,
                champion=answers,
                baseline=np.full(len(truth), self.replay.data.target[: judged.start].mean()),
                overlap_rows=0,
                blocks=self.replay.frame["time"].iloc[judged].dt.floor("D").astype("int64").to_numpy(),
            )
            verdict = judge(evidence, self.gate, task=self.replay.task, metric=self.replay.loss).verdict
        after = decision.as_of + timedelta(seconds=1)
        rows = int(self.replay.first[new])
        ledger.append(
            outcome_row(
                decision.decision_id, after, verdict, gain=gain, champion_loss=champion, trained_rows=rows
            )
        )  # fmt: skip
        if verdict == "promote":
            self.model, self.maps = new, []
        return seconds, verdict == "promote"

    def _learnt(self, new: int) -> int:
        """Before which window the judged challenger's training ends: never earlier than the champion's."""
        first = self.replay.first
        share = self.definition.gate.holdout_share
        within = int(np.searchsorted(first[:new], first[new] * (1 - share)))
        return max(min(within, new - 1), self.model)

    def _unseen_map(self, learnt: int) -> Recalibrator:
        start = self.replay.end(learnt - 1)
        older = [found for until, found in self.maps if until <= start]
        return older[-1] if older else Recalibrator(self.replay.task, "identity")


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
