"""The map from a champion's score to probability or value: fitted anew on matured labels, and tested. No training.

A map of many classes is one for all of them: a temperature, and a bias for each class.

A map is fitted with shrinkage towards the identity: a prior worth a few rows, so that few labels change little, and a
strength below 1, since the next window is never quite like the last one. Whether it helps is tested by cross-fitting:
every fifth row is predicted by the map of the others, and the gain in loss must be clear of its standard error. The
folds are interleaved on purpose: what is asked is whether the newest rows want another map than the one in force;
whether the next rows will be like them no split of the newest rows can say, and that is what the strength is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from perennial.definition import Monitoring
from perennial.errors import DataError
from perennial.model.calibrated import CLIP, apply_map, map_inputs
from perennial.model.scores import is_many, one_hot
from tasks.measures.quality import row_losses

Floats = NDArray[np.float64]
Task = Literal["classification", "regression"]
Method = Literal["identity", "platt", "beta", "affine", "isotonic", "shifted", "vector"]

PRIOR_ROWS = 20.0
FOLDS = 5
TESTED_ROWS = 100_000
ISOTONIC_ROWS = 1_000
METHODS: dict[str, tuple[Method, ...]] = {
    "classification": ("platt", "beta", "isotonic"),
    "regression": ("affine", "isotonic"),
}
MANY_CLASSES: tuple[Method, ...] = ("shifted", "vector")


def methods(task: Task, score: Floats) -> tuple[Method, ...]:
    """The maps that such scores can have, the plain one first."""
    return MANY_CLASSES if is_many(score) else METHODS[task]


@dataclass(frozen=True)
class Recalibrator:
    """A fitted map.

    Attributes:
        task: classification or regression.
        method: Platt: expit(a·logit(p) + b). Beta (Kull 2017): expit(a·ln p - b·ln(1 - p) + c). Affine: a·s + b.
            Isotonic: linear between knots, constant beyond them. Shifted and vector: see `apply_map`.
        parameters: As `apply_map` takes them.
        rows: How many labelled rows it was fitted on.
    """

    task: Task
    method: Method
    parameters: tuple[float, ...] = ()
    rows: int = 0

    def apply(self, score: Floats) -> Floats:
        """Scores of shape (n,) or (n, k) to mapped ones of that shape, float64; NaN stays NaN."""
        return apply_map(score, self.method, self.parameters, self.task)

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "method": self.method,
            "parameters": list(self.parameters),
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Recalibrator:
        return cls(raw["task"], raw["method"], tuple(float(v) for v in raw["parameters"]), int(raw["rows"]))


@dataclass(frozen=True)
class RecalibrationTest:
    """What recalibrating would bring, measured on rows that the map was not fitted on.

    Attributes:
        method: The map tested.
        gain: The mean loss saved per row, cross-fitted; negative where it would cost.
        standard_error: Of the gain, over rows; infinite where it can't be estimated.
        rows: Labelled rows used.
        note: Why no map is tested, but the score without one; empty otherwise.
    """

    method: Method
    gain: float
    standard_error: float
    rows: int
    note: str = ""

    @property
    def sigmas(self) -> float:
        """The gain in standard errors; 0 where it can't be estimated."""
        return self.gain / self.standard_error if 0 < self.standard_error < np.inf else 0.0


def fit_recalibration(
    truth: Floats, score: Floats, task: Task, *, method: Method | None = None, strength: float = 1.0
) -> Recalibrator:
    """Fit a map; without `method` the one with the least cross-fitted loss, the simpler one when it is close.

    Args:
        truth: Shape (n,): the class's code, or values. In order of time.
        score: Shape (n,), or of many classes (n, k): the champion's raw output.
        task: classification or regression.
        method: Which map.
        strength: How much of the way from the identity to the fitted map is gone, in [0, 1].

    Raises:
        DataError: The lengths differ, or a value is not finite.
    """
    truth, score = _checked(truth, score)
    if len(truth) == 0 or (task == "classification" and len(np.unique(truth)) < 2):
        return Recalibrator(task, "identity", (), len(truth))
    if method is None:
        method = _choose(truth, score, task)
    if method == "identity":
        return Recalibrator(task, "identity", (), len(truth))
    if is_many(score):
        parameters, identity = _softmax_newton(truth, score, method)
    elif method == "isotonic":
        parameters, identity = _isotonic(truth, score, task)
    elif task == "regression":
        parameters, identity = _ridge(truth, score), np.array([1.0, 0.0])
    else:
        identity = np.array([1.0, 0.0] if method == "platt" else [1.0, 1.0, 0.0])
        parameters = _newton(truth, map_inputs(score, method), identity)
    if method in ("platt", "affine") and parameters[0] < 0:
        parameters = np.array([0.0, _level(truth, task)])  # a map calibrates: it never turns a score round
    kept = identity + strength * (parameters - identity)
    return Recalibrator(task, method, tuple(float(v) for v in kept), len(truth))


def check_recalibration(
    truth: Floats, score: Floats, current: Floats, task: Task, *, method: Method | None = None, strength: float = 1.0
) -> RecalibrationTest:
    """Cross-fit a map over interleaved rows and compare its loss with what is answered now.

    Args:
        truth: Shape (n,).
        score: Shape (n,), or (n, k): the champion's raw output.
        current: As score: what was answered (with the map of now).
        task: classification or regression.
        method: Which map; by default the plain one (Platt or affine), as choosing on the same rows would flatter it.
        strength: As in `fit_recalibration`.

    At most 100,000 evenly spaced rows are used: two parameters need no more.
    """
    spaced = slice(None, None, max(1, -(-len(truth) // TESTED_ROWS)))
    truth, score = _checked(truth[spaced], score[spaced])
    current = np.asarray(current, dtype=np.float64)[spaced]
    chosen = method or methods(task, score)[0]
    if len(truth) < 4 * FOLDS:
        return RecalibrationTest(chosen, 0.0, float("inf"), len(truth))
    loss = "log_loss" if task == "classification" else "mse"
    mapped = cross_fit(truth, score, task, chosen, strength)
    saved = row_losses(truth, current, loss) - row_losses(truth, mapped, loss)
    error = float(saved.std(ddof=1) / np.sqrt(len(saved)))
    return RecalibrationTest(chosen, float(saved.mean()), error if error > 0 else float("inf"), len(truth))


def _choose(truth: Floats, score: Floats, task: Task) -> Method:
    plain, *others = methods(task, score)
    if len(truth) < ISOTONIC_ROWS:
        return plain
    loss = "log_loss" if task == "classification" else "mse"
    best, least = plain, row_losses(truth, cross_fit(truth, score, task, plain, 1.0), loss)
    for method in others:
        losses = row_losses(truth, cross_fit(truth, score, task, method, 1.0), loss)
        saved = least - losses
        if saved.mean() > 2 * saved.std(ddof=1) / np.sqrt(len(saved)):
            best, least = method, losses
    return best


def cross_fit(truth: Floats, score: Floats, task: Task, method: Method, strength: float) -> Floats:
    """What the map of the other folds makes of each row's score; every fifth row is a fold."""
    mapped = np.empty_like(score)
    fold = np.arange(len(truth)) % FOLDS
    for number in range(FOLDS):
        kept, left = fold != number, fold == number
        fitted = fit_recalibration(truth[kept], score[kept], task, method=method, strength=strength)
        mapped[left] = fitted.apply(score[left])
    return mapped


def carried_strength(policy: Monitoring, label_delay: timedelta) -> float:
    """How much of the way to the newest labels' map is gone, where labels come so late.

    `recalibration_strength` holds for labels that are a window late. What is learned from older ones says less of the
    rows to come: the strength falls by half as many powers as windows go by.
    """
    late = label_delay / policy.window
    return float(policy.recalibration_strength ** max(1.0, (1 + late) / 2))


def fair_answers(truth: Floats, score: Floats, task: Task, strength: float) -> Floats:
    """A model's answers behind a plain map of its own score, cross-fitted on the rows that it is judged by.

    Whoever becomes champion gets a map with its first labels. So models are compared behind maps that are made alike:
    no row's answer rests on its own truth, and neither model's map is older than the other's.
    """
    return cross_fit(truth, score, task, methods(task, score)[0], strength)


def _checked(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    truth, score = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if truth.shape != score.shape[:1] or truth.ndim != 1:
        raise DataError(f"truth has shape {truth.shape} and score {score.shape}", "Give one score per truth")
    if not (np.isfinite(truth).all() and np.isfinite(score).all()):
        raise DataError("truth or score holds missing or infinite values", "Drop those rows first")
    return truth, score


def _level(truth: Floats, task: Task) -> float:
    """The constant that a map without slope answers, on the map's own scale."""
    if task == "regression":
        return float(truth.mean())
    rate = (truth.sum() + 0.5) / (len(truth) + 1)
    return float(np.log(rate / (1 - rate)))


def _newton(truth: Floats, inputs: Floats, identity: Floats) -> Floats:
    """Logistic regression with a Gaussian prior around the identity, worth PRIOR_ROWS rows; Newton's method."""
    scale = np.append(np.maximum(inputs[:, :-1].std(axis=0), 1e-3), 1.0)
    penalty = PRIOR_ROWS / 4 * np.diag(scale**2)
    parameters = identity.copy()
    for _ in range(50):
        p = expit(inputs @ parameters)
        slope = inputs.T @ (p - truth) + penalty @ (parameters - identity)
        curve = (inputs * np.maximum(p * (1 - p), 1e-6)[:, None]).T @ inputs + penalty
        step = np.linalg.solve(curve, slope)
        step /= max(1.0, float(np.abs(step * scale).max()) / 2)
        parameters = parameters - step
        if np.abs(step).max() < 1e-8:
            break
    return parameters


def _softmax_newton(truth: Floats, score: Floats, method: Method) -> tuple[Floats, Floats]:
    """The map of many classes, and its identity, with a Gaussian prior around that, worth PRIOR_ROWS rows.

    Newton's method on weights w and biases b of softmax(w·ln p + b); the plain map has one weight for all classes, and
    is the same with its parameters spread by a matrix. For two classes it would be Platt's.
    """
    classes = score.shape[1]
    logs = np.log(np.maximum(score, CLIP))
    hot = one_hot(truth, classes)
    each = np.eye(classes)
    spread = np.eye(2 * classes)
    if method == "shifted":
        spread = np.block([[np.ones((classes, 1)), np.zeros((classes, classes))], [np.zeros((classes, 1)), each]])
    weights = spread.shape[1] - classes
    identity = np.append(np.ones(weights), np.zeros(classes))
    reach = max(float((logs - logs.mean(axis=1, keepdims=True)).std()), 1e-3)
    scale = np.append(np.full(weights, reach), np.ones(classes))
    penalty = PRIOR_ROWS / classes * np.diag(scale**2)
    parameters = identity.copy()
    for _ in range(50):
        w, b = np.split(spread @ parameters, 2)
        p = softmax(w * logs + b, axis=1)
        gap, weighed = p - hot, p * logs
        slope = np.concatenate([(gap * logs).sum(axis=0), gap.sum(axis=0)])
        curve = np.block(
            [
                [
                    np.diag((weighed * logs).sum(axis=0)) - weighed.T @ weighed,
                    np.diag(weighed.sum(axis=0)) - weighed.T @ p,
                ],
                [np.diag(weighed.sum(axis=0)) - p.T @ weighed, np.diag(p.sum(axis=0)) - p.T @ p],
            ]
        )
        slope = spread.T @ slope + penalty @ (parameters - identity)
        step = np.linalg.solve(spread.T @ curve @ spread + penalty, slope)
        step /= max(1.0, float(np.abs(step * scale).max()) / 2)
        parameters = parameters - step
        if np.abs(step).max() < 1e-8:
            break
    if method == "shifted" and parameters[0] < 0:  # a map calibrates: it never turns scores round
        level = np.log((np.bincount(truth.astype(np.int64), minlength=classes) + 1 / classes) / (len(truth) + 1))
        parameters = np.append(0.0, level)
    return parameters, identity


def _ridge(truth: Floats, score: Floats) -> Floats:
    """Least squares with a prior around the identity, worth PRIOR_ROWS rows, in centred scores."""
    centre = float(score.mean())
    inputs = np.column_stack([score - centre, np.ones(len(score))])
    penalty = PRIOR_ROWS * np.diag([max(float(score.var()), 1e-12), 1.0])
    slope, shift = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ (truth - score))
    return np.array([1.0 + slope, shift - slope * centre])


def _isotonic(truth: Floats, score: Floats, task: Task) -> tuple[Floats, Floats]:
    """The knots (scores, then values), and the same knots of the identity."""
    from sklearn.isotonic import IsotonicRegression

    bounds = {"y_min": 0.001, "y_max": 0.999} if task == "classification" else {}
    fitted = IsotonicRegression(out_of_bounds="clip", **bounds).fit(score, truth)
    knots = np.asarray(fitted.X_thresholds_, dtype=np.float64)
    return np.concatenate([knots, fitted.y_thresholds_]), np.concatenate([knots, knots])
