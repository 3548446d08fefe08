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
from perennial.model.scores import constant_scores, score_column
from prequential.replay import Replay
from prequential.sets import Floats
from tasks.calibration.fit import Recalibrator, carried_strength
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.gains import warning
from tasks.check.history import outcome_row, read_history, realised_row, recalibration_row, rollback_row, settlement_row
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence, behind_fair_maps
from tasks.gate.map_court import judge_mapped
from tasks.gate.probation import Bout, is_last_look, judge_newcomer, judge_waiting, probation_length, waiting_length
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

    def act(self, window: int, what: str, verdict: str) -> None:
        """Count what was done; a training that the gate refuses has cost as much as another."""
        self.retrains += what == "retrain"
        self.recalibrations += what == "recalibrate"
        self.refused += verdict not in ("promote", "wait")
        self.waited += verdict == "wait"
        self.moments.append((window, what if verdict == "promote" else f"{what}, {verdict}"))


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
        replay.write(log, part, score, raw, court.model)
        if window + 1 == data.windows:
            break
        began = time.process_time()
        if court.undo(window, log, ledger):
            run.undone += 1
            run.moments.append((window, "rolled back"))
        if settled := court.settle(window, ledger):
            run.moments.append((window, f"after waiting: {settled}"))
        court.realise(window, ledger)
        inputs = replace(replay.inputs(window, court.model, log, ledger), recalibrator=court.recalibrator)
        decision = check(inputs, policy, as_of=replay.end(window))
        run.decisions.append(decision)
        ledger.append(decision.to_dict())
        if decision.verdict == "recalibrate":
            run.act(window, "recalibrate", court.recalibrate(inputs, decision, ledger))
        elif decision.verdict == "retrain" and replay.known(window) > court.model:
            replay.refuse(decision, replay.known(window))
            trained, verdict = court.retrain(replay.known(window), decision, ledger)
            run.cpu_seconds += trained
            run.act(window, "retrain", verdict)
        run.cpu_seconds += time.process_time() - began
    return run


@dataclass(frozen=True)
class _Trial:
    """Two models, by the windows before which their training ended, and since when they are compared."""

    newcomer: int
    former: int
    since: datetime
    decision_id: str


class Court:
    """The champion and its map, and who comes after them: everyone without a gate, else whom the live gate lets in.

    The gate judges a challenger that has not seen the holdout: of the models at hand, the newest one whose later rows
    are within `gate.holdout_share`, or else the one that lacks the newest window. Who is let in, or waits, is trained
    on all labelled rows. Who is let in is on probation: as long as it lasts, the champion before scores the same rows,
    and is champion again if it proves better. A new map is on a probation of its own, beside the map before it.
    """

    def __init__(self, replay: Replay, policy: Monitoring, gate: GatePolicy | None) -> None:
        self.replay, self.gate, self.model = replay, gate, replay.data.start
        self.maps: list[tuple[datetime, Recalibrator]] = []
        self.mapped: tuple[datetime, str] | None = None  # when the newest map was let in, and by which decision
        self.probation: _Trial | None = None
        self.waiting: _Trial | None = None
        self.crowned: list[_Trial] = []
        self.former_maps: list[tuple[datetime, Recalibrator]] = []
        self.definition = replay.definition(policy, gate or GatePolicy())

    @property
    def recalibrator(self) -> Recalibrator:
        """The map in force."""
        return self.maps[-1][1] if self.maps else Recalibrator(self.replay.task, "identity")

    def realise(self, window: int, ledger: list[dict[str, Any]]) -> None:
        """Write down what promotions have brought whose probation is over: as tasks.steps.trial.realise does live."""
        as_of, length = self.replay.end(window), probation_length(self.definition)
        for trial in [each for each in self.crowned if each.since + length < as_of]:
            self.crowned.remove(trial)
            rows = self._both(trial, window, trial.former, ledger, until=trial.since + length)
            report = judge_newcomer(rows, Bout.of(self.definition), version=trial.newcomer, former=trial.former)
            if report.interval is not None:
                ledger.append(
                    realised_row(
                        trial.decision_id, as_of, version=trial.newcomer, former=trial.former,
                        gain=report.interval.estimate, low=None, high=None, rows=report.rows,
                    )
                )  # fmt: skip

    def _crown(self, model: int, since: datetime, decision_id: str) -> None:
        """Make a model the champion; the one before goes on in the shadow."""
        self.probation = _Trial(model, self.model, since, decision_id)
        self.crowned.append(self.probation)
        self.former_maps, self.maps, self.mapped, self.waiting = self.maps, [], None, None
        self.model = model

    def undo(self, window: int, log: pd.DataFrame, ledger: list[dict[str, Any]]) -> bool:
        """Make the champion or the map before the newcomer the one again, if the newcomer is surely worse."""
        as_of, length = self.replay.end(window), probation_length(self.definition)
        if self.gate is None:
            return False
        if self.mapped is not None and as_of - self.mapped[0] <= length:
            since, decision_id = self.mapped
            first = int(np.searchsorted(self.replay.micros, since.timestamp() * 1e6))
            older = self.maps[-2][1] if len(self.maps) > 1 else Recalibrator(self.replay.task, "identity")
            rows = self._known(first, window, log["score"], lambda part: older.apply(self._raw(self.model, part)))
            bout = Bout.of(self.definition, maps_alone=True)
            report = judge_newcomer(rows, bout, version=self.model, former=self.model)
            if report.verdict == "roll back":
                self.maps, self.mapped = self.maps[:-1], None
                ledger.append(rollback_row(decision_id, as_of, version=0, former=0, reason=report.reason))
                return True
        trial = self.probation
        if trial is None or as_of - trial.since > length:
            return False
        report = judge_newcomer(
            self._both(trial, window, trial.former, ledger), Bout.of(self.definition),
            version=trial.newcomer, former=trial.former, last=is_last_look(self.definition, trial.since, as_of),
        )  # fmt: skip
        if report.verdict != "roll back":
            return False
        ledger.append(
            rollback_row(trial.decision_id, as_of, version=trial.newcomer, former=trial.former, reason=report.reason)
        )
        self.model, self.maps, self.mapped, self.probation = trial.former, self.former_maps, None, None
        return True

    def settle(self, window: int, ledger: list[dict[str, Any]]) -> str:
        """Look again at the challenger that waits; what became of it, empty while it waits on."""
        trial, as_of = self.waiting, self.replay.end(window)
        if trial is None:
            return ""
        report = judge_waiting(
            self._both(trial, window, self.model, ledger),
            Bout.of(self.definition, prior=warning(read_history(ledger, as_of))),
            version=trial.newcomer, former=self.model,
            time_is_up=as_of - trial.since > waiting_length(self.definition),
        )  # fmt: skip
        if report.verdict not in ("promote", "give up"):
            return ""
        ledger.append(
            settlement_row(
                trial.decision_id, as_of, "promote" if report.verdict == "promote" else "keep",
                version=trial.newcomer, former=self.model, reason=report.reason,
            )
        )  # fmt: skip
        self.waiting = None
        if report.verdict == "promote":
            self._crown(trial.newcomer, as_of, trial.decision_id)
        return str(report.verdict)

    def _both(
        self, trial: _Trial, window: int, former: int, ledger: list[dict[str, Any]], until: datetime | None = None
    ) -> pd.DataFrame:
        """Sound rows whose truth is known and that neither of the models has learned from, with what both say."""
        first = int(self.replay.first[trial.newcomer])
        index = pd.RangeIndex(first, len(self.replay.micros))
        raw = score_column(self._raw(trial.newcomer, slice(first, None)), index)
        if until is not None:
            window = min(window, self._window_of(until) + self.replay.label_delay)
        rows = self._known(first, window, raw, lambda part: self._raw(former, part))
        return rows[self.replay.sound(slice(first, first + len(rows)), ledger)]

    def _raw(self, model: int, part: slice) -> Floats:
        offset = int(self.replay.first[model])
        stop = None if part.stop is None else part.stop - offset
        return self.replay.matrix.scores[model][part.start - offset : stop]

    def _known(self, first: int, window: int, score: pd.Series[Any], shadow: Callable[[slice], Floats]) -> pd.DataFrame:
        newest = window - self.replay.label_delay
        part = slice(first, max(first, self.replay.rows(newest, newest).stop))
        return pd.DataFrame(
            {
                "time": self.replay.frame["time"].iloc[part],
                "truth": self.replay.data.target[part],
                "score": score.loc[part.start : part.stop - 1].to_numpy(),
                "shadow": score_column(shadow(part)).to_numpy(),
            }
        )

    def recalibrate(self, inputs: CheckInputs, decision: Decision, ledger: list[dict[str, Any]]) -> str:
        """Put a new map in force, if it is let in; the gate's verdict."""
        as_of = decision.as_of
        verdict: Any = "promote"
        found, rows, court = cross_fitted_map(inputs, self.definition, as_of)
        if self.gate is None:
            until = as_of
        else:
            verdict = judge_mapped(rows, court).verdict
            ledger.append(recalibration_row(decision.decision_id, as_of, verdict, champion_version=str(self.model)))
            until = rows["time"].max().to_pydatetime()
        if verdict == "promote":
            self.maps, self.mapped = [*self.maps, (until, found)], (as_of, decision.decision_id)
        return str(verdict)

    def retrain(self, new: int, decision: Decision, ledger: list[dict[str, Any]]) -> tuple[float, str]:
        """Train on the windows before `new`; the CPU seconds of all fits, and the gate's verdict."""
        seconds = self.replay.matrix.fit_seconds[new]
        learnt = new - 1 if self.gate is None else self._learnt(new)
        judged = self.replay.rows(learnt, new - 1)
        truth = self.replay.data.target[judged]
        sound = self.replay.sound(judged, [decision.to_dict()])
        if self.gate is None or sound.sum() < max(self.gate.minimum_rows, len(truth) / 2):
            sound = np.ones(len(truth), dtype=bool)
        truth = truth[sound]
        evidence = Evidence(
            truth=truth,
            challenger=self.replay.raw(learnt, learnt, new - 1)[sound],
            champion=self.replay.raw(self.model, learnt, new - 1)[sound],
            baseline=constant_scores(self.replay.baseline(judged.start), len(truth)),
            overlap_rows=0,
            blocks=self.replay.frame["time"].iloc[judged][sound].dt.floor("D").astype("int64").to_numpy(),
        )
        if self.definition.monitoring.recalibrate:
            monitoring, late = self.definition.monitoring, self.definition.data.label_delay
            evidence = behind_fair_maps(evidence, self.replay.task, carried_strength(monitoring, late))
        else:
            evidence = replace(evidence, champion=self._unseen_map(learnt).apply(np.asarray(evidence.champion)))
        prior = warning(read_history(ledger, decision.as_of))
        evidence = replace(evidence, prior=prior)
        champion, challenger = (
            float(row_losses(truth, np.asarray(scores), self.replay.loss).mean())
            for scores in (evidence.champion, evidence.challenger)
        )
        verdict: Any = "promote"
        if self.gate is not None:
            seconds += self.replay.matrix.fit_seconds[learnt]
            verdict = judge(evidence, self.gate, task=self.replay.task, metric=self.replay.loss).verdict
        after, rows = decision.as_of + timedelta(seconds=1), int(self.replay.first[new])
        ledger.append(
            outcome_row(
                decision.decision_id, after, verdict,
                gain=champion - challenger, champion_loss=champion, trained_rows=rows,
            )
        )  # fmt: skip
        if verdict == "promote":
            self._crown(new, decision.as_of, decision.decision_id)
        elif verdict == "wait":
            self.waiting = _Trial(new, self.model, decision.as_of, decision.decision_id)
        return seconds, str(verdict)

    def _window_of(self, as_of: datetime) -> int:
        return round((as_of - self.replay.origin) / self.replay.window) - 1

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
