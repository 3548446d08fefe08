"""What the gate would have seen over rows that were acted on, too: told beside its verdict, never judged by. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from perennial.definition import GatePolicy
from tasks.gate.evidence import bad_scores
from tasks.gate.report import Check, GateReport, interval_text, number
from tasks.measures.bootstrap import loss_value, paired_improvement
from tasks.measures.metrics import FloatArray

NAIVE = "naive_comparison"


def beside_naive(
    report: GateReport, *, truth: FloatArray, challenger: FloatArray, champion: FloatArray, blocks: npt.ArrayLike,
    policy: GatePolicy, seed: int, acted_on: int,
) -> GateReport:  # fmt: skip
    """The report with the comparison over all rows, and a sentence on why it does not decide.

    A challenger that has learned from outcomes of acting says them well: the naive figure lets in the model that would
    undo itself.

    Args:
        report: Judged on the rows that were left alone.
        truth, challenger, champion: Of all rows of the holdout's time, in order of time; each model's own scores.
        blocks: As in `Evidence`.
        acted_on: How many of them could be acted on.
    """
    left = f"{acted_on:,} of {len(truth):,} rows could be acted on, and judge nothing"
    if bad_scores(challenger, report.task) or bad_scores(champion, report.task):  # type: ignore[arg-type]
        return _with(report, Check(NAIVE, None, detail=f"{left}.", blocking=False))
    found = paired_improvement(
        report.metric, truth, challenger, champion,
        blocks=blocks, confidence=policy.confidence, resamples=policy.resamples, seed=seed,
    )  # fmt: skip
    scale = loss_value(report.metric, truth, champion, np.ones(len(truth)))
    by = scale if math.isfinite(scale) and scale > 0 else 1.0
    found = replace(found, estimate=found.estimate / by, low=found.low / by, high=found.high / by)
    check = Check(
        NAIVE, None, found.estimate, unit="relative", interval=found, rows=len(truth), blocking=False
    )  # fmt: skip
    says = f"{left}. Over all of them the challenger would improve {report.metric} by "
    says += f"{number(found.estimate, 'relative')} ({interval_text(check)}): the naive figure, which acting has made"
    judged = report.comparison
    if judged is not None and judged.interval is not None and judged.interval.known and found.known:
        apart = judged.interval.low > found.high or found.low > judged.interval.high
        says += f"; where nobody acted it is {number(judged.value, 'relative')} ({interval_text(judged)})"
        says += ", surely another" if apart else ""
    return _with(report, replace(check, detail=f"{says}."))


def _with(report: GateReport, check: Check) -> GateReport:
    return replace(report, checks=(*report.checks, check), reasons=(*report.reasons, check.detail))
