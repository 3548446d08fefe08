"""Two models on later rows, looked at again and again: a newcomer on probation, or a challenger that waits.

Every check looks again, and a look at a fixed confidence errs anew each time: of harmless newcomers, many would be
rolled back by one of them. So each look has the confidence that a boundary valid at all times together gives it: the
one-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon ("Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 2021), for means whose variance is estimated as in Waudby-Smith, Arbour,
Sinha, Kennedy and Ramdas ("Time-uniform central limit theory and asymptotic confidence sequences", Annals of
Statistics 2024), with a day as the unit of time. It needs no record of earlier looks.

Pure: no I/O. Which rows are looked at is `tasks.steps.trial.shadow`'s.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from perennial.definition import GatePolicy, ModelDefinition
from perennial.model.scores import score_array
from tasks.calibration.fit import Task, carried_strength, fair_answers
from tasks.gate.evidence import bad_scores
from tasks.measures.bootstrap import Interval, is_ahead, loss_value, paired_improvement
from tasks.measures.propensity import effective_rows

MODEL_PROMOTIONS = ("promote", "approve")
# Who ends a probation, or a wait, in the history: a check, before it judges.
PROBATION, EVIDENCE = "probation", "evidence"


_ROUNDING = 1e-6
_TIGHTEST_DAYS = 14  # where the boundary is closest: the middle of an ordinary probation


# A newcomer whose loss is greater by this share of the former's goes on the word of rows.
RUIN = 0.5
PROBATION_WINDOWS, _LEAST_PROBATION = 4, timedelta(days=28)


@dataclass(frozen=True)
class Bout:
    """How two models compare on later rows, and by whose rules.

    Attributes:
        metric, task, seed: The gate's.
        strength: Of the maps behind which both are judged; None compares what they answer as it is.
        prior: As in `tasks.gate.evidence.Evidence`.
    """

    policy: GatePolicy
    task: Task
    metric: str
    seed: int
    strength: float | None
    prior: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, definition: ModelDefinition, *, maps_alone: bool = False, prior: tuple[float, float] | None = None
    ) -> Bout:
        """As a definition says it.

        Args:
            prior: As in `tasks.gate.evidence.Evidence`.
            maps_alone: The two differ by nothing but the map of their score, which is then what is judged.
        """
        monitoring = definition.monitoring
        strength = carried_strength(monitoring, definition.data.label_delay)
        if maps_alone or not monitoring.recalibrate:
            return cls(definition.gate, definition.task, definition.loss, definition.training.seed, None)
        seed = definition.training.seed
        return cls(definition.gate, definition.task, definition.loss, seed, strength, prior)

    def interval(self, rows: pd.DataFrame, confidence: float, *, by_rows: bool = False) -> Interval:
        """The newcomer's improvement, as a share of the other's loss, by blocks of days.

        Args:
            rows: time, truth, score (the newcomer's) and shadow (the other's), in order of time; `weight`, for how
                many each stands, where these are not alike.
            by_rows: As if the rows of a day had nothing in common.
        """
        weights = _weights(rows)
        truth = rows["truth"].to_numpy(dtype=np.float64)
        ours, theirs = (score_array(rows[name]) for name in ("score", "shadow"))
        if self.strength is not None and not (bad_scores(ours, self.task) or bad_scores(theirs, self.task)):
            ours, theirs = (fair_answers(truth, each, self.task, self.strength) for each in (ours, theirs))
        days = rows["time"].dt.floor("D").astype("int64").to_numpy()
        blocks = np.arange(len(rows)) if by_rows else days
        found = paired_improvement(
            self.metric, truth, ours, theirs,
            blocks=blocks, weights=weights, confidence=confidence, resamples=self.policy.resamples, seed=self.seed,
        )  # fmt: skip
        scale = loss_value(self.metric, truth, theirs, weights)
        by = scale if math.isfinite(scale) and scale > 0 else 1.0
        return replace(found, estimate=found.estimate / by, low=found.low / by, high=found.high / by)


@dataclass(frozen=True)
class ProbationReport:
    """What later rows say of a newcomer, or of a challenger that waits.

    Attributes:
        verdict: Of a newcomer: `roll back` when it is surely worse, `stay` when it is not. Of one that waits:
            `promote`, `give up` when it is surely not better, or has waited long enough, else `wait`. `too early`
            without enough rows.
        version, former: Who is judged, and the champion that it is judged by.
        rows: Rows that both have answered, that neither has learned from, and whose truth is known.
        interval: Of the improvement, as a share of the former's loss; None without rows.
        reason: A sentence with the numbers.
    """

    verdict: Literal["stay", "roll back", "promote", "give up", "wait", "too early"]
    version: int
    former: int
    rows: int
    interval: Interval | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def look_confidence(days: int, error: float) -> float:
    """The two-sided confidence of a look after so many days of labelled rows.

    Args:
        days: At least 1.
        error: The chance that a newcomer which is no worse is rolled back by any of the looks, however many there are.
    """
    from scipy import stats

    scale = _TIGHTEST_DAYS / (-2 * math.log(2 * error) + math.log(1 - 2 * math.log(2 * error)))
    mixture = math.log(1 + math.sqrt(1 + days / scale) / (2 * error))
    return 1 - 2 * float(stats.norm.sf(math.sqrt(2 * (1 + scale / days) * mixture)))


def probation_length(definition: ModelDefinition) -> timedelta:
    """How long after a promotion rows are looked at: labels that come late lengthen it."""
    own = definition.gate.probation
    length = max(_LEAST_PROBATION, PROBATION_WINDOWS * definition.monitoring.window) if own is None else own
    return length + definition.data.label_delay


def is_last_look(definition: ModelDefinition, since: datetime, as_of: datetime) -> bool:
    """Whether a probation that began at `since` is over a window from now."""
    return as_of + definition.monitoring.window > since + probation_length(definition)


def waiting_length(definition: ModelDefinition) -> timedelta:
    """How long a challenger waits, at most: labels that come late lengthen it."""
    return definition.gate.wait_windows * definition.monitoring.window + definition.data.label_delay


def judge_newcomer(rows: pd.DataFrame, bout: Bout, *, version: int, former: int, last: bool = False) -> ProbationReport:
    """Compare a newcomer with the champion before it on the same mature rows.

    A newcomer that is no worse is rolled back with a chance of 1 - `policy.confidence` at the most in its whole
    probation, however often it is looked at. At the end the burden of proof turns round: who is behind then goes,
    however surely. So a challenger may go in on little evidence, and none stays for good that has not been ahead. One
    whose loss is greater by half goes as soon as its rows say so, before its days could.

    Args:
        rows: time, truth, score (the newcomer's) and shadow (the former champion's); any order.
        last: Whether the probation ends before the next look.
    """
    found = _look(rows, bout, version, former, "reigns")
    if found.verdict == "too early" or found.interval is None:
        return found
    if found.interval.high < 0:
        return replace(found, verdict="roll back", reason=f"{found.reason}: it is surely worse")
    if found.interval.estimate < -RUIN and _is_ruin(rows, bout):
        return replace(found, verdict="roll back", reason=f"{found.reason}: so much worse that no more days are needed")
    if last and found.interval.estimate < 0:
        return replace(found, verdict="roll back", reason=f"{found.reason}: it is behind at the end of its probation")
    return replace(found, verdict="stay")


def judge_waiting(rows: pd.DataFrame, bout: Bout, *, version: int, former: int, time_is_up: bool) -> ProbationReport:
    """Look again at a challenger that the gate left in doubt, on rows since its training.

    It wins when it is ahead: as at the gate, who is ahead goes in on probation. It is given up when it is surely not
    better, whatever later looks would say, or when its time is up.

    Args:
        rows: time, truth, score (the challenger's) and shadow (the champion's); any order.
    """
    found = _look(rows, bout, version, former, "waits")
    if found.verdict != "too early" and found.interval is not None:
        if found.interval.high < 0:
            return replace(found, verdict="give up", reason=f"{found.reason}: it is surely worse")
        if is_ahead(found.interval, bout.prior):
            return replace(found, verdict="promote", reason=f"{found.reason}: it is ahead, and goes in on probation")
    if time_is_up:
        return replace(found, verdict="give up", reason=f"{found.reason}: it has waited long enough")
    return replace(found, verdict="wait")


def _is_ruin(rows: pd.DataFrame, bout: Bout) -> bool:
    """Whether a newcomer's loss is surely greater by RUIN, taking each row for itself.

    An interval by days needs a week of them to be narrow, and a day of a ruinous model costs more than many of a good
    one bring. Two days are enough; one may be a world of its own.
    """
    rows = rows.sort_values("time", kind="stable")
    return bout.interval(rows, look_confidence(1, 1 - bout.policy.confidence), by_rows=True).high < -RUIN


def _weights(rows: pd.DataFrame) -> np.ndarray:
    return rows["weight"].to_numpy(dtype=np.float64) if "weight" in rows.columns else np.ones(len(rows))


def _look(rows: pd.DataFrame, bout: Bout, version: int, former: int, does: str) -> ProbationReport:
    rows = rows.sort_values("time", kind="stable")
    policy = bout.policy
    if effective_rows(_weights(rows)) < policy.minimum_rows - _ROUNDING:
        reason = f"{len(rows)} rows have their truth since version {version} {does}, {policy.minimum_rows} are needed"
        return ProbationReport("too early", version, former, len(rows), None, reason)
    days = rows["time"].dt.floor("D").nunique()
    found = bout.interval(rows, look_confidence(days, 1 - policy.confidence))
    told = f"on {len(rows)} rows version {version} improves {bout.metric} over version {former} by {found.estimate:.1%}"
    if not found.known:
        return ProbationReport("too early", version, former, len(rows), found, f"{told}, without an interval yet")
    told += f" ({found.low:.1%} to {found.high:.1%}, with {policy.confidence:.0%} sure over all looks together)"
    return ProbationReport("stay", version, former, len(rows), found, told)
