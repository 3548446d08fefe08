"""A model that was fitted elsewhere, behind the columns and the class order of a definition: stored as any other.

A stored model names the class by `__module__`, the address of `perennial/adopted.py`, wherever this file lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

Floats = NDArray[np.float64]


class Adopted(BaseEstimator):  # type: ignore[misc]
    """A fitted pipeline that reads its own columns in its own order, and whose classes have other names than ours.

    Args:
        pipeline: The fitted pipeline.
        columns: The columns that it was fitted on, in its order.
        order: For each class of ours (0, 1, …) the place of its probability among the pipeline's; empty for regression.
        plain: Whether it was fitted on an array without names.
    """

    __module__ = "perennial.adopted"

    def __init__(self, pipeline: Any, columns: list[str], order: list[int], plain: bool = False) -> None:
        self.pipeline = pipeline
        self.columns = columns
        self.order = order
        self.plain = plain

    def fit(self, features: Any, target: Any) -> Adopted:  # noqa: ARG002
        """Nothing to fit: the pipeline comes fitted."""
        check_is_fitted(self.pipeline)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def _estimator_type(self) -> str:
        return "classifier" if self.order else "regressor"

    @property
    def classes_(self) -> NDArray[Any]:
        return np.arange(len(self.order))

    def predict_proba(self, features: Any) -> Floats:
        """Shape (n, classes), in our order."""
        found = np.asarray(self.pipeline.predict_proba(self._own(features)), dtype=np.float64)
        return found[:, self.order]

    def predict(self, features: Any) -> NDArray[Any]:
        """Classes (0, 1, …), or values: shape (n,)."""
        if self.order:
            return np.asarray(np.argmax(self.predict_proba(features), axis=1))
        return np.asarray(self.pipeline.predict(self._own(features)), dtype=np.float64)

    def _own(self, features: Any) -> Any:
        own = features[list(self.columns)]
        return own.to_numpy() if self.plain else own
