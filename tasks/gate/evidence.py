"""What is known about a challenger, and the checks of it that need no statistics. No comparing of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from perennial.definition import GatePolicy
from perennial.model.scores import improbable, known_scores
from tasks.calibration.fit import fair_answers
from tasks.gate.report import Check, number
from tasks.measures.metrics import FloatArray, Task

ALLOW_LEAKAGE = "If it is real, set gate.leakage_separation to null."


@dataclass(frozen=True)
class Evidence:
    """What is known about a challenger. All arrays have one value for each row of the holdout, in order of time.

    Args:
        truth: The class's code for classification.
        challenger: Its scores; of many classes one for each, shape (n, k), as all scores here.
        champion: The champion's scores on the same rows; None for a first model.
        baseline: What predicting the training rows' mean or prevalence gives.
        overlap_rows: How many holdout rows one of the models trained on; see `tasks.measures.leakage.shared_rows`.
        blocks: Block ids, such as days; sorted ids are in order of time. None cuts equal runs of rows.
        weights: Row weights, zero or more.
        slices: Columns whose values are slices.
        latency_ms: Measured median for one row.
        size_mb: The stored challenger's size.
        golden: (expected, actual) predictions of the stored model on recorded rows.
        challenger_newest: Time of the newest row the challenger trained on.
        champion_newest: The same for the champion.
        champion_note: What people must know of the champion's scores: a sentence, told and not judged.
        same_model: The challenger is the champion behind another map of its score. Then the budgets are not asked, and
            the baseline does not block: it must not keep out the map that brings a fallen champion back a part of the
            way.
        separations: How well each feature alone tells the truth; see `tasks.measures.leakage.separations`.
        prior: What this model's retrainings have been found to bring (mean and standard error, as shares of the loss),
            where that is less than nothing: then to be ahead by a little is not enough. None otherwise.
        unmapped: The challenger's and the champion's own scores, where they are judged behind maps; see
            `behind_fair_maps`.
    """

    truth: npt.ArrayLike
    challenger: npt.ArrayLike
    champion: npt.ArrayLike | None
    baseline: npt.ArrayLike
    overlap_rows: int
    blocks: npt.ArrayLike | None = None
    weights: npt.ArrayLike | None = None
    slices: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    latency_ms: float | None = None
    size_mb: float | None = None
    golden: tuple[npt.ArrayLike, npt.ArrayLike] | None = None
    challenger_newest: datetime | None = None
    champion_newest: datetime | None = None
    champion_note: str = ""
    same_model: bool = False
    separations: Mapping[str, float] = field(default_factory=dict)
    prior: tuple[float, float] | None = None
    unmapped: tuple[npt.ArrayLike, npt.ArrayLike] | None = None


def behind_fair_maps(evidence: Evidence, task: Task, strength: float) -> Evidence:
    """The same models, each behind a map of its own score that was made in the same way, on the same rows.

    A champion has had its map since its first labels, and a newcomer gets one with its first: one behind its map beside
    the other's own score says which of them has been calibrated, not which is the better model.

    Args:
        evidence: With both models' own scores.
        strength: `monitoring.recalibration_strength`, by which maps are fitted once a model reigns.
    """
    if evidence.champion is None:
        return evidence
    truth = np.asarray(evidence.truth, dtype=np.float64)
    own = tuple(np.asarray(scores, dtype=np.float64) for scores in (evidence.challenger, evidence.champion))
    if not np.isfinite(truth).all() or any(len(each) != len(truth) or bad_scores(each, task) for each in own):
        return evidence  # the court says what is wrong with them
    challenger, champion = (fair_answers(truth, each, task, strength) for each in own)
    return replace(evidence, challenger=challenger, champion=champion, unmapped=(own[0], own[1]))


def bad_scores(scores: FloatArray, task: Task) -> int:
    bad = ~known_scores(scores)
    if task == "classification":
        bad |= improbable(scores)
    return int(np.count_nonzero(bad))


def unusable_scores(evidence: Evidence, task: Task) -> Check:
    scores = np.asarray(evidence.challenger, dtype=np.float64)
    bad = bad_scores(scores, task)
    says = f"{bad:,} of {len(scores):,} of the challenger's scores are missing, infinite or no probabilities."
    return Check("usable_scores", False, bad, 0, "max", "rows", rows=len(scores), detail=says)


def integrity_checks(evidence: Evidence, policy: GatePolicy) -> list[Check]:
    overlap = int(evidence.overlap_rows)
    says = f"{overlap:,} rows of the holdout were trained on by one of the models."
    checks = [Check("overlap", overlap == 0, overlap, 0, "max", "rows", detail=says)]
    if evidence.challenger_newest is not None and evidence.champion_newest is not None:
        ours, theirs = evidence.challenger_newest, evidence.champion_newest
        says = (
            f"The challenger's newest training row is of {ours:%Y-%m-%d %H:%M}, the champion's {theirs:%Y-%m-%d %H:%M}."
        )
        checks.append(Check("fresh", ours >= theirs, (ours - theirs).total_seconds() / 86400, 0.0, detail=says))
    if evidence.champion_note:
        checks.append(Check("champion_map", True, detail=evidence.champion_note, blocking=False))
    if evidence.separations and policy.leakage_separation is not None:
        column, value = max(evidence.separations.items(), key=lambda entry: entry[1])
        says = f"{column} alone tells the truth with {number(value)}"
        says += f": does it know the target? {ALLOW_LEAKAGE}" if value >= policy.leakage_separation else "."
        told = value < policy.leakage_separation
        checks.append(Check("single_feature", told, value, policy.leakage_separation, "max", detail=says))
    return checks


def budget_checks(evidence: Evidence, policy: GatePolicy) -> list[Check]:
    checks = []
    for name, value, limit, unit in (
        ("latency", evidence.latency_ms, policy.latency_ms, "ms"),
        ("size", evidence.size_mb, policy.size_mb, "MB"),
    ):
        if limit is not None:
            known = value is not None and math.isfinite(value)
            passed = value <= limit if known and value is not None else None
            says = f"{name.capitalize()} is {number(value, unit)} of at most {number(limit, unit)}."
            says = says if known else f"{name.capitalize()} has a limit of {number(limit, unit)} but was not measured."
            checks.append(Check(name, passed, value, limit, "max", unit, detail=says))  # type: ignore[arg-type]
    if evidence.golden is not None:
        expected, actual = (np.asarray(part, dtype=np.float64) for part in evidence.golden)
        same = expected.shape == actual.shape and expected.size > 0
        apart = float(np.max(np.abs(expected - actual))) if same else math.nan
        says = f"The stored model's golden predictions differ by up to {number(apart)}."
        if not same:
            says = f"{actual.shape} golden predictions for {expected.shape} expected ones."
        limit = policy.golden_tolerance
        checks.append(Check("golden", apart <= limit, apart, limit, "max", rows=len(expected), detail=says))
    return checks
