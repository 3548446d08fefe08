"""The evaluation gate: what is let through, on evidence. Pure: scores, a policy and a seed to a report; no I/O.

The rule for the metric, on rows that neither model trained on: with D the challenger's improvement over the champion
and its two-sided interval from a paired block bootstrap, promote when D > 0 and the interval's low end lies above
minus the margin. That is a non-inferiority test (one-sided level (1 - confidence) / 2) that must also come out ahead,
so that promotions don't add up to a decline. A challenger truly worse by the margin passes with a nominal chance of
(1 - confidence) / 2 at the most, whatever the noise; `benchmarks/gate.py` measures it.

Small holdouts leave most good challengers in doubt. `doubt: wait`, the default, lets in who is ahead, on probation, and
has who is not looked at again on later rows (`tasks.gate.probation`). `doubt: promote` lets in whoever is not surely
worse than the champion and the baseline. In both, what guards the champion's place is the probation after the promotion
(`tasks.steps.trial.probation`). Every other check stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from perennial.definition import GatePolicy, Limit
from perennial.errors import DataError
from perennial.model.scores import is_many
from tasks.gate.evidence import ALLOW_LEAKAGE, Evidence, bad_scores, budget_checks, integrity_checks, unusable_scores
from tasks.gate.report import Check, GateReport, Verdict, interval_text, number
from tasks.measures.bootstrap import Interval, block_codes, is_ahead, loss_value, paired_improvement
from tasks.measures.leakage import LEAST_ROWS
from tasks.measures.metrics import FloatArray, Task, as_loss, checked, iterate_slices, metric_names, metric_table

_TIE = 1e-12


_CALIBRATION = "calibration_error"


_SQUARED = frozenset({"mse", "r2"})  # judged by their root, in the target's own unit


_DOUBT = "That is in doubt, and gate.doubt lets it in, on probation."


_WAITS = "That is in doubt: it waits, and is looked at again on rows that neither has seen."


# What later looks settle: they compare, and ask for no limit, slice or leak again.
_SETTLED_LATER = frozenset({"better_than_champion", "better_than_baseline"})


_LOOK = "Look for leakage: a feature that knows the target, or rows that were trained on."


def judge(
    evidence: Evidence, policy: GatePolicy, *, task: Task, metric: str, seed: int = 0, every_metric: bool = True
) -> GateReport:
    """The verdict on a challenger, with every check's value, limit and interval.

    - *keep*: a blocking check failed;
    - *wait*: none failed, and the comparison alone is in doubt, and `policy.doubt` is `wait`;
    - *insufficient evidence*: the same otherwise, or of a first model: too few rows, one class, a wide interval;
    - *promote*: every blocking check passed.

    A champion that fails an absolute limit, is no better than the baseline or scores with NaN must not block for ever:
    then limits, baseline and slices are told but don't block, the better of the two wins, and the report asks for an
    alert. That the challenger's own score is worse calibrated is told and never blocks: its map comes with its labels.

    Args:
        evidence: Scores and measurements.
        policy: The definition's.
        task: What kind of scores.
        metric: The one to compare, `definition.loss`.
        seed: Of the resampling.
        every_metric: Whether the report tells all of the task's metrics, or those alone by which it judges: most of
            the cost of a verdict that nobody reads.

    Raises:
        DataError: The truth, baseline or weights are unusable, or lengths differ. Unusable scores of a model are no
            error but a failed check.
    """
    told = metric_names(task) if every_metric else _deciding(policy, task, metric)
    court = _Court.prepare(evidence, policy, task, metric, seed, told)
    facts = [*integrity_checks(evidence, policy), *([] if evidence.same_model else budget_checks(evidence, policy))]
    if court is None:
        return _report([*facts, unusable_scores(evidence, task)], task, metric, 0, 0)
    waived = court.champion_fails()
    baseline = replace(court.beats_baseline(), blocking=not evidence.same_model and not waived)
    statistics = [court.beats_champion(), baseline, *court.plausible()]
    relative = [*court.limits(), *court.calibrated(), *court.slice_checks()]
    if waived:
        relative = [replace(check, blocking=False) for check in relative]
    enough = [court.enough_rows(), *court.both_classes()]
    judged = [check for check in (*statistics, *relative, court.varies()) if check is not None]
    if not all(check.passed for check in enough):
        judged = [replace(check, passed=None) for check in judged]
    checks = [*enough, *judged, *facts]
    waits = policy.doubt == "wait" and evidence.champion is not None
    return _report(checks, task, metric, court.rows, court.blocks, court.metrics, waived, waits=waits)


@dataclass(frozen=True)
class _Court:
    """The usable scores with their losses: what the statistical checks need."""

    policy: GatePolicy
    task: Task
    metric: str
    seed: int
    truth: FloatArray
    weights: FloatArray
    codes: npt.NDArray[np.intp]
    challenger: FloatArray
    champion: FloatArray | None
    champion_broken: bool
    baseline: FloatArray
    slices: Mapping[str, npt.ArrayLike]
    metrics: dict[str, dict[str, float]]
    unmapped: tuple[FloatArray, FloatArray] | None
    prior: tuple[float, float] | None

    @classmethod
    def prepare(
        cls, evidence: Evidence, policy: GatePolicy, task: Task, metric: str, seed: int, told: Sequence[str]
    ) -> _Court | None:
        """None when the challenger's scores are unusable."""
        truth, baseline, weights = checked(task, evidence.truth, evidence.baseline, evidence.weights)
        challenger = np.asarray(evidence.challenger, dtype=np.float64)
        champion = None if evidence.champion is None else np.asarray(evidence.champion, dtype=np.float64)
        for name, scores in (("challenger", challenger), ("champion", champion)):
            if scores is not None and scores.shape != baseline.shape:
                raise DataError(f"{name} has scores of shape {scores.shape} for {len(truth)} rows", "Score every row")
        for column, values in evidence.slices.items():
            if len(np.asarray(values)) != len(truth):
                raise DataError(f"slice {column} does not have {len(truth)} values", "Give one value for every row")
        codes = block_codes(len(truth), evidence.blocks)
        if bad_scores(challenger, task):
            return None
        broken = champion is not None and bad_scores(champion, task) > 0
        champion = None if broken else champion
        tables = {"challenger": challenger, "champion": champion, "baseline": baseline}
        metrics = {
            name: metric_table(task, truth, scores, weights, told)
            for name, scores in tables.items()
            if scores is not None
        }
        own = evidence.unmapped and tuple(np.asarray(each, dtype=np.float64) for each in evidence.unmapped)
        return cls(
            policy, task, metric, seed, truth, weights, codes, challenger, champion, broken, baseline, evidence.slices,
            metrics, own, evidence.prior,  # type: ignore[arg-type]
        )  # fmt: skip

    @property
    def rows(self) -> int:
        return int(np.count_nonzero(self.weights))

    @property
    def blocks(self) -> int:
        return len(np.unique(self.codes[self.weights > 0]))

    def loss(self, model: str) -> float:
        return as_loss(self.metric, self.metrics[model][self.metric])

    def compare(
        self, reference: FloatArray, metric: str, confidence: float, rows: npt.NDArray[np.bool_] | None = None
    ) -> Interval:
        kept = np.ones(len(self.truth), dtype=bool) if rows is None else rows
        return paired_improvement(
            metric,
            self.truth[kept],
            self.challenger[kept],
            reference[kept],
            blocks=self.codes[kept],
            weights=self.weights[kept],
            confidence=confidence,
            resamples=self.policy.resamples,
            seed=self.seed,
        )

    def enough_rows(self) -> Check:
        total = float(self.weights.sum())
        worth = int(total**2 / float((self.weights**2).sum()) + 1e-9) if total > 0 else 0
        enough = worth >= self.policy.minimum_rows
        says = f"The holdout has {worth:,} rows (weights counted), {self.policy.minimum_rows:,} are needed."
        limit = self.policy.minimum_rows
        return Check("rows", True if enough else None, worth, limit, unit="rows", rows=self.rows, detail=says)

    @property
    def rarer(self) -> int:
        """Rows of the rarer class, of many all but the most frequent one's; for regression, all rows."""
        counted = self.truth[self.weights > 0]
        if self.task != "classification":
            return len(counted)
        return len(counted) - int(np.bincount(counted.astype(np.int64), minlength=2).max())

    def both_classes(self) -> list[Check]:
        if self.task != "classification":
            return []
        rarer = self.rarer
        says = f"The rarer class has {rarer:,} rows in the holdout."
        if is_many(self.baseline):
            says = f"{rarer:,} rows of the holdout are of another class than the most frequent one."
        return [Check("classes", True if rarer else None, rarer, 1, unit="rows", rows=self.rows, detail=says)]

    def varies(self) -> Check:
        spread = float(np.ptp(self.challenger, axis=0).max()) if self.rows else 0.0
        if self.rows < 2:
            return Check("varying_scores", None, spread, detail="Fewer than two rows show no variation.")
        says = f"The challenger's scores spread over {number(spread)}."
        if spread == 0:
            says = "The challenger predicts the same for every row: it has learned nothing."
        return Check("varying_scores", spread > 0, spread, rows=self.rows, detail=says)

    def champion_fails(self) -> tuple[str, ...]:
        """Which absolute limits the champion itself breaks, in words; to be no better than the baseline is one."""
        if self.champion_broken:
            return ("the champion's scores are missing, infinite or no probabilities",)
        if self.champion is None:
            return ()
        broken = [check for check in self._limit_checks("champion") if check.passed is False]
        found = [f"the champion's {check.name} is {number(check.value)}" for check in broken]
        if self.loss("champion") >= self.loss("baseline"):
            found.append("the champion is no better than the baseline")
        return tuple(found)

    def beats_champion(self) -> Check | None:
        if self.champion is None:
            return None
        interval, scale = self._relative(self.champion, "champion")
        passed, says = _not_worse(interval, self.policy.margin)
        if passed is not True and self._lets_in(interval):
            passed, says = True, f"{says} {_DOUBT}"
        elif passed is not True and self._waits(interval):
            if interval.estimate > 0 and self.prior is not None:
                says += f" Promotions of this model have brought {self.prior[0]:.1%}: so little is not enough."
            passed, says = None, f"{says} {_WAITS}"
        says = f"{self._compared('champion', interval)} {says}"
        if np.array_equal(self.challenger, self.champion):
            passed, says = False, "The challenger predicts exactly what the champion does: it brings nothing."
        elif math.isfinite(interval.estimate) and abs(interval.estimate) <= _TIE * max(scale, 1.0):
            passed, says = False, f"Challenger and champion have the same {self.metric}: it brings nothing."
        return Check(
            "better_than_champion", passed, interval.estimate, -self.policy.margin, "min", "relative", interval,
            self.rows, says,
        )  # fmt: skip

    def beats_baseline(self) -> Check:
        """By its interval; by the estimate alone where there is a champion to be better than."""
        interval, _ = self._relative(self.baseline, "baseline")
        ahead = interval.estimate > 0
        passed: bool | None = ahead if math.isfinite(interval.estimate) else None
        says = self._compared("baseline", interval)
        if self.champion is None:
            passed = None if passed is None or (ahead and not interval.low > 0) else passed
            says += " Its interval must lie above zero." if ahead and passed is None else ""
        elif passed is False and (self._lets_in(interval) or self._waits(interval)):
            passed, says = (True, f"{says} {_DOUBT}") if self._lets_in(interval) else (None, f"{says} {_WAITS}")
        return Check(
            "better_than_baseline", passed, interval.estimate, 0.0, "min", "relative", interval, self.rows, says
        )

    def _lets_in(self, doubted: Interval) -> bool:
        """Whether the policy gives a challenger the benefit of a doubt: it may be better for all that is known.

        Never without a champion to go on in the shadow, by which probation could judge.
        """
        if self.champion is None or not doubted.known or not doubted.high > 0:
            return False
        return self.policy.doubt == "promote" or (self.policy.doubt == "wait" and is_ahead(doubted, self.prior))

    def _waits(self, doubted: Interval) -> bool:
        """Whether later rows may still show that the challenger is better."""
        return self.policy.doubt == "wait" and self.champion is not None and not doubted.high <= 0

    def plausible(self) -> list[Check]:
        """A leap that honest retraining does not make needs a person's look before it is believed."""
        checks = [self._separates()]
        if self.champion is None:
            return checks
        root = 0.5 if self.metric in _SQUARED else 1.0
        own, known = self.loss("challenger") ** root, min(self.loss("baseline"), self.loss("champion")) ** root
        limit = self.policy.implausible_share
        if not (math.isfinite(own) and math.isfinite(known)):
            says = f"{self.metric} is undefined on these rows."
            return [*checks, Check("plausible_loss", None, None, limit, detail=says)]
        left = own / known if known > 0 else 1.0
        passed = left >= limit or self._champion_separates()
        says = f"{number(100 * left)} % of the loss is left beside the better of champion and baseline."
        if not passed:
            says = f"Too good to be true: only {says} {_LOOK} If it is real, lower gate.implausible_share."
        return [*checks, Check("plausible_loss", passed, left, limit, rows=self.rows, detail=says)]

    def _separates(self) -> Check:
        """Scores that tell the truth without fault, where the champion's don't."""
        value, limit = self._separation("challenger"), self.policy.leakage_separation
        if limit is None or not math.isfinite(value) or self.rarer < LEAST_ROWS:
            says = "Not asked." if limit is None else "Too few rows of a class to tell."
            return Check("plausible_separation", None, None, limit, "max", detail=says, blocking=False)
        passed = value < limit or self._champion_separates()
        says = f"The scores tell the truth with {number(value)}."
        if not passed:
            says = f"Too good to be true: the scores tell the truth with {number(value)}. {_LOOK} {ALLOW_LEAKAGE}"
        return Check("plausible_separation", passed, value, limit, "max", rows=self.rows, detail=says)

    def _champion_separates(self) -> bool:
        """Whether perfect scores are no leap: the champion's miss at most ten times as much as the limit allows."""
        limit = self.policy.leakage_separation
        return self.champion is not None and limit is not None and self._separation("champion") >= 1 - 10 * (1 - limit)

    def _separation(self, model: str) -> float:
        return self.metrics[model][_separation_metric(self.task)]

    def limits(self) -> list[Check]:
        return self._limit_checks("challenger")

    def _limit_checks(self, model: str) -> list[Check]:
        checks = []
        for metric, limit in _bounds(self.policy, self.task).items():
            value = self.metrics[model][metric]
            for bound, at in (("min", limit.min), ("max", limit.max)):
                if at is not None:
                    within = (value >= at if bound == "min" else value <= at) if math.isfinite(value) else None
                    sign = "at least" if bound == "min" else "at most"
                    says = f"{metric} is {number(value)}, {sign} {number(at)} is asked."
                    checks.append(Check(f"limit:{metric}", within, value, at, bound, "", None, self.rows, says))  # type: ignore[arg-type]
        return checks

    def calibrated(self) -> list[Check]:
        """Told of the models' own scores. Beside an absolute limit it is not asked: with one, the limit decides."""
        if self.champion is None or self.task != "classification" or self.policy.calibration_error is not None:
            return []
        own = (self.challenger, self.champion) if self.unmapped is None else self.unmapped
        interval = paired_improvement(
            _CALIBRATION, self.truth, *own, blocks=self.codes, weights=self.weights,
            confidence=self.policy.confidence, resamples=self.policy.resamples, seed=self.seed,
        )  # fmt: skip
        worse = interval.estimate < -self.policy.calibration_margin and interval.high < 0
        ours, theirs = (loss_value(_CALIBRATION, self.truth, each, self.weights) for each in own)
        says = f"The calibration error of the challenger's own score is {number(ours)}, the champion's {number(theirs)}"
        says += ": its map comes with its first labels." if worse else "."
        limit = -self.policy.calibration_margin
        passed = None if not math.isfinite(interval.estimate) else not worse
        return [
            Check("calibration", passed, interval.estimate, limit, "min", "", interval, self.rows, says, blocking=False)
        ]

    def slice_checks(self) -> list[Check]:
        """Bonferroni over the slices that are judged: the chance of one false alarm in all is 1 - confidence."""
        if self.champion is None:
            return []
        found = [
            (f"slice:{column}={value}", mask & (self.weights > 0))
            for column, value, mask in iterate_slices(self.slices)
        ]
        judged = [(name, rows) for name, rows in found if rows.sum() >= self.policy.slice_minimum_rows]
        checks = [self._slice(self.champion, name, rows, len(judged)) for name, rows in judged]
        if small := len(found) - len(judged):
            says = f"{small} slices have fewer than {self.policy.slice_minimum_rows} rows and are not judged."
            checks.append(Check("small_slices", None, small, detail=says, blocking=False))
        return checks

    def _slice(self, champion: FloatArray, name: str, rows: npt.NDArray[np.bool_], count: int) -> Check:
        confidence = 1 - (1 - self.policy.confidence) / count
        scale = loss_value(self.metric, self.truth[rows], champion[rows], self.weights[rows])
        interval = _scaled(self.compare(champion, self.metric, confidence, rows), scale)
        worse = interval.estimate < -self.policy.slice_margin and interval.high < 0
        passed = not worse if math.isfinite(interval.estimate) else None
        says = f"{name.removeprefix('slice:')}: {number(interval.estimate, 'relative')} beside the champion"
        says += f", surely worse, and by more than {number(100 * self.policy.slice_margin)} %." if worse else "."
        limit, blocking = -self.policy.slice_margin, passed is not None
        return Check(
            name, passed, interval.estimate, limit, "min", "relative", interval, int(rows.sum()), says, blocking
        )

    def _relative(self, reference: FloatArray, model: str) -> tuple[Interval, float]:
        scale = self.loss(model)
        return _scaled(self.compare(reference, self.metric, self.policy.confidence), scale), scale

    def _compared(self, model: str, interval: Interval) -> str:
        ours, theirs = (self.metrics[name][self.metric] for name in ("challenger", model))
        says = f"{self.metric} is {number(ours)}, the {model}'s {number(theirs)}, on the same {self.rows:,} rows"
        if not math.isfinite(interval.estimate):
            return f"{says}."
        says += f": an improvement of {number(interval.estimate, 'relative')}"
        if not interval.known:
            return f"{says}, with no interval ({interval.method})."
        shown = interval_text(Check("", None, unit="relative", interval=interval))
        return f"{says} ({number(100 * interval.confidence)} % interval {shown})."


def _deciding(policy: GatePolicy, task: Task, metric: str) -> list[str]:
    """The metrics that the checks look at, in the order in which they are told."""
    asked = {metric, _separation_metric(task), *_bounds(policy, task)}
    return [name for name in metric_names(task) if name in asked]


def _separation_metric(task: Task) -> str:
    return "roc_auc" if task == "classification" else "r2"


def _bounds(policy: GatePolicy, task: Task) -> dict[str, Limit]:
    bounds: dict[str, Limit] = dict(policy.limits)
    if task == "classification" and policy.calibration_error is not None:
        bounds[_CALIBRATION] = Limit(max=policy.calibration_error)
    return bounds


def _scaled(interval: Interval, scale: float) -> Interval:
    """In shares of the reference's loss; in the metric's unit where that loss is zero."""
    by = scale if math.isfinite(scale) and scale > 0 else 1.0
    return replace(interval, estimate=interval.estimate / by, low=interval.low / by, high=interval.high / by)


def _not_worse(interval: Interval, margin: float) -> tuple[bool | None, str]:
    if not interval.known:
        return None, "Nothing can be said."
    ahead, safe = interval.estimate > 0, interval.low > -margin
    if ahead and safe:
        return True, f"Ahead, and surely not worse by the margin of {number(100 * margin)} %."
    if not ahead and (safe or interval.high <= margin):
        return False, "It is not better." if interval.high >= 0 else "It is surely worse."
    if not ahead:
        return None, "It may be better or worse: the interval reaches beyond the margin on both sides."
    reach = (interval.estimate - interval.low) / (interval.estimate + margin)
    return None, (
        f"Ahead, but it may be worse by more than the margin of {number(100 * margin)} %: at this difference about "
        f"{number(math.ceil(reach**2 * 10) / 10)} times the rows would settle it."
    )


def _report(
    checks: list[Check],
    task: Task,
    metric: str,
    rows: int,
    blocks: int,
    metrics: dict[str, dict[str, float]] | None = None,
    waived: tuple[str, ...] = (),
    *,
    waits: bool = False,
) -> GateReport:
    failed = [check for check in checks if check.blocking and check.passed is False]
    unknown = [check for check in checks if check.blocking and check.passed is None]
    settled_later = waits and all(check.name in _SETTLED_LATER for check in unknown)
    doubt: Verdict = "wait" if settled_later else "insufficient evidence"
    verdict: Verdict = "keep" if failed else doubt if unknown else "promote"
    compared = [check for check in checks if check.name in ("better_than_champion", "better_than_baseline")][:1]
    deciding = failed or unknown or compared
    reasons = [check.detail for check in deciding]
    if waived:
        told = f"The champion fails its own limits ({'; '.join(waived)}), so"
        reasons.append(f"{told} limits, baseline and slices don't block: the better of the two wins.")
    return GateReport(verdict, tuple(reasons), tuple(checks), task, metric, rows, blocks, bool(waived), metrics or {})
