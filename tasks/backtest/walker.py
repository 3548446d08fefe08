"""One policy's way through history: its champion, its log of predictions, its ledger. It compares no policies.

Deciding, judging, mapping and describing are the live functions; here is only what is done between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import Monitoring
from perennial.errors import DataError
from perennial.model.scores import score_column
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.backtest.past import Floats, Moment, Past, Positions, log_frame, micros
from tasks.backtest.policies import Candidate
from tasks.backtest.trainings import ScoredFit, Trainings
from tasks.calibration.fit import Recalibrator
from tasks.calibration.maps import ReignedMap, judged_score
from tasks.check.complaints.complaint import doubted_span, read_complaints
from tasks.check.complaints.masks import is_refused
from tasks.check.decision import CheckInputs, Decision, check
from tasks.check.estimate.estimates import FEATURE_ROWS, judged_rows, sample_ids
from tasks.check.estimate.record import past_rows
from tasks.check.gains import warning
from tasks.check.history import read_history, realised_row, recalibration_row, rollback_row, settlement_row
from tasks.check.inputs import mature_windows
from tasks.check.reference import Reference
from tasks.gate.map_court import judge_mapped
from tasks.gate.probation import Bout, is_last_look, judge_newcomer, judge_waiting, probation_length, waiting_length
from tasks.gate.report import GateReport
from tasks.steps.describe import training_sample
from tasks.steps.recalibrate import cross_fitted_map
from tasks.steps.retrain import Prepared, judge_measured, training_outcome


@dataclass(frozen=True)
class Action:
    """What a policy did at a moment.

    Attributes:
        verdict: retrain, recalibrate or repair; `roll back` at the end of a probation that a newcomer did not stand;
            `settle` where a challenger that waited was let in or given up.
        gate: promote, keep, wait, insufficient evidence; `failed` where the training could not be made; else empty.
        reason: Why it was asked for, in the decision's words.
        told: What the gate said first, or why the training failed; else empty.
    """

    as_of: datetime
    verdict: str
    gate: str
    reason: str
    told: str = ""


@dataclass(frozen=True)
class Champion:
    """A version in one policy's history.

    Attributes:
        since, decision_id: When it became champion, and by which decision; the first one's is None.
        former: The champion before it, to which a probation may go back; of an older one nothing is kept.
        crowned, crowned_by: The same of its model, whatever maps it has got since.
        beaten: The champion of another model before it.
    """

    number: int
    base: int
    fit: ScoredFit
    reference: Reference
    holdout: pd.DataFrame
    since: datetime
    maps: tuple[ReignedMap, ...] = ()
    decision_id: str | None = None
    former: Champion | None = None
    crowned: datetime | None = None
    crowned_by: str | None = None
    beaten: Champion | None = None

    @property
    def map(self) -> Recalibrator | None:
        """The map in force."""
        return self.maps[-1].map if self.maps else None

    def crown(self, beaten: Champion | None, as_of: datetime, decision_id: str | None) -> Champion:
        """Itself, promoted in another model's place."""
        before = replace(beaten, former=None, beaten=None) if beaten else None
        return replace(
            self, since=as_of, decision_id=decision_id, former=before,
            crowned=as_of, crowned_by=decision_id, beaten=before,
        )  # fmt: skip

    def mapped(self, found: ReignedMap, number: int, decision: Decision) -> Champion:
        """Itself behind a new map."""
        return replace(
            self, number=number, maps=(*self.maps, found), since=decision.as_of, decision_id=decision.decision_id,
            former=replace(self, former=None, beaten=None),
        )  # fmt: skip

    def answer(self, rows: Positions) -> tuple[Floats, Floats]:
        """Score and raw score."""
        raw = self.fit.on(rows)
        return (raw if self.map is None else self.map.apply(raw)), raw

    def judged(self, holdout: Positions, prepared: Prepared) -> Floats:
        """What it is judged by: its own score, or where no maps are made its answers by one that is fair."""
        raw = self.fit.on(holdout)
        if prepared.definition.monitoring.recalibrate:
            return raw
        return judged_score(raw, self.maps, prepared.split.holdout_from)


class Walker:
    """One policy on its way through history: its champion, its log of predictions, its ledger."""

    champion: Champion

    def __init__(self, candidate: Candidate, past: Past, trainings: Trainings) -> None:
        self.candidate = candidate
        gate = past.definition.gate.model_copy(update={"doubt": candidate.doubt or past.definition.gate.doubt})
        self.definition = past.definition.model_copy(update={"monitoring": candidate.policy, "gate": gate})
        self.past, self.trainings = past, trainings
        rows = len(past.frame)
        self.score_log, self.raw_log = past.no_scores(rows), past.no_scores(rows)
        self.version_log = np.zeros(rows, dtype=np.int32)  # 0: not predicted
        self.span: tuple[datetime, datetime] | None = None
        self.ledger: list[dict[str, Any]] = []
        self.decisions: list[Decision] = []
        self.actions: list[Action] = []
        self.bases: dict[int, int] = {}
        self.cpu_seconds = 0.0
        self.note = ""
        self.waiting: tuple[Champion, Decision] | None = None
        self.crowned: list[Champion] = []

    @property
    def policy(self) -> Monitoring:
        return self.candidate.policy

    def begin(self, moment: Moment) -> None:
        """The first champion. It goes in whatever the gate says, since there is no history without one."""
        prepared = self.trainings.prepare(moment, self.definition, None)
        report = self._promote(moment, prepared, None, 1, None)
        # Live, too, the first training is in the ledger: cooldown and budget count it.
        self.ledger.append(training_outcome(prepared, report, None) | {"gate_verdict": "promote"})
        self.cpu_seconds = 0.0  # every policy and baseline starts with this training: it tells none from another
        if report.verdict != "promote":
            self.note = f"the gate would not have let the first model in: {report.verdict}, {report.reasons[0]}"

    def step(self, moment: Moment) -> None:
        """Score what came, end a probation, settle a doubt, check, and act."""
        self.score(moment)
        started = self.trainings.clock()
        self._end_probation(moment)
        self._settle(moment)
        self._realise(moment)
        inputs = self.inputs(moment)
        decision = check(inputs, self.policy, as_of=moment.as_of)
        self.ledger.append(decision.to_dict())
        self.decisions.append(decision)
        self.cpu_seconds += self.trainings.clock() - started
        if decision.verdict == "retrain":
            self._retrain(moment, decision)
        elif decision.verdict == "recalibrate":
            self._recalibrate(moment, decision, inputs)
        elif decision.verdict == "repair":
            self.actions.append(Action(moment.as_of, "repair", "", decision.reasons[0]))

    def score(self, moment: Moment) -> None:
        """Answer the rows that nobody answered; how far back is tasks.steps.score.score_unscored's rule."""
        as_of = moment.as_of
        reach = max(self.policy.window, self.definition.data.label_delay)
        start = as_of - reach
        if self.span is not None:
            start = max(self.span[0], min(self.span[1], as_of) - reach)
        rows = moment.between(start, as_of)
        rows = rows[self.version_log[rows] == 0]
        if not len(rows):
            return
        self.score_log[rows], self.raw_log[rows] = self.champion.answer(rows)
        self.version_log[rows] = self.champion.number
        first, last = self.past.moment(rows[0]), self.past.moment(rows[-1])
        self.span = (min(self.span[0], first), max(self.span[1], last)) if self.span else (first, last)

    def inputs(self, moment: Moment) -> CheckInputs:
        """What tasks.steps.monitor.gather_inputs would have read from the tables."""
        as_of, policy, delay = moment.as_of, self.policy, self.definition.data.label_delay
        start, mature_end = as_of - policy.window, as_of - delay

        def matured(windows: int) -> Positions:
            return self._predicted(moment.between(mature_end - windows * policy.window, mature_end))

        mature = matured(mature_windows(policy, lambda windows: self._count(moment, matured(windows))))
        predicted = self._predicted(moment.between(start, as_of))
        own = predicted[np.isin(self.version_log[predicted], self._own_versions())]
        past = past_rows(
            read_history(self.ledger, as_of),
            policy.window,
            mature_end,
            lambda first, last: self._log(self._predicted(moment.between(first, last))),
        )
        return CheckInputs(
            model=self.definition.name,
            champion_version=str(self.champion.number),
            reference=self.champion.reference,
            time=ROW_TIME,
            window=moment.window(start),
            predictions=self._log(predicted),
            mature=self._own_answers(mature),
            labels=moment.labels(moment.between(None, mature_end)),
            label_delay=delay,
            labelled_rows=moment.labelled_since(self.champion.fit.trained_from),
            freshness=moment.freshness(start),
            ledger=tuple(self.ledger),
            base_versions={str(number): str(base) for number, base in self.bases.items()},
            recalibrator=self.champion.map,
            gate=self.definition.gate,
            metric=self.definition.loss,
            seed=self.definition.training.seed,
            past=past,
            window_features=self._features_of(own),
            mature_features=self._features_of(mature),
            holdout=self.champion.holdout,
            suspects=self._suspects(moment, mature_end),
        )

    def _suspects(self, moment: Moment, mature_end: datetime) -> pd.DataFrame | None:
        """As tasks.steps.monitor reads them."""
        span = doubted_span(read_complaints([decision.to_dict() for decision in self.decisions[-1:]]), mature_end)
        if span is None:
            return None
        rows = moment.between(*span)
        rows = rows[sample_ids(self.past.frame[ROW_ID].iloc[rows], FEATURE_ROWS)]
        return (
            self.past.frame.iloc[rows]
            .assign(_score=score_column(self.score_log[rows]).to_numpy())
            .reset_index(drop=True)
        )

    def _features_of(self, rows: Positions) -> pd.DataFrame | None:
        if self.definition.task == "classification" or not len(rows):
            return None
        frame = self.past.frame.iloc[rows]
        return frame.iloc[sample_ids(frame[ROW_ID], FEATURE_ROWS)]

    def _predicted(self, rows: Positions) -> Positions:
        return rows[self.version_log[rows] > 0]

    def _log(self, rows: Positions) -> pd.DataFrame:
        return log_frame(self.past, rows, {name: values[rows] for name, values in self._logs().items()})

    def _logs(self) -> dict[str, Any]:
        return {"score": self.score_log, "version": self.version_log, "raw_score": self.raw_log}

    def _own_answers(self, rows: Positions) -> pd.DataFrame:
        """The log, as tasks.steps.monitor.champion_answers makes it."""
        champion = self.champion
        foreign = self._unseen(rows) & ~np.isin(self.version_log[rows], self._own_versions())
        if not foreign.any():
            return self._log(rows)
        logs = {name: values[rows] for name, values in self._logs().items()}  # copies
        logs["score"][foreign], logs["raw_score"][foreign] = champion.answer(rows[foreign])
        logs["version"][foreign] = champion.number
        return log_frame(self.past, rows, logs)

    def _count(self, moment: Moment, rows: Positions) -> tuple[int, int]:
        """The rows that can judge the champion, and how many of them have their truth."""
        own = rows[self._unseen(rows) | np.isin(self.version_log[rows], self._own_versions())]
        return len(own), int(np.isfinite(moment.truth[own]).sum())

    def _unseen(self, rows: Positions) -> NDArray[np.bool_]:
        """Which of them are later than what the champion has learned from."""
        later: NDArray[np.bool_] = self.past.times[rows] > micros(self.champion.fit.trained_until)
        return later

    def _own_versions(self) -> list[int]:
        return [number for number, base in self.bases.items() if base == self.champion.base]

    def _end_probation(self, moment: Moment) -> None:
        """What tasks.steps.trial.probation does live: a newcomer that is surely worse than its shadow goes."""
        champion, length = self.champion, probation_length(self.definition)
        new_map = champion.former is not None and champion.former.base == champion.base
        if champion.former is not None and new_map and moment.as_of - champion.since <= length:
            rows = moment.between(champion.since, moment.as_of)
            rows = rows[(self.version_log[rows] == champion.number) & np.isfinite(moment.truth[rows])]
            shadowed = self._log(rows).assign(
                truth=moment.truth[rows], shadow=score_column(champion.former.answer(rows)[0])
            )
            if self._rolled_back(moment, shadowed, champion.former, champion.decision_id):
                return
        if champion.beaten is None or champion.crowned is None or moment.as_of - champion.crowned > length:
            return
        both = self._both(moment, champion, champion.beaten)
        last = is_last_look(self.definition, champion.crowned, moment.as_of)
        self._rolled_back(moment, both, champion.beaten, champion.crowned_by, last=last)

    def _rolled_back(
        self, moment: Moment, rows: pd.DataFrame, former: Champion, decision_id: str | None, *, last: bool = False
    ) -> bool:
        """Whether the champion was surely worse than the one before, which is champion again then."""
        newcomer = self.champion
        bout = Bout.of(self.definition, maps_alone=former.base == newcomer.base)
        report = judge_newcomer(rows, bout, version=newcomer.number, former=former.number, last=last)
        if report.verdict != "roll back":
            return False
        # Whoever was rolled back to is new to nobody.
        self.champion = former
        self.ledger.append(
            rollback_row(
                decision_id, moment.as_of, version=newcomer.number, former=former.number, reason=report.reason
            )
        )  # fmt: skip
        self.actions.append(Action(moment.as_of, "roll back", "", report.reason))
        return True

    def _both(
        self, moment: Moment, newcomer: Champion, former: Champion, until: datetime | None = None
    ) -> pd.DataFrame:
        """As tasks.steps.trial.shadow.rows_of_both."""
        learned = max(newcomer.fit.trained_until, former.fit.trained_until) + timedelta(microseconds=1)
        end = moment.as_of - self.definition.data.label_delay
        end = max(learned, end if until is None else min(end, until))
        rows = moment.between(learned, end)
        rows = rows[np.isfinite(moment.truth[rows])]
        found = {"truth": moment.truth[rows], "score": newcomer.fit.on(rows), "shadow": former.fit.on(rows)}
        both = log_frame(self.past, rows, found)
        standing = read_complaints([decision.to_dict() for decision in self.decisions[-1:]])
        return both[~is_refused(both["time"], standing)].reset_index(drop=True)

    def _settle(self, moment: Moment) -> None:
        """What tasks.steps.trial.waiting does live: a challenger in doubt is looked at again."""
        if self.waiting is None:
            return
        challenger, decision = self.waiting
        report = judge_waiting(
            self._both(moment, challenger, self.champion),
            Bout.of(self.definition, prior=warning(read_history(self.ledger, moment.as_of))),
            version=challenger.number, former=self.champion.number,
            time_is_up=moment.as_of - decision.as_of > waiting_length(self.definition),
        )  # fmt: skip
        if report.verdict not in ("promote", "give up"):
            return
        won = report.verdict == "promote"
        self.ledger.append(
            settlement_row(
                decision.decision_id, moment.as_of, "promote" if won else "keep",
                version=challenger.number, former=self.champion.number, reason=report.reason,
            )
        )  # fmt: skip
        self.actions.append(Action(moment.as_of, "settle", "promote" if won else "keep", report.reason))
        self.waiting = None
        if won:
            self._crown(challenger, self.champion, moment.as_of, decision.decision_id)

    def _crown(self, newcomer: Champion, beaten: Champion | None, as_of: datetime, decision_id: str | None) -> None:
        self.champion, self.waiting = newcomer.crown(beaten, as_of, decision_id), None
        if beaten is not None:
            self.crowned.append(self.champion)

    def _realise(self, moment: Moment) -> None:
        """What tasks.steps.trial.realise does live: what a promotion brought is written down after its probation."""
        length = probation_length(self.definition)
        for newcomer in list(self.crowned):
            if newcomer.beaten is None or newcomer.since + length >= moment.as_of:
                continue
            self.crowned.remove(newcomer)
            former = newcomer.beaten
            rows = self._both(moment, newcomer, former, newcomer.since + length)
            report = judge_newcomer(rows, Bout.of(self.definition), version=newcomer.number, former=former.number)
            if report.interval is None:
                continue
            low, high = (report.interval.low, report.interval.high) if report.interval.known else (None, None)
            self.ledger.append(
                realised_row(
                    newcomer.decision_id, moment.as_of, version=newcomer.number, former=former.number,
                    gain=report.interval.estimate, low=low, high=high, rows=report.rows,
                )
            )  # fmt: skip

    def _retrain(self, moment: Moment, decision: Decision) -> None:
        moment = moment.without(read_complaints([decision.to_dict()]))
        try:
            prepared = self.trainings.prepare(moment, self.definition, self.champion.fit.trained_until)
            report = self._promote(moment, prepared, self.champion, len(self.bases) + 1, decision)
        except DataError as error:  # live the run fails, and the champion stays
            self.actions.append(Action(moment.as_of, "retrain", "failed", decision.reasons[0], str(error)))
            return
        self.ledger.append(training_outcome(prepared, report, decision.decision_id))
        self.actions.append(_acted("retrain", decision, report))

    def _promote(
        self, moment: Moment, prepared: Prepared, champion: Champion | None, number: int, decision: Decision | None
    ) -> GateReport:
        """Train a challenger, let the gate judge it, and put its twin in the champion's place, or let it wait.

        The first one goes in though the gate refuses it.
        """
        challenger = self.trainings.challenger(moment, prepared)
        self.cpu_seconds += challenger.cpu_seconds
        started = self.trainings.clock()
        measured = self.trainings.measured(moment, prepared, challenger.value)
        judged = judge_measured(
            prepared,
            measured,
            champion_score=champion.judged(moment.labelled[prepared.split.holdout], prepared) if champion else None,
            champion_until=champion.fit.trained_until if champion else None,
            prior=warning(read_history(self.ledger, moment.as_of)),
            every_metric=False,
        )
        self.cpu_seconds += self.trainings.clock() - started
        self.bases[number] = number
        verdict = judged.report.verdict
        if verdict in ("promote", "wait") or champion is None:
            final = self.trainings.final(moment, prepared)
            reference = self.trainings.reference(moment, prepared, judged)
            self.cpu_seconds += final.cpu_seconds + reference.cpu_seconds
            holdout = judged_rows(training_sample(prepared, judged), self.definition.data.target)
            newcomer = Champion(number, number, final.value, reference.value, holdout, moment.as_of)
            if verdict == "wait" and champion is not None and decision is not None:
                self.waiting = (newcomer, decision)
            else:
                self._crown(newcomer, champion, moment.as_of, decision.decision_id if decision else None)
        elif decision is not None:
            self.waiting = None  # a newer training's outcome takes its place
        return judged.report

    def _recalibrate(self, moment: Moment, decision: Decision, inputs: CheckInputs) -> None:
        started = self.trainings.clock()
        try:
            found, rows, court = cross_fitted_map(inputs, self.definition, moment.as_of)
        except DataError as error:
            self.actions.append(Action(moment.as_of, "recalibrate", "failed", decision.reasons[0], str(error)))
            return
        report = judge_mapped(rows, court, every_metric=False)
        tried = recalibration_row(
            decision.decision_id, moment.as_of, report.verdict, champion_version=str(self.champion.number)
        )
        self.ledger.append(tried)
        number = len(self.bases) + 1
        self.bases[number] = self.champion.base
        if report.verdict == "promote":
            reigned = ReignedMap(rows["time"].max().to_pydatetime(), found)
            self.champion = self.champion.mapped(reigned, number, decision)
        self.cpu_seconds += self.trainings.clock() - started
        self.actions.append(_acted("recalibrate", decision, report))


def _acted(verdict: str, decision: Decision, report: GateReport) -> Action:
    told = report.reasons[0] if report.reasons else ""
    return Action(decision.as_of, verdict, report.verdict, decision.reasons[0], told)
