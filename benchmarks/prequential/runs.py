"""A policy's way through a replay: what it did, what it cost. Which policy is better is not said here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import GatePolicy, Monitoring
from prequential.replay import Replay
from prequential.sets import Floats
from tasks.calibration.fit import Recalibrator
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.history import outcome_row, recalibration_row, rollback_row
from tasks.check.signals.maps import map_court, refit_map
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence
from tasks.gate.map_court import judge_mapped
from tasks.gate.probation import judge_newcomer
from tasks.measures.quality import row_losses
from tasks.steps.recalibrate import cross_fitted_map


@dataclass
class Run:
    """What a policy did to one set.

    Attributes:
        loss: The mean loss per row over all windows from `start` on.
        retrains, recalibrations: How many were asked for and made.
        refused: How many of both the gate kept out.
        undone: How many of both were rolled back in their probation.
        waited: How many trainings the gate put off, to look again on later rows.
        cpu_seconds: Of fitting, checking and recalibrating.
        moments: (window, what was done).
        decisions: Of perennial's checks.
        window_losses: The mean loss of each window from `start` on.
    """

    loss: float = 0.0
    retrains: int = 0
    recalibrations: int = 0
    refused: int = 0
    undone: int = 0
    waited: int = 0
    cpu_seconds: float = 0.0
    moments: list[tuple[int, str]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    window_losses: list[float] = field(default_factory=list)

    def lose(self, losses: Floats, share: float) -> None:
        """Count a window's losses; it is that share of the rows judged."""
        self.window_losses.append(float(losses.mean()))
        self.loss += self.window_losses[-1] * share

    def act(self, window: int, what: str, let_in: bool) -> None:
        """Count what was done; a training that the gate refuses has cost as much as another."""
        self.retrains += what == "retrain"
        self.recalibrations += what == "recalibrate"
        self.refused += not let_in
        self.moments.append((window, what if let_in else f"{what}, refused"))


Chooser = Callable[[int, int, Floats], bool]


def run_chooser(replay: Replay, choose: Chooser) -> Run:
    """Retrain at the end of a window when `choose(window, model, newest mature losses)` says so; never recalibrate."""
    data, run, model = replay.data, Run(), replay.data.start
    answered = np.full(len(data.target), np.nan)
    for window in range(data.start, data.windows):
        part = replay.rows(window, window)
        answered[part] = row_losses(data.target[part], replay.raw(model, window, window), replay.loss)
        run.lose(answered[part], replay.share(window))
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
    return run


def run_perennial(replay: Replay, policy: Monitoring, gate: GatePolicy | None = None) -> Run:
    """The live check at the end of every window, and what it asks for; with `gate`, as far as the live gate lets it."""
    replay = replay.run_of_its_own()
    data, run = replay.data, Run()
    court = Court(replay, policy, gate)
    log, ledger = replay.empty_log(), list[dict[str, Any]]()
    for window in range(data.start, data.windows):
        part = replay.rows(window, window)
        raw = replay.raw(court.model, window, window)
        score = court.recalibrator.apply(raw)
        run.lose(row_losses(data.target[part], score, replay.loss), replay.share(window))
        log.loc[log.index[part], ["score", "raw_score"]] = np.column_stack([score, raw])
        log.loc[log.index[part], "version"] = str(court.model)
        if window + 1 == data.windows:
            break
        began = time.process_time()
        if court.undo(window, log, ledger):
            run.undone += 1
            run.moments.append((window, "rolled back"))
        inputs = replace(replay.inputs(window, court.model, log, ledger), recalibrator=court.recalibrator)
        decision = check(inputs, policy, as_of=replay.end(window))
        run.decisions.append(decision)
        ledger.append(decision.to_dict())
        if decision.verdict == "recalibrate":
            run.act(window, "recalibrate", court.recalibrate(inputs, decision, ledger))
        elif decision.verdict == "retrain" and replay.known(window) > court.model:
            replay.refuse(decision, replay.known(window))
            trained, let_in = court.retrain(replay.known(window), decision, ledger)
            run.cpu_seconds += trained
            run.act(window, "retrain", let_in)
        run.cpu_seconds += time.process_time() - began
    return run


class Court:
    """The champion and its map, and who comes after them: everyone without a gate, else whom the live gate lets in.

    The gate judges a challenger that has not seen the holdout: of the models at hand, the newest one whose later rows
    are within `gate.holdout_share`, or else the one that lacks the newest window. The champion answers through the
    newest of its maps that has not seen the holdout either. Who is let in is trained on all labelled rows, and is on
    probation: as long as it lasts, the champion before scores the same rows, and is champion again if it proves better.
    """

    def __init__(self, replay: Replay, policy: Monitoring, gate: GatePolicy | None) -> None:
        self.replay, self.gate, self.model = replay, gate, replay.data.start
        self.maps: list[tuple[datetime, Recalibrator]] = []
        self.since, self.decision_id = replay.end(replay.data.start - 1), ""
        self.former: tuple[int, list[tuple[datetime, Recalibrator]]] | None = None
        self.definition = replay.definition(policy, gate or GatePolicy())

    @property
    def recalibrator(self) -> Recalibrator:
        """The map in force."""
        return self.maps[-1][1] if self.maps else Recalibrator(self.replay.task, "identity")

    def _follow(self, model: int, maps: list[tuple[datetime, Recalibrator]], decision: Decision) -> None:
        """Make a newcomer the champion."""
        self.former = (self.model, self.maps)
        self.model, self.maps, self.since, self.decision_id = model, maps, decision.as_of, decision.decision_id

    def undo(self, window: int, log: pd.DataFrame, ledger: list[dict[str, Any]]) -> bool:
        """Make the former champion the champion again, if a newcomer on probation is surely worse."""
        as_of = self.replay.end(window)
        if self.gate is None or self.former is None or as_of - self.since > self.gate.probation:
            return False
        first = int(np.searchsorted(self.replay.micros, self.since.timestamp() * 1e6))
        last = self.replay.rows(window - self.replay.label_delay, window - self.replay.label_delay).stop
        model, maps = self.former
        if last <= first:
            return False
        offset = self.replay.first[model]
        raw = self.replay.matrix.scores[model][first - offset : last - offset]
        rows = pd.DataFrame(
            {
                "time": self.replay.frame["time"].iloc[first:last],
                "truth": self.replay.data.target[first:last],
                "score": log["score"].iloc[first:last],
                "shadow": maps[-1][1].apply(raw) if maps else raw,
            }
        )
        rows = rows[self.replay.sound(slice(first, last), ledger)]
        report = judge_newcomer(rows, self.gate, version=self.model, former=model, metric=self.replay.loss, seed=0)
        if report.verdict != "roll back":
            return False
        ledger.append(
            rollback_row(self.decision_id, as_of, version=self.model, former=model, reason=report.reason)
        )  # fmt: skip
        self.model, self.maps, self.former = model, maps, None
        return True

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
        self._follow(self.model, [*self.maps, (until, found)], decision)
        return True

    def retrain(self, new: int, decision: Decision, ledger: list[dict[str, Any]]) -> tuple[float, bool]:
        """Train on the windows before `new`; the CPU seconds of all fits, and whether the model was let in."""
        seconds = self.replay.matrix.fit_seconds[new]
        learnt = new - 1 if self.gate is None else self._learnt(new)
        judged = self.replay.rows(learnt, new - 1)
        truth = self.replay.data.target[judged]
        answers = self._unseen_map(learnt).apply(self.replay.raw(self.model, learnt, new - 1))
        challenger = self.replay.raw(learnt, learnt, new - 1)
        times = self.replay.frame["time"].iloc[judged]
        sound = self.replay.sound(judged, [decision.to_dict()])
        if self.gate is not None and sound.sum() >= max(self.gate.minimum_rows, len(truth) / 2):
            truth, answers, challenger, times = truth[sound], answers[sound], challenger[sound], times[sound]
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
                blocks=times.dt.floor("D").astype("int64").to_numpy(),
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
            self._follow(new, [], decision)
        return seconds, verdict == "promote"

    def _learnt(self, new: int) -> int:
        """Before which window the judged challenger's training ends: never earlier than the champion's."""
        first = self.replay.first
        share = self.definition.gate.holdout_share
        within = int(np.searchsorted(first[:new], first[new] * (1 - share)))
        half = int(np.searchsorted(first[:new], (first[self.model] + first[new]) / 2))
        return min(max(within, half), new - 1)

    def _unseen_map(self, learnt: int) -> Recalibrator:
        start = self.replay.end(learnt - 1)
        older = [found for until, found in self.maps if until <= start]
        return older[-1] if older else Recalibrator(self.replay.task, "identity")
