"""Whether a newcomer is surely worse than the champion before it, on rows that both answered. Pure: no I/O.

Every check looks again, and a look at a fixed confidence errs anew each time: of harmless newcomers, many would be
rolled back by one of them. So each look has the confidence that a boundary valid at all times together gives it: the
one-sided normal mixture of Howard, Ramdas, McAuliffe and Sekhon ("Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 2021), for means whose variance is estimated as in Waudby-Smith, Arbour,
Sinha, Kennedy and Ramdas ("Time-uniform central limit theory and asymptotic confidence sequences", Annals of
Statistics 2024), with a day as the unit of time. It needs no record of earlier looks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from perennial.definition import GatePolicy
from tasks.measures.bootstrap import Interval, paired_improvement

PROMOTIONS = ("promote", "approve", "recalibrate")


_TIGHTEST_DAYS = 14  # where the boundary is closest: the middle of an ordinary probation


@dataclass(frozen=True)
class ProbationReport:
    """What the shadow says of a newcomer.

    Attributes:
        verdict: `roll back` when the newcomer is surely worse, `stay` when it is not, `too early` without enough rows.
        version, former: The newcomer, and the champion before it.
        rows: Rows that both answered and whose truth is known.
        interval: Of the newcomer's improvement over the former in the compared metric; None without rows.
        reason: A sentence with the numbers.
    """

    verdict: Literal["stay", "roll back", "too early"]
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


def judge_newcomer(
    rows: pd.DataFrame, policy: GatePolicy, *, version: int, former: int, metric: str, seed: int
) -> ProbationReport:
    """Compare a newcomer with the champion before it on the same mature rows, by blocks of days.

    A newcomer that is no worse is rolled back with a chance of 1 - `policy.confidence` at the most in its whole
    probation, however often it is looked at.

    Args:
        rows: time, truth, score (the newcomer's, as logged) and shadow (the former champion's); any order.
        policy: The gate's: its least rows and its confidence count here too.
        metric: The gate's.
    """
    rows = rows.sort_values("time", kind="stable")
    if len(rows) < policy.minimum_rows:
        reason = f"{len(rows)} rows have their truth since version {version} reigns, {policy.minimum_rows} are needed"
        return ProbationReport("too early", version, former, len(rows), None, reason)
    days = rows["time"].dt.floor("D").astype("int64").to_numpy()
    confidence = look_confidence(len(np.unique(days)), 1 - policy.confidence)
    interval = paired_improvement(
        metric, rows["truth"].to_numpy(), rows["score"].to_numpy(), rows["shadow"].to_numpy(),
        blocks=days, confidence=confidence, resamples=policy.resamples, seed=seed,
    )  # fmt: skip
    told = f"on {len(rows)} rows version {version} improves {metric} over version {former} by {interval.estimate:.4g}"
    if not interval.known:
        return ProbationReport("too early", version, former, len(rows), interval, f"{told}, without an interval yet")
    told += f" ({interval.low:.4g} to {interval.high:.4g}, with {policy.confidence:.0%} sure over all looks together)"
    if interval.high < 0:
        return ProbationReport("roll back", version, former, len(rows), interval, f"{told}: it is surely worse")
    return ProbationReport("stay", version, former, len(rows), interval, told)
