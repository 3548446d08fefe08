"""A fitted pipeline behind a recalibration map: one scikit-learn estimator that is stored and served as any other.

The map itself is fitted and tested elsewhere; here it is applied. A stored model names the class by `__module__`, the
address of `perennial/calibrated.py`, wherever this file lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from perennial.model.scores import class_scores, is_many

Floats = NDArray[np.float64]
CLIP = 1e-6
MANY_METHODS = ("shifted", "vector")


def apply_map(score: Floats, method: str, parameters: tuple[float, ...] | list[float], task: str) -> Floats:
    """Scores of shape (n,) or (n, k) to mapped ones of that shape; NaN stays NaN.

    Args:
        score: P(positive), each of many classes' probability, or values.
        method: `identity`; `platt`: expit(a·logit(p) + b); `beta` (Kull 2017): expit(a·ln p - b·ln(1 - p) + c);
            `affine`: a·s + b; `isotonic`: linear between knots, constant beyond them. Of many classes: `shifted`
            (temperature scaling with a bias for each class: Alexandari, Kundaje and Shrikumar 2020):
            softmax(a·ln p + b); `vector` (Guo, Pleiss, Sun and Weinberger 2017): softmax(w·ln p + b).
        parameters: (a, b), (a, b, c), or the knots' scores and then their values; a and then k biases; k weights and
            then k biases.
        task: classification or regression.
    """
    given = np.asarray(score, dtype=np.float64)
    if method == "identity":
        return given.copy()
    values = np.asarray(parameters, dtype=np.float64)
    if method in MANY_METHODS:
        return _apply_to_many(given, method, values)
    if method == "isotonic":
        half = len(values) // 2
        return np.where(np.isnan(given), np.nan, np.interp(given, values[:half], values[half:]))
    mapped = map_inputs(given, method) @ values
    return np.asarray(expit(mapped) if task == "classification" else mapped)


def _apply_to_many(given: Floats, method: str, values: Floats) -> Floats:
    if not len(given):
        return given.copy()
    classes = given.shape[1]
    weights, biases = (values[:1], values[1:]) if method == "shifted" else (values[:classes], values[classes:])
    return np.asarray(softmax(weights * np.log(np.maximum(given, CLIP)) + biases, axis=1))


def map_inputs(score: Floats, method: str) -> Floats:
    """What a parametric map of one score is linear in: shape (n, number of parameters)."""
    ones = np.ones(len(score))
    if method == "affine":
        return np.column_stack([score, ones])
    inside = np.clip(score, CLIP, 1 - CLIP)
    if method == "platt":
        return np.column_stack([np.log(inside) - np.log1p(-inside), ones])
    return np.column_stack([np.log(inside), -np.log1p(-inside), ones])


class Recalibrated(BaseEstimator):  # type: ignore[misc]
    """A fitted pipeline whose scores go through a map.

    Args:
        pipeline: The fitted pipeline, itself never a `Recalibrated`.
        method: The map's method.
        parameters: Its parameters.
        task: classification or regression.
    """

    __module__ = "perennial.calibrated"

    def __init__(self, pipeline: Any, method: str, parameters: list[float], task: str) -> None:
        self.pipeline = pipeline
        self.method = method
        self.parameters = parameters
        self.task = task

    def fit(self, features: Any, target: Any) -> Recalibrated:  # noqa: ARG002
        """Nothing to fit: the pipeline comes fitted, and so does the map."""
        check_is_fitted(self.pipeline)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> NDArray[Any]:
        return np.asarray(self.pipeline.classes_)

    @property
    def _estimator_type(self) -> str:
        return "classifier" if self.task == "classification" else "regressor"

    def raw_score(self, features: Any) -> Floats:
        """The pipeline's own score, before the map: shape (n,), or (n, k) of many classes."""
        if self.task == "classification":
            return class_scores(self.pipeline.predict_proba(features), self.pipeline.classes_)
        return np.asarray(self.pipeline.predict(features), dtype=np.float64)

    def predict_proba(self, features: Any) -> Floats:
        """Shape (n, k), in the order of `classes_`."""
        positive = apply_map(self.raw_score(features), self.method, self.parameters, self.task)
        if is_many(positive):
            return positive
        columns = [1 - positive, positive] if list(self.classes_).index(1) == 1 else [positive, 1 - positive]
        return np.column_stack(columns)

    def predict(self, features: Any) -> NDArray[Any]:
        """Classes, or values: shape (n,)."""
        if self.task == "classification":
            return np.asarray(self.classes_[np.argmax(self.predict_proba(features), axis=1)])
        return apply_map(self.raw_score(features), self.method, self.parameters, self.task)
