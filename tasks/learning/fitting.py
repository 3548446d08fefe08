"""Fitting one challenger and scoring with it; what identifies a training. No search, no judging, no registry."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import ThreadpoolController

from perennial import __version__
from perennial.definition import ModelDefinition
from perennial.errors import DataError, PerennialError
from perennial.model.known import frame_as_known, known_categories
from perennial.model.plugins import content_digest, line_of
from perennial.model.scores import class_scores, is_many, shares
from tasks.learning.estimators import build_pipeline
from tasks.learning.foreign import estimator_file
from tasks.measures.described.images import stored_features
from tasks.rows.reviewed import ROW_WEIGHT
from tasks.rows.split import utc_times

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedModel:
    """A fitted pipeline and what is to be known of its fit.

    Args:
        pipeline: Reads a feature frame; for classification it was fitted on the classes' codes.
        parameters: The hyperparameters it was built with, fixed ones included.
        classes: The target's values as text, in the order of their codes; empty for regression.
        positive: Of two classes the positive one as text; else None.
        trained_rows: How many rows it learned from.
        trained_from, trained_until: The oldest and newest time among them.
        seconds: Wall time of the fit.
        baseline: The training rows' share of positives, of each class, or mean: the score of the model that knows no
            feature.
    """

    pipeline: Pipeline
    parameters: dict[str, Any]
    classes: tuple[str, ...]
    positive: str | None
    trained_rows: int
    trained_from: datetime
    trained_until: datetime
    seconds: float
    baseline: float | FloatArray


def fit(
    definition: ModelDefinition, frame: pd.DataFrame, parameters: Mapping[str, Any], seed: int, *, threads: int = -1
) -> FittedModel:
    """Fit the definition's pipeline on every row of the frame.

    Args:
        definition: The model.
        frame: Labelled rows with the features, time and target; it is not changed.
        parameters: Hyperparameters; the definition's fixed ones win over them.
        seed: Of everything random in the fit.
        threads: For estimators that leave n_jobs open (forests); -1 is one for each core; see `boosting_threads`.
            The fit doesn't depend on it.

    Raises:
        DataError: Rows or target can't be used, or the estimator refuses them.
        DefinitionError: The estimator can't be built.
    """
    classes = target_classes(frame[definition.data.target], definition)
    target = encode_target(frame[definition.data.target], definition, classes)
    _require_every_class(target, classes, definition)
    features = stored_features(frame, definition.features)
    times = utc_times(frame[definition.data.time])
    pipeline = build_pipeline(definition, parameters, seed)
    started = time.perf_counter()
    # Estimators that leave n_jobs open (forests) use every core here; in tuning they stay on their trial's thread.
    with joblib.parallel_config(backend="threading", n_jobs=threads), boosting_threads(threads):
        fit_pipeline(pipeline, features, target, definition, row_weights(frame, definition))
    return FittedModel(
        pipeline=pipeline,
        parameters={**parameters, **definition.training.parameters},
        classes=classes,
        positive=classes[1] if len(classes) == 2 else None,
        trained_rows=len(target),
        trained_from=_moment(times.min()),
        trained_until=_moment(times.max()),
        seconds=time.perf_counter() - started,
        baseline=shares(target, len(classes)) if len(classes) > 2 else float(target.mean()),
    )


def _require_every_class(target: FloatArray, classes: tuple[str, ...], definition: ModelDefinition) -> None:
    """A model that has never seen a class can't answer how likely it is."""
    if len(classes) <= 2:
        return
    counts = np.bincount(target.astype(np.int64), minlength=len(classes))
    if absent := [name for name, count in zip(classes, counts, strict=True) if not count]:
        named = ", ".join(absent[:10])
        raise DataError(
            f"of the {len(target):,} rows that {definition.name} would learn from, none is of the class {named}",
            "Learn from rows of every class",
        )


def boosting_threads(threads: int = -1) -> AbstractContextManager[Any]:
    """Within it, OpenMP uses half as many threads as are given (-1: as there are cores), and one at the least.

    Boosting's threads meet after each split and each tree: the second of two cores, asleep between the meetings, makes
    fits and scores of any size slower, not quicker, and is free for other work instead.
    """
    share = max(1, (joblib.cpu_count() if threads == -1 else threads) // 2)
    limits: AbstractContextManager[Any] = thread_pools().limit(limits=share, user_api="openmp")
    return limits


@lru_cache(maxsize=1)
def thread_pools() -> ThreadpoolController:
    """The threads of this process's numeric libraries, looked for once: that takes longer than a small fit."""
    import sklearn.ensemble  # noqa: F401 - a controller knows the libraries that are loaded when it is made

    return ThreadpoolController()


def row_weights(frame: pd.DataFrame, definition: ModelDefinition) -> FloatArray | None:
    """How much each row counts, float64 of shape (n,); None where all count alike.

    Raises:
        DataError: The column was never ingested, or holds gaps or numbers below 0.
    """
    name = definition.training.weights
    by_review = frame[ROW_WEIGHT].to_numpy(dtype=np.float64) if ROW_WEIGHT in frame.columns else None
    if name is None:
        return by_review
    weights = frame[name].to_numpy(dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        wrong = int((~np.isfinite(weights)).sum())
        raise DataError(
            f"training.weights: {name} is missing in {wrong:,} of {len(weights):,} labelled rows, below 0 in "
            f"{int((weights < 0).sum()):,}",
            "Ingest rows with a weight of 0 or more each, or fill it in the source",
        )
    return weights if by_review is None else weights * by_review


def fit_pipeline(
    estimator: Any, features: Any, target: FloatArray, definition: ModelDefinition, weights: FloatArray | None = None
) -> Any:
    """Fit in place on encoded targets, turning what the estimator refuses into a DataError."""
    values = target.astype(np.int64) if definition.task == "classification" else target
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    given: dict[str, Any] = {}
    if weights is not None:
        if not has_fit_parameter(last, "sample_weight"):
            why = f"training.weights names {definition.training.weights}"
            remedy = "Take training.weights out, or another estimator"
            if definition.training.weights is None:
                why, remedy = "rows were chosen for review", "Set review.most_weight: 1, or take another estimator"
            raise DataError(f"{type(last).__name__} takes no weights, and {why}", remedy)
        prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
        given = {f"{prefix}sample_weight": weights}
    try:
        return estimator.fit(features, values, **given)
    except PerennialError:
        raise
    except Exception as error:
        own = estimator_file(definition)
        if own is None and not isinstance(error, ValueError | TypeError):
            raise
        reason = " ".join(str(error).split())[:500]
        if own is not None:
            reason = f"{type(error).__name__} at line {line_of(error, own)} of {own}: {reason}"
        raise DataError(
            f"{definition.training.estimator} refused {len(target)} rows of {definition.name}: {reason}",
            "Correct the estimator's file" if own else "Correct training.parameters or the features",
        ) from error


def predict_score(
    pipeline: Any, features: Any, task: Literal["classification", "regression"], *, classes: int | None = None
) -> FloatArray:
    """P(positive), each class's probability, or the predicted value: float64 of shape (n,), or (n, k) of many classes.

    Args:
        pipeline: Fitted on the classes' codes for classification, as `fit` does it.
        features: A feature frame, or what the pipeline's last step reads when given that step alone.
        task: Of the model's definition.
        classes: How many there are, where the pipeline may have seen fewer.

    Raises:
        DataError: The pipeline gave another shape or a value that is not finite.
    """
    if not features.shape[0]:
        return np.empty((0, classes) if classes and classes > 2 else 0, dtype=np.float64)
    if isinstance(features, pd.DataFrame):
        features = frame_as_known(features, known_categories(pipeline))
    with boosting_threads():
        raw = pipeline.predict_proba(features) if task == "classification" else pipeline.predict(features)
    scores = np.asarray(raw, dtype=np.float64)
    if task == "classification":
        scores = class_scores(scores, getattr(pipeline, "classes_", None), classes)
    if not is_many(scores):
        scores = np.ascontiguousarray(scores)
    if task == "regression":
        scores = np.ascontiguousarray(scores.reshape(len(scores), -1)[:, 0] if scores.ndim > 1 else scores)
    if scores.shape[0] != features.shape[0] or not np.isfinite(scores).all():
        raise DataError(
            f"the model gave {scores.shape} scores for {features.shape[0]} rows, "
            f"{int((~np.isfinite(scores)).sum())} of them not finite",
            "Check the estimator's predict_proba or predict",
        )
    return scores


def target_classes(series: pd.Series[Any], definition: ModelDefinition) -> tuple[str, ...]:
    """The target's values as text, (negative, positive) or the definition's many `classes`; empty for regression.

    The positive one is the definition's `positive`, else the greater (of numbers by size, of texts by alphabet).

    Raises:
        DataError: There are not exactly two classes and the definition names no more, or `positive` is none of them.
    """
    if definition.task == "regression":
        return ()
    if len(definition.classes) > 2:
        return definition.classes
    values = list(pd.unique(series.dropna()))
    texts = sorted({class_text(value) for value in values}, key=_class_order)
    if len(texts) != 2:
        found = ", ".join(texts[:10]) + (", …" if len(texts) > 10 else "")
        raise DataError(
            f"target {series.name!r} has {len(texts)} classes{': ' + found if found else ''}; exactly two are needed",
            "Make it two classes when ingesting, or train on rows that hold both",
        )
    if definition.positive is None:
        return tuple(texts)
    wanted = _same(definition.positive, texts)
    if wanted is None:
        raise DataError(
            f"positive {definition.positive!r} is no class of target {series.name!r}: {', '.join(texts)}",
            "Correct `positive` in the definition",
        )
    return tuple([text for text in texts if text != wanted] + [wanted])


def encode_target(
    series: pd.Series[Any], definition: ModelDefinition, classes: tuple[str, ...] | None = None
) -> FloatArray:
    """The truth as float64 of shape (n,): the class's code for classification, the value for regression.

    Args:
        series: The target column.
        definition: Task and positive class.
        classes: Those of the model to be judged, in order, so that a window with one class, or with a new
            one, reads as that model means it; by default, the two that the series has.

    Raises:
        DataError: A value is missing, not finite, or of no known class; row and value are named.
    """
    if series.isna().any():
        row = int(series.isna().to_numpy().argmax())
        raise DataError(
            f"target {series.name!r}, row {row} (counted from 0): missing, like {int(series.isna().sum())} of "
            f"{len(series)}",
            "Leave unlabelled rows out",
        )
    if definition.task == "regression":
        return _regression_target(series)
    known = classes or target_classes(series, definition)
    codes, uniques = pd.factorize(series.astype(object))
    mapping = np.empty(len(uniques), dtype=np.float64)
    for number, value in enumerate(uniques):
        text = _same(class_text(value), list(known))
        if text is None:
            row = int((codes == number).argmax())
            raise DataError(
                f"target {series.name!r}, row {row} (counted from 0): {value!r} is "
                + (f"neither {known[0]!r} nor {known[1]!r}" if len(known) == 2 else f"none of {', '.join(known)}"),
                "Correct the label, or retrain on the new classes",
            )
        mapping[number] = float(known.index(text))
    return mapping[codes]


def class_text(value: object) -> str:
    """A class as text; whole numbers without a decimal point, whichever type held them."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def training_key(definition: ModelDefinition, data_digest: str, as_of: datetime, seed: int) -> str:
    """What makes two trainings the same one: 32 hex digits, the guard of an idempotent registration.

    It covers the definition, a custom estimator's file, the rows, the moment and the seed.
    """
    own = estimator_file(definition)
    custom = None if own is None else content_digest(own)
    parts = [definition.name, definition.hash, custom, data_digest, as_of.astimezone(UTC).isoformat(), seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def data_digest(frame: pd.DataFrame) -> str:
    """32 hex digits over every cell, column name and type; the order of rows and columns doesn't matter.

    Each row becomes 64 bits (`pandas.util.hash_pandas_object`); their sorted list goes through SHA-256, so two
    different frames agree with a chance of about rows × 2⁻⁶⁴.
    """
    ordered = frame[sorted(frame.columns, key=str)]
    header = json.dumps([len(frame), [[str(name), str(kind)] for name, kind in ordered.dtypes.items()]])
    digest = hashlib.sha256(header.encode())
    if len(ordered.columns):
        rows = pd.util.hash_pandas_object(ordered, index=False).to_numpy(dtype=np.uint64)
        digest.update(np.sort(rows).astype("<u8").tobytes())
    return digest.hexdigest()[:32]


def environment_fingerprint() -> dict[str, str]:
    """The versions that a fit's outcome depends on, and under `hash` 16 hex digits over them."""
    import scipy
    import sklearn

    parts = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
        "perennial": __version__,
    }
    return {**parts, "hash": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}


def _regression_target(series: pd.Series[Any]) -> FloatArray:
    values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise DataError(
            f"target {series.name!r}, row {row} (counted from 0): {series.iloc[row]!r} is no finite number",
            "Correct the label or leave the row out",
        )
    return values


def _class_order(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def _same(wanted: str, texts: list[str]) -> str | None:
    """The class that a YAML's or a label file's spelling means: exactly, or true/false and 1/0 for each other."""
    if wanted in texts:
        return wanted
    truths = {"true": "1", "false": "0"}
    plain = truths.get(wanted.lower(), wanted.lower())
    return next((text for text in texts if truths.get(text.lower(), text.lower()) == plain), None)


def _moment(time_value: np.datetime64) -> datetime:
    return pd.Timestamp(time_value, tz="UTC").to_pydatetime()
