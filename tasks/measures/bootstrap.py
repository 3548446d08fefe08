"""How sure a difference between two scores is: paired block bootstrap intervals. No thresholds, no verdicts, no I/O.

Rows near in time are alike, so whole blocks of time are drawn, never single rows. Every metric is written as a smooth
function of sums over rows; then a resample is one row of a matrix product, and ten thousand of them cost less than
a second:

- means (log loss, Brier, accuracy, squared and absolute error) and functions of means (RMSE, R², F1, balanced
  accuracy, calibration error) exactly;
- ROC AUC by DeLong's structural components, from sorted ranks (Sun and Xu, "Fast implementation of DeLong's
  algorithm", IEEE Signal Processing Letters 21, 2014), and average precision by its infinitesimal jackknife: a linear
  expansion, whose remainder is of order 1/n;
- the median absolute error, no smooth function, by a bounded loop over weighted medians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from perennial.definition import GREATER_IS_BETTER
from perennial.errors import DataError
from perennial.model.scores import is_many, likeliest, one_hot
from tasks.measures.metrics import CALIBRATION_BINS, ROW_LOSSES, FloatArray, calibration_bins, row_losses

MAXIMUM_BLOCKS = 1000
# Relative: answers and losses that differ by less do so by rounding, by another order of the same sums.
SAME_ANSWER = 1e-9
_FEW_BLOCKS = 10
_LOOP_RESAMPLES = 500
_LOOP_BLOCKS = 200
_CHUNK_CELLS = 2_000_000
_TAIL_DRAWS = 20
_Codes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval, in the metric's unit; low and high are NaN where nothing can be said.

    `confidence` is that of the interval, so each end holds with (1 + confidence) / 2. `blocks` is how many blocks of
    time were resampled, `method` how the interval was made, in words.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    resamples: int
    blocks: int
    method: str

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


def is_ahead(difference: Interval, prior: tuple[float, float] | None = None) -> bool:
    """Whether a difference is more likely above zero than below: by its estimate, or together with a prior.

    Args:
        prior: Mean and standard error of what such differences have been, in the same unit; combined by precision.
    """
    if prior is None or not difference.known:
        return difference.estimate > 0
    from scipy import stats

    error = (difference.high - difference.low) / 2 / float(stats.norm.ppf((1 + difference.confidence) / 2))
    if error <= 0:
        return difference.estimate > 0
    return difference.estimate / error**2 + prior[0] / prior[1] ** 2 > 0


@dataclass(frozen=True)
class _Statistic:
    """A loss as a function of sums: rows (n, K) are summed within blocks, combine maps (R, K) to (R,)."""

    rows: FloatArray
    combine: Callable[[FloatArray], FloatArray]


def block_codes(rows: int, blocks: npt.ArrayLike | None = None) -> _Codes:
    """Each row's block, 0 … B - 1 in the blocks' own order, at most `MAXIMUM_BLOCKS` of them.

    Without given ids the rows, taken to be in order of time, are cut into blocks of about √n rows. More blocks than
    the maximum are joined with their neighbours, which can only make the interval more cautious.

    Raises:
        DataError: Not one id for every row.
    """
    if blocks is None:
        count = max(1, min(int(math.sqrt(rows)), MAXIMUM_BLOCKS))
        return np.arange(rows) * count // max(rows, 1)
    ids = np.asarray(blocks)
    if ids.shape != (rows,):
        raise DataError(f"block ids have shape {ids.shape} for {rows} rows", "Give one block for every row")
    codes = np.unique(ids, return_inverse=True)[1]
    return _joined(codes, MAXIMUM_BLOCKS)


def _joined(codes: _Codes, maximum: int) -> _Codes:
    count = int(codes.max(initial=0)) + 1
    return codes * maximum // count if count > maximum else codes


def paired_improvement(
    metric: str,
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    blocks: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """By how much less loss `score` has than `reference` on the same rows, with its interval; positive is better.

    From ten blocks on: bootstrap percentiles, stretched by t against normal quantiles for the number of blocks
    (Hesterberg, "What teachers should know about the bootstrap", 2015) and, where neighbouring blocks are alike, by
    the long-run variance of their influence (Newey and West 1987). Below: the block jackknife with a t quantile of
    B - 1 degrees of freedom. Blocks of unequal weight count as the fewer equal ones that they are worth. One block:
    no interval.

    Args:
        metric: Any metric of the definition, or "calibration_error".
        truth: Shape (n,), in order of time when `blocks` is None.
        score: Shape (n,) or, of many classes, (n, k), finite.
        reference: As score.
        blocks: Shape (n,): rows of one block are drawn together; sorted ids are in order of time.
        weights: Shape (n,), zero or more.
        confidence: Of the two-sided interval.
        resamples: Draws; for the median absolute error at most 500.
        seed: Of the draws.

    Raises:
        DataError: The metric is unknown, or the blocks don't fit the rows.
    """
    values, first, second = (np.asarray(each, dtype=np.float64) for each in (truth, score, reference))
    # Else the same model, computed in two ways, would surely be better or worse than itself.
    first = np.where(np.isclose(first, second, rtol=SAME_ANSWER, atol=0.0), second, first)
    row_weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    codes = block_codes(len(values), blocks)
    kept = row_weights > 0
    if not kept.all():
        values, first, second, row_weights = values[kept], first[kept], second[kept], row_weights[kept]
        codes = np.unique(codes[kept], return_inverse=True)[1]
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, confidence, 0, 0, "no rows")
    if metric == "median_absolute_error":
        codes = _joined(codes, _LOOP_BLOCKS)
        draw = _median_differences(np.abs(values - first), np.abs(values - second), row_weights, codes)
        resamples = min(resamples, _LOOP_RESAMPLES)
    else:
        draw = _smooth_differences(metric, values, first, second, row_weights, codes)
    block_weights: FloatArray = np.bincount(codes, weights=row_weights).astype(np.float64)
    return _interval(draw, block_weights, confidence, resamples, np.random.default_rng(seed))


def metric_interval(
    metric: str,
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    *,
    blocks: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """One score's metric in its own unit with its interval, made as `paired_improvement` makes a difference's.

    Args:
        weights: Shape (n,), above zero.

    Raises:
        DataError: As of `paired_improvement`.
    """
    values, scores = (np.asarray(each, dtype=np.float64) for each in (truth, score))
    codes = block_codes(len(values), blocks)
    row_weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, confidence, 0, 0, "no rows")
    if metric == "median_absolute_error":
        codes, resamples = _joined(codes, _LOOP_BLOCKS), min(resamples, _LOOP_RESAMPLES)
        draw = _median_differences(np.zeros(len(values)), np.abs(values - scores), row_weights, codes)
    else:
        draw = _smooth_value(_statistic(metric, values, scores, row_weights), codes)
    block_weights: FloatArray = np.bincount(codes, weights=row_weights).astype(np.float64)
    found = _interval(draw, block_weights, confidence, resamples, np.random.default_rng(seed))
    low, high = max(found.low, 0.0) if found.known else found.low, found.high  # no loss is below nothing
    if metric not in GREATER_IS_BETTER:
        return replace(found, low=low)
    return replace(found, estimate=1 - found.estimate, low=1 - high, high=1 - low)


def _smooth_value(statistic: _Statistic, codes: _Codes) -> _Draw:
    sums = _block_sums(statistic.rows, codes)

    def draw(counts: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return statistic.combine(counts @ sums)

    return draw


def loss_value(metric: str, truth: FloatArray, score: FloatArray, weights: FloatArray) -> float:
    """The metric's loss on all rows, as the intervals compute it; NaN where it is undefined."""
    truth, score, weights = (values[weights > 0] for values in (truth, score, weights))
    if not len(truth):
        return math.nan
    if metric == "median_absolute_error":
        errors = np.abs(truth - score)
        order = np.argsort(errors, kind="stable")
        return _weighted_median(errors[order], weights[order])
    statistic = _statistic(metric, truth, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(statistic.combine(statistic.rows.sum(axis=0, keepdims=True))[0])


_Draw = Callable[[FloatArray], FloatArray]
"""Counts of each block (R, B) to R differences."""


def _smooth_differences(
    metric: str, truth: FloatArray, first: FloatArray, second: FloatArray, weights: FloatArray, codes: _Codes
) -> _Draw:
    one, two = (_statistic(metric, truth, score, weights) for score in (first, second))
    sums = [_block_sums(statistic.rows, codes) for statistic in (one, two)]

    def draw(counts: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            losses = two.combine(counts @ sums[1]), one.combine(counts @ sums[0])
            return np.where(np.isclose(*losses, rtol=SAME_ANSWER, atol=0.0), 0.0, losses[0] - losses[1])

    return draw


def _median_differences(first: FloatArray, second: FloatArray, weights: FloatArray, codes: _Codes) -> _Draw:
    orders = [np.argsort(errors, kind="stable") for errors in (first, second)]
    parts = [
        (errors[order], weights[order], codes[order]) for errors, order in zip((first, second), orders, strict=True)
    ]

    def median(errors: FloatArray, by_weight: FloatArray, block: _Codes, counts: FloatArray) -> float:
        return _weighted_median(errors, by_weight * counts[block])

    def draw(counts: FloatArray) -> FloatArray:
        return np.array([median(*parts[1], row) - median(*parts[0], row) for row in counts])

    return draw


def _weighted_median(ascending: FloatArray, weights: FloatArray) -> float:
    """Where half the weight lies below; the middle of two values where it lies exactly between them."""
    if not len(ascending):
        return math.nan
    total = np.cumsum(weights)
    low, high = (int(np.searchsorted(total, total[-1] / 2 * nearly)) for nearly in (1 - 1e-12, 1 + 1e-12))
    return float(ascending[low] + ascending[min(high, len(ascending) - 1)]) / 2


def _block_sums(rows: FloatArray, codes: _Codes) -> FloatArray:
    return np.stack([np.bincount(codes, weights=column) for column in rows.T], axis=1)


def _statistic(metric: str, truth: FloatArray, score: FloatArray, weights: FloatArray) -> _Statistic:
    if metric in ROW_LOSSES:
        return _Statistic(_columns(weights * row_losses(metric, truth, score), weights), lambda s: s[:, 0] / s[:, 1])
    if metric == "rmse":
        mean = _statistic("mse", truth, score, weights)
        return _Statistic(mean.rows, lambda s: np.sqrt(s[:, 0] / s[:, 1]))
    if metric == "r2":
        centred = truth - np.average(truth, weights=weights)
        rows = _columns(weights * (truth - score) ** 2, weights, weights * centred, weights * centred**2)
        return _Statistic(rows, lambda s: s[:, 0] / (s[:, 3] - s[:, 2] ** 2 / s[:, 1]))
    if is_many(score):
        return _many_statistic(metric, truth, score, weights)
    if metric == "calibration_error":
        inside = calibration_bins(score)[:, None] == np.arange(CALIBRATION_BINS)
        rows = np.hstack([inside * (weights * (score - truth))[:, None], weights[:, None]])
        return _Statistic(rows, lambda s: np.abs(s[:, :-1]).sum(axis=1) / s[:, -1])
    positive, said = truth > 0.5, score >= 0.5
    wrong = weights * (positive != said)
    if metric == "f1":
        rows = _columns(wrong, weights * (positive & said))
        return _Statistic(rows, lambda s: s[:, 0] / (2 * s[:, 1] + s[:, 0]))
    if metric == "balanced_accuracy":
        rows = _columns(wrong * positive, weights * positive, wrong * ~positive, weights * ~positive)
        return _Statistic(rows, lambda s: (s[:, 0] / s[:, 1] + s[:, 2] / s[:, 3]) / 2)
    if metric in ("roc_auc", "average_precision"):
        influence = _auc_influence if metric == "roc_auc" else _precision_influence
        value, rows = influence(positive, score, weights)
        return _Statistic(rows[:, None], lambda s: 1 - value - s[:, 0])
    raise DataError(f"{metric} is no metric that can be compared", "Name one of perennial.definition's metrics")


def _many_statistic(metric: str, truth: FloatArray, score: FloatArray, weights: FloatArray) -> _Statistic:
    """Means over the classes, each against the rest; only classes that occur, but for the calibration error."""
    classes = score.shape[1]
    hot, said = one_hot(truth, classes), one_hot(likeliest(score), classes)
    if metric == "calibration_error":
        bins = [calibration_bins(score[:, c])[:, None] == np.arange(CALIBRATION_BINS) for c in range(classes)]
        gaps = [inside * (weights * (score[:, c] - hot[:, c]))[:, None] for c, inside in enumerate(bins)]
        rows = np.hstack([*gaps, weights[:, None]])
        return _Statistic(rows, lambda s: np.abs(s[:, :-1]).sum(axis=1) / s[:, -1] / classes)
    occurring = np.flatnonzero(hot.any(axis=0))
    if len(occurring) < 2:
        return _Statistic(np.full((len(truth), 1), math.nan), lambda s: s[:, 0])
    hot, said = hot[:, occurring], said[:, occurring]
    count, weighted = len(occurring), weights[:, None]
    if metric == "balanced_accuracy":
        rows = np.hstack([weighted * hot * (1 - said), weighted * hot])
        return _Statistic(rows, lambda s: (s[:, :count] / s[:, count:]).mean(axis=1))
    if metric == "f1":
        rows = np.hstack([weighted * (hot != said), weighted * hot * said])
        return _Statistic(rows, lambda s: (s[:, :count] / (2 * s[:, count:] + s[:, :count])).mean(axis=1))
    if metric in ("roc_auc", "average_precision"):
        influence = _auc_influence if metric == "roc_auc" else _precision_influence
        parts = [influence(hot[:, at] > 0.5, score[:, code], weights) for at, code in enumerate(occurring)]
        value = float(np.mean([part[0] for part in parts]))
        rows = np.mean([part[1] for part in parts], axis=0)
        return _Statistic(rows[:, None], lambda s: 1 - value - s[:, 0])
    raise DataError(f"{metric} is no metric that can be compared", "Name one of perennial.definition's metrics")


def _columns(*columns: npt.NDArray[np.generic]) -> FloatArray:
    return np.stack(columns, axis=1).astype(np.float64)


def _auc_influence(positive: npt.NDArray[np.bool_], score: FloatArray, weights: FloatArray) -> tuple[float, FloatArray]:
    """The weighted AUC and what each row adds to its linear expansion (DeLong's components, centred)."""
    if not positive.any() or positive.all():
        return math.nan, np.full(len(score), math.nan)
    influence = np.empty(len(score))
    for rows, others in ((positive, ~positive), (~positive, positive)):
        order = np.argsort(score[others], kind="stable")
        ranked = score[others][order]
        mass = np.concatenate([[0.0], np.cumsum(weights[others][order])])
        below = mass[np.searchsorted(ranked, score[rows], side="left")]
        upto = mass[np.searchsorted(ranked, score[rows], side="right")]
        influence[rows] = (below + upto) / 2 / mass[-1]
    influence[~positive] = 1 - influence[~positive]
    value = float(np.average(influence[positive], weights=weights[positive]))
    for rows in (positive, ~positive):
        influence[rows] = weights[rows] * (influence[rows] - value) / weights[rows].sum()
    return value, influence


def _precision_influence(
    positive: npt.NDArray[np.bool_], score: FloatArray, weights: FloatArray
) -> tuple[float, FloatArray]:
    """The weighted average precision and each row's weight times its derivative by that weight.

    AP = Σ_i w_i y_i P_i / N_i / Σ w y with P_i, N_i the positive and the whole mass at or above row i's score.
    """
    if not positive.any() or positive.all():
        return math.nan, np.full(len(score), math.nan)
    levels, at = np.unique(-score, return_inverse=True)
    mass = np.bincount(at, weights=weights, minlength=len(levels))
    hits = np.bincount(at, weights=weights * positive, minlength=len(levels))
    above, above_hits = np.cumsum(mass), np.cumsum(hits)
    total = above_hits[-1]
    value = float((hits * above_hits / above).sum() / total)
    # Row k counts towards every row i scored at or below it: sums from k's own level downwards.
    gain = np.cumsum((hits / above)[::-1])[::-1][at]
    cost = np.cumsum((hits * above_hits / above**2)[::-1])[::-1][at]
    derivative = (positive * ((above_hits / above)[at] - value + gain) - cost) / total
    return value, weights * derivative


def _interval(
    draw: _Draw, block_weights: FloatArray, confidence: float, resamples: int, generator: np.random.Generator
) -> Interval:
    from scipy import stats

    blocks = len(block_weights)
    estimate = float(draw(np.ones((1, blocks)))[0])
    if blocks < 2 or not math.isfinite(estimate):
        why = "one block of time: no interval" if blocks < 2 else "the metric is undefined on these rows"
        return Interval(estimate, math.nan, math.nan, confidence, 0, blocks, why)
    worth = float(block_weights.sum() ** 2 / (block_weights**2).sum())
    tail = (1 - confidence) / 2
    quantile = float(stats.t.ppf(1 - tail, max(worth - 1, 1.0)))
    left_out = draw(1 - np.eye(blocks))
    if blocks < _FEW_BLOCKS:
        error = math.sqrt((blocks - 1) / blocks * float(((left_out - left_out.mean()) ** 2).sum()))
        low, high = estimate - quantile * error, estimate + quantile * error
        return Interval(estimate, low, high, confidence, 0, blocks, f"block jackknife, t of {worth - 1:.1f} degrees")
    differences = np.concatenate([draw(counts) for counts in _counts(blocks, resamples, generator)])
    finite = differences[np.isfinite(differences)]
    if len(finite) < 0.9 * len(differences):
        return Interval(estimate, math.nan, math.nan, confidence, resamples, blocks, "undefined in most resamples")
    stretch = math.sqrt(blocks / (blocks - 1)) * _serial_stretch(left_out)
    if tail * resamples < _TAIL_DRAWS:
        error = float(np.std(finite)) * stretch
        method = "block bootstrap error, t quantile"
        return Interval(
            estimate, estimate - quantile * error, estimate + quantile * error, confidence, resamples, blocks, method
        )
    stretch *= quantile / float(stats.norm.ppf(1 - tail))
    low, high = (estimate + stretch * (float(np.quantile(finite, at)) - estimate) for at in (tail, 1 - tail))
    return Interval(estimate, low, high, confidence, resamples, blocks, f"block bootstrap, stretched by {stretch:.2f}")


def _serial_stretch(left_out: FloatArray) -> float:
    """At least 1: √(long-run variance / variance) of the blocks' influence, with Bartlett weights."""
    influence = left_out.mean() - left_out
    variance = float(influence @ influence)
    if not math.isfinite(variance) or variance <= 0:
        return 1.0
    count = len(influence)
    lags = int(4 * (count / 100) ** (2 / 9))
    weighted = sum((1 - lag / (lags + 1)) * float(influence[lag:] @ influence[:-lag]) for lag in range(1, lags + 1))
    return math.sqrt(max(1.0, 1 + 2 * weighted / variance))


def _counts(blocks: int, resamples: int, generator: np.random.Generator) -> Iterator[FloatArray]:
    """Multinomial counts (R, B), in chunks of bounded memory, by counting drawn blocks."""
    size = max(1, _CHUNK_CELLS // blocks)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = generator.integers(0, blocks, (rows, blocks), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * blocks
        yield np.bincount(drawn.ravel(), minlength=rows * blocks).reshape(rows, blocks).astype(np.float64)
