"""Our own scikit-learn transformers: what a stored pipeline refers to, so the API can load it. No choice of models.

Everything here is deterministic for a fixed seed and passes through pickle and skops. `TRUSTED_TYPES` names the
types beyond skops' own list that pipelines of the built-in estimators consist of. A stored model names these classes by
`__module__`, the address of `perennial/transformers.py`, wherever this file lies.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

from perennial.errors import DataError

TRUSTED_TYPES: tuple[str, ...] = (
    "functools.partial",
    "numpy.dtype",
    "perennial.adopted.Adopted",
    "perennial.calibrated.Recalibrated",
    "perennial.transformers.EmptyColumns",
    "perennial.transformers.ImageStatistics",
    "perennial.transformers.TextVectors",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)


class EmptyColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Numbers as they are, but a column without any value at fit time becomes zero, then and ever after.

    HistGradientBoosting's binning fails on a column of nothing but NaN. A constant one it never splits on, so a
    faster scorer of the same trees may skip this step.
    """

    __module__ = "perennial.transformers"

    def fit(self, values: Any, target: Any = None) -> EmptyColumns:  # noqa: ARG002 (scikit-learn's signature)
        numbers = np.asarray(values, dtype=np.float64)
        self.empty_ = np.isnan(numbers).all(axis=0)
        return self

    def transform(self, values: Any) -> np.ndarray:
        check_is_fitted(self)
        numbers = np.asarray(values, dtype=np.float64)
        return np.where(self.empty_, 0.0, numbers) if self.empty_.any() else numbers

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        check_is_fitted(self)
        return input_features


class TextVectors(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column of texts as TF-IDF weights, sparse, or as their leading singular directions, dense.

    A missing text is an empty one. Texts without any word that was seen become zeros.

    Args:
        vocabulary: Most words kept, the most frequent ones.
        components: Dense columns by truncated SVD (latent semantic analysis: Deerwester et al. 1990), always
            this many, the last ones zero where the vocabulary is smaller; None keeps the sparse weights.
        seed: Of the randomised SVD.
    """

    __module__ = "perennial.transformers"

    def __init__(self, vocabulary: int = 20_000, components: int | None = None, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        self.components = components
        self.seed = seed

    def fit(self, texts: Any, target: Any = None) -> TextVectors:  # noqa: ARG002 (scikit-learn's signature)
        documents = _documents(texts)
        vectorizer = TfidfVectorizer(max_features=self.vocabulary, sublinear_tf=True, strip_accents="unicode")
        self.vectorizer_: TfidfVectorizer | None
        self.reduction_: TruncatedSVD | None = None
        try:
            weights = vectorizer.fit_transform(documents)
            self.vectorizer_ = vectorizer
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
            self.vectorizer_ = None
            return self
        if self.components is not None and weights.shape[1] > 1:
            rank = min(self.components, weights.shape[1] - 1)
            self.reduction_ = TruncatedSVD(rank, random_state=self.seed).fit(weights)
        return self

    def transform(self, texts: Any) -> Any:
        """Sparse (n, words), or float64 (n, components)."""
        check_is_fitted(self, "reduction_")
        documents = _documents(texts)
        if self.vectorizer_ is None:
            empty = np.zeros((len(documents), self.components or 1))
            return empty if self.components is not None else sparse.csr_matrix(empty)
        weights = self.vectorizer_.transform(documents)
        if self.components is None:
            return weights
        dense = self.reduction_.transform(weights) if self.reduction_ is not None else weights.toarray()
        return np.pad(dense, ((0, 0), (0, self.components - dense.shape[1])))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self, "reduction_")
        prefix = input_features[0] if input_features is not None else "text"
        if self.components is not None:
            return np.array([f"{prefix}_{number}" for number in range(self.components)], dtype=object)
        words = ["nothing"] if self.vectorizer_ is None else self.vectorizer_.get_feature_names_out()
        return np.array([f"{prefix}_{word}" for word in words], dtype=object)


class ImageStatistics(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One column of images (path or bytes) as numbers: brightness, contrast, width, height, and a grey thumbnail.

    Brightness is the grey values' mean and contrast their standard deviation (RMS contrast), both 0 to 255.
    A missing image gives a row of NaN.

    Args:
        thumbnail: The thumbnail's side in pixels.
    """

    __module__ = "perennial.transformers"

    def __init__(self, thumbnail: int = 8) -> None:
        self.thumbnail = thumbnail

    def fit(self, images: Any, target: Any = None) -> ImageStatistics:  # noqa: ARG002 (scikit-learn's signature)
        self.columns_ = 4 + self.thumbnail**2
        return self

    def transform(self, images: Any) -> np.ndarray:
        """float64 (n, 4 + thumbnail²).

        Raises:
            DataError: A value is no readable image; its row is named.
        """
        check_is_fitted(self)
        values = _column(images)
        rows = np.full((len(values), self.columns_), np.nan)
        for row, value in enumerate(values):
            if value is not None and not (isinstance(value, float) and np.isnan(value)):
                rows[row] = self._describe(value, row)
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        prefix = input_features[0] if input_features is not None else "image"
        pixels = [f"pixel{number}" for number in range(self.thumbnail**2)]
        return np.array([f"{prefix}_{x}" for x in ("brightness", "contrast", "width", "height", *pixels)], dtype=object)

    def _describe(self, value: str | bytes, row: int) -> np.ndarray:
        from PIL import Image, ImageStat

        try:
            with Image.open(io.BytesIO(value) if isinstance(value, bytes) else Path(value)) as image:
                grey = image.convert("L")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            shown = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
            raise DataError(
                f"row {row} (counted from 0): {shown} can't be read as an image: {error}",
                "Give a path that exists or an image file's bytes, or leave it missing",
            ) from error
        statistics = ImageStat.Stat(grey)
        small = grey.resize((self.thumbnail, self.thumbnail), Image.Resampling.BOX)
        head = [statistics.mean[0], statistics.stddev[0], float(grey.width), float(grey.height)]
        return np.concatenate([head, np.asarray(small, dtype=np.float64).ravel()])


def _column(values: Any) -> list[Any]:
    if isinstance(values, pd.DataFrame):
        values = values.iloc[:, 0]
    return list(np.asarray(values, dtype=object).reshape(-1))


def _documents(texts: Any) -> list[str]:
    return ["" if text is None or text != text else str(text) for text in _column(texts)]  # NaN differs from itself
