"""What the champion loses on rows that have no labels yet: estimated. No record of errors, no verdict, no I/O.

For a class, confidence-based performance estimation (CBPE): if the calibrated chance of a row is p, an answer s loses
p·loss(1, s) + (1 - p)·loss(0, s) on average. For a value, direct loss estimation (DLE): a small model of the loss per
row, from features and answer, fitted on labelled rows. Both are described in NannyML's documentation, "How it works:
estimation of performance", CBPE also in Białek et al., "Estimating Model Performance Under Covariate Shift Without
Labels" (NeurIPS 2025). Both see what moves the inputs; neither sees that the same inputs begin to mean something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.scores import constant_scores, is_many, shares
from tasks.calibration.fit import Recalibrator, fit_recalibration
from tasks.check.reference import Reference
from tasks.learning.fitting import thread_pools
from tasks.measures.profiles import column_codes
from tasks.measures.quality import row_losses

Floats = NDArray[np.float64]

FITTED_ROWS = 20_000
ESTIMATED_ROWS = 20_000
FEATURE_ROWS = 4_000
_TREES = {"max_iter": 24, "max_depth": 3, "learning_rate": 0.2, "max_bins": 63, "early_stopping": False}
# Trees of the histogram kind change Python's one list of warning filters: threads of a backtest would meet there.
_ONE_FIT = Lock()


@dataclass(frozen=True)
class LossEstimate:
    """The expected loss of a window without labels.

    Attributes:
        value: The mean over its rows.
        standard_error: Of that mean, as if the model of the loss were right: what the window's size alone allows.
        rows: How many rows it was made from.
        method: CBPE or DLE.
        fitted_rows: Labelled rows behind the map or the model.
        auc: For a class, the expected area under the ROC curve; None where it can't be told.
    """

    value: float
    standard_error: float
    rows: int
    method: str
    fitted_rows: int
    auc: float | None = None


def expected_losses(chance: Floats, score: Floats, loss: str) -> Floats:
    """Each row's expected loss, shape (n,), if the truth is 1 with the given chance."""
    ones = np.ones(len(score))
    return np.asarray(
        chance * row_losses(ones, score, loss) + (1 - chance) * row_losses(0 * ones, score, loss), dtype=np.float64
    )


def expected_auc(chance: Floats, score: Floats) -> float | None:
    """The share of pairs in the right order, each row counting as `chance` of a one and the rest of a nought."""
    values, group = np.unique(score, return_inverse=True)
    ones = np.bincount(group, weights=chance, minlength=len(values))
    noughts = np.bincount(group, weights=1 - chance, minlength=len(values))
    total = ones.sum() * noughts.sum()
    if not total > 0:
        return None
    return float((ones * (np.cumsum(noughts) - noughts / 2)).sum() / total)


def estimate_class_loss(
    truth: Floats, raw: Floats, window_raw: Floats, in_force: Recalibrator | None, loss: str
) -> LossEstimate:
    """Confidence-based: the raw scores' calibration is fitted on labelled rows and believed on the window.

    Args:
        truth, raw: Shape (n,) each, raw of many classes (n, k): labelled rows in order of time; at most FITTED_ROWS
            evenly spaced ones are used.
        window_raw: Shape (m,), or (m, k): the window's raw scores; at most ESTIMATED_ROWS evenly spaced in rank are
            used.
        in_force: The map behind which the champion answers; None where it answers with its own score.
        loss: The loss per row.
    """
    spaced = slice(None, None, max(1, -(-len(truth) // FITTED_ROWS)))
    if is_many(raw):
        return _estimate_many(truth[spaced], raw[spaced], window_raw, in_force, loss)
    calibration = fit_recalibration(truth[spaced], raw[spaced], "classification", method="platt")
    ranked = np.sort(window_raw)
    if len(ranked) > ESTIMATED_ROWS:
        ranked = ranked[np.linspace(0, len(ranked) - 1, ESTIMATED_ROWS).astype(np.int64)]
    chance = calibration.apply(ranked) if calibration.method != "identity" else np.full(len(ranked), truth.mean())
    score = in_force.apply(ranked) if in_force else ranked
    ones = np.ones(len(score))
    apart = row_losses(ones, score, loss) - row_losses(0 * ones, score, loss)
    expected = expected_losses(chance, score, loss)
    # A row's realised loss scatters about its own expectation, and the rows' expectations about their mean.
    variance = float((chance * (1 - chance) * apart**2).mean() + expected.var())
    return LossEstimate(
        value=float(expected.mean()),
        standard_error=float(np.sqrt(variance / len(window_raw))),
        rows=len(window_raw),
        method="CBPE",
        fitted_rows=len(truth[spaced]),
        auc=expected_auc(chance, score),
    )


def _estimate_many(
    truth: Floats, raw: Floats, window_raw: Floats, in_force: Recalibrator | None, loss: str
) -> LossEstimate:
    """The same for many classes: every class's loss by the chance that it comes true."""
    calibration = fit_recalibration(truth, raw, "classification", method="shifted")
    order = np.lexsort(window_raw.T[::-1])  # as of two classes, no order of the rows matters
    chosen = window_raw[order]
    if len(chosen) > ESTIMATED_ROWS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, ESTIMATED_ROWS).astype(np.int64)]
    rows, classes = chosen.shape
    chance = calibration.apply(chosen)
    if calibration.method == "identity":
        chance = constant_scores(shares(truth, classes), rows)
    score = in_force.apply(chosen) if in_force else chosen
    losses = np.column_stack(
        [row_losses(np.full(rows, code, dtype=np.float64), score, loss) for code in range(classes)]
    )
    expected = (chance * losses).sum(axis=1)
    variance = float((chance * (losses - expected[:, None]) ** 2).sum(axis=1).mean() + expected.var())
    areas = [expected_auc(chance[:, code], score[:, code]) for code in range(classes)]
    known = [area for area in areas if area is not None]
    return LossEstimate(
        value=float(expected.mean()),
        standard_error=float(np.sqrt(variance / len(window_raw))),
        rows=len(window_raw),
        method="CBPE",
        fitted_rows=len(truth),
        auc=float(np.mean(known)) if known else None,
    )


def estimate_value_loss(losses: Floats, known: Floats, window: Floats, rows: int) -> LossEstimate:
    """Direct: a small model of the loss per row, fitted on labelled rows, answers for the window.

    Args:
        losses: Shape (n,): the labelled rows' losses.
        known: Shape (n, columns): their features' bins and answers (`loss_inputs`).
        window: Shape (m, columns): the same of the window's rows.
        rows: How many rows the window has, of which `window` may be a sample.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(**_TREES, min_samples_leaf=max(20, len(losses) // 100), random_state=0)
    with _ONE_FIT, thread_pools().limit(limits=1, user_api="openmp"):
        model.fit(known, losses)
        residual = losses - model.predict(known)
        expected = model.predict(window)
    variance = float(expected.var() / len(expected) + residual.var() / max(rows, 1))
    value = float(expected.mean() + residual.mean())  # right on average where it was fitted
    return LossEstimate(value, float(np.sqrt(variance)), rows, "DLE", len(losses))


def loss_inputs(frame: pd.DataFrame, score: Floats, reference: Reference) -> Floats:
    """What the model of the loss reads, shape (rows, columns + 1): each feature's bin in the reference, and the answer.

    Bins are finite whatever the window holds: unseen and missing have their own.
    """
    codes = column_codes(reference.described(frame), reference.row_columns)
    return np.column_stack([codes.T.astype(np.float64), score])


def sample_ids(ids: pd.Series[Any], rows: int) -> NDArray[np.intp]:
    """Positions of at most so many rows, chosen and ordered by a hash of their ids: whatever order they come in."""
    hashes = pd.util.hash_array(ids.to_numpy(dtype=object), categorize=False)
    if len(hashes) > rows:
        chosen = np.argpartition(hashes, rows)[:rows]
        return chosen[np.argsort(hashes[chosen], kind="stable")]
    return np.argsort(hashes, kind="stable")


def judged_rows(sample: pd.DataFrame, target: str) -> pd.DataFrame:
    """Of a version's kept training rows those that its challenger was judged on: features, `_score` and `_truth`."""
    return sample.rename(columns={target: "_truth"}).dropna(subset=["_score", "_truth"], ignore_index=True)
