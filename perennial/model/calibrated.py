"""A fitted pipeline behind a recalibration map: one scikit-learn estimator that is stored and served as any other.

The map itself is fitted and tested elsewhere; here it is applied. A stored model names the class by `__module__`, the
address of `perennial/calibrated.py`, wherever this file lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

Floats = NDArray[np.float64]
CLIP = 1e-6


def apply_map(score: Floats, method: str, parameters: tuple[float, ...] | list[float], task: str) -> Floats:
    """Scores of shape (n,) to mapped ones of shape (n,); NaN stays NaN.

    Args:
        score: P(positive), or values.
        method: `identity`; `platt`: expit(a·logit(p) + b); `beta` (Kull 2017): expit(a·ln p - b·ln(1 - p) + c);
            `affine`: a·s + b; `isotonic`: linear between knots, constant beyond them.
        parameters: (a, b), (a, b, c), or the knots' scores and then their values.
        task: classification or regression.
    """
    given = np.asarray(score, dtype=np.float64)
    if method == "identity":
        return given.copy()
    values = np.asarray(parameters, dtype=np.float64)
    if method == "isotonic":
        half = len(values) // 2
        return np.where(np.isnan(given), np.nan, np.interp(given, values[:half], values[half:]))
    mapped = map_inputs(given, method) @ values
    return np.asarray(expit(mapped) if task == "classification" else mapped)


def map_inputs(score: Floats, method: str) -> Floats:
    """What a parametric map is linear in: shape (n, number of parameters)."""
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
        """The pipeline's own score, before the map: shape (n,)."""
        if self.task == "classification":
            column = list(self.pipeline.classes_).index(1)
            return np.asarray(self.pipeline.predict_proba(features), dtype=np.float64)[:, column]
        return np.asarray(self.pipeline.predict(features), dtype=np.float64)

    def predict_proba(self, features: Any) -> Floats:
        """Shape (n, 2), in the order of `classes_`."""
        positive = apply_map(self.raw_score(features), self.method, self.parameters, self.task)
        columns = [1 - positive, positive] if list(self.classes_).index(1) == 1 else [positive, 1 - positive]
        return np.column_stack(columns)

    def predict(self, features: Any) -> NDArray[Any]:
        """Classes, or values: shape (n,)."""
        if self.task == "classification":
            return np.asarray(self.classes_[np.argmax(self.predict_proba(features), axis=1)])
        return apply_map(self.raw_score(features), self.method, self.parameters, self.task)
