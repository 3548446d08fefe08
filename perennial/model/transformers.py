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
from perennial.model.cells.moments import MISSING

TRUSTED_TYPES: tuple[str, ...] = (
    "functools.partial",
    "numpy.dtype",
    "perennial.adopted.Adopted",
    "perennial.calibrated.Recalibrated",
    "perennial.transformers.DateParts",
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


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Columns of moments as numbers: their calendar parts, and the same as places on a circle.

    Of each column eleven: days since 1970 (in UTC, with a fraction), month 1 to 12, day of the month, weekday (Monday
    is 0), hour with its fraction; then sine and cosine of the hour in the day, of the day in the week and of the day in
    the year, so that 23:00 lies beside 01:00 and December beside January. A missing moment gives NaN in all of them.

    Args:
        timezone: The zone of the IANA database in which month, day, weekday and hour are told.
    """

    __module__ = "perennial.transformers"

    def __init__(self, timezone: str = "UTC") -> None:
        self.timezone = timezone

    def fit(self, moments: Any, target: Any = None) -> DateParts:  # noqa: ARG002 (scikit-learn's signature)
        self.columns_ = _microseconds(moments).shape[1]
        return self

    def transform(self, moments: Any) -> np.ndarray:
        """float64 (n, 11 · columns).

        Args:
            moments: A frame of datetime64 columns, naive ones in UTC; or int64 (n, columns) of microseconds since 1970.
        """
        check_is_fitted(self)
        counted = _microseconds(moments)
        return np.concatenate(
            [date_parts(counted[:, column], self.timezone) for column in range(self.columns_)], axis=1
        )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        names = [f"moment{number}" for number in range(self.columns_)] if input_features is None else input_features
        return np.array([f"{name}_{part}" for name in names for part in DATE_PARTS], dtype=object)


DATE_PARTS = (
    "days", "month", "day", "weekday", "hour", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "year_sin",
    "year_cos",
)  # fmt: skip
_HOUR, _DAY, _YEAR_DAYS = 3_600_000_000, 86_400_000_000, 365.2425


def date_parts(moments: np.ndarray, timezone: str = "UTC") -> np.ndarray:
    """`DATE_PARTS` of microseconds since 1970 in UTC, int64 (n,): float64 (n, 11), NaN where they are `MISSING`."""
    missing = moments == MISSING
    known = np.where(missing, 0, moments)
    local = known if timezone == "UTC" else _local(known, timezone)
    day_number, within = np.divmod(local, _DAY)  # towards the past, also before 1970
    date = day_number.astype("datetime64[D]")
    month, year = date.astype("datetime64[M]"), date.astype("datetime64[Y]")
    day_share = within / _DAY
    weekday = (day_number + 3) % 7  # 1970 began on a Thursday
    year_day = (date - year.astype("datetime64[D]")).astype(np.int64)
    parts = np.stack(
        [
            known / _DAY,
            (month - year.astype("datetime64[M]")).astype(np.int64) + 1.0,
            (date - month.astype("datetime64[D]")).astype(np.int64) + 1.0,
            weekday,
            within / _HOUR,
            *_circle(day_share),
            *_circle((weekday + day_share) / 7),
            *_circle((year_day + day_share) / _YEAR_DAYS),
        ],
        axis=1,
    )
    parts[missing] = np.nan
    return parts


def _circle(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Rounded, so that no processor's last bit sends a row to another leaf.
    return np.round(np.sin(2 * np.pi * turns), 12), np.round(np.cos(2 * np.pi * turns), 12)


def _local(moments: np.ndarray, timezone: str) -> np.ndarray:
    """What clocks show there, counted as if it were UTC."""
    there = pd.DatetimeIndex(moments.view("datetime64[us]")).tz_localize("UTC").tz_convert(timezone)
    return there.tz_localize(None).as_unit("us").to_numpy().astype(np.int64)


def _microseconds(moments: Any) -> np.ndarray:
    """int64 (n, columns)."""
    if not isinstance(moments, pd.DataFrame):
        held = np.asarray(moments)
        held = held.reshape(-1, 1) if held.ndim == 1 else held
        return held if held.dtype.kind == "i" else held.astype("datetime64[us]").astype(np.int64)
    columns = []
    for name in moments.columns:
        column = moments[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        if not pd.api.types.is_datetime64_any_dtype(column.dtype):
            raise DataError(f"column {name!r} holds {column.dtype}, not times", "Give datetime64 in UTC")
        columns.append(column.to_numpy().astype("datetime64[us]").astype(np.int64))
    return np.stack(columns, axis=1)


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
