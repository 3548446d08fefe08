"""Which pipeline a definition means, and where its hyperparameters may lie. Nothing is fitted here.

Every pipeline reads a `feature_frame`. The built-in ones have two steps: `preprocess`, which no hyperparameter
touches (so tuning fits it once), and `estimator`. Classification is fitted on the classes' codes 0, 1, 2, …: of two
`classes_[1]` is positive.

An importable class (`sklearn.ensemble.ExtraTreesClassifier`) stands behind the same preprocessing; a stored pipeline
(`churn.skops`) is cloned as it is. A team's own file gives `function(definition, parameters, seed)`, which returns an
unfitted estimator or pipeline on the feature frame, and may define beside it `search_space(trial)`, which returns the
parameters of an Optuna trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from perennial.definition import ModelDefinition
from perennial.errors import DefinitionError, PerennialError
from perennial.model.plugins import find_attribute, line_of, load_attribute, split_spec
from perennial.model.transformers import DateParts, EmptyColumns, ImageStatistics, TextVectors
from tasks.learning.foreign import build_class, estimator_file, is_class, stored_pipeline, takes_gaps, takes_sparse

Parameters = Mapping[str, Any]

# HistGradientBoosting bins a category to a code below 255; rarer ones than the 254 most frequent share the last.
MOST_CATEGORIES = 255
# Dense directions of one text column for trees; beyond some fifty, splits get rare and fits slow.
TEXT_COMPONENTS = 32


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included; the default is the library's or a proven one."""

    low: float
    high: float
    default: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Any, name: str) -> float:
        pick = trial.suggest_int if self.whole else trial.suggest_float
        return pick(name, self.low, self.high, log=self.log)  # type: ignore[no-any-return]

    def nearest(self, value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
            return None
        inside = min(max(float(value), self.low), self.high)
        return round(inside) if self.whole else inside


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    options: tuple[Any, ...]
    default: Any

    def suggest(self, trial: Any, name: str) -> Any:
        return trial.suggest_categorical(name, self.options)

    def nearest(self, value: Any) -> Any | None:
        return value if value in self.options else None


SEARCH_SPACES: dict[str, dict[str, Range | Choice]] = {
    # Its defaults are smaller trees than the library's: on four of five drifting sets they lost less later on.
    "hist_gradient_boosting": {
        "learning_rate": Range(0.02, 0.3, 0.06, log=True),
        "max_iter": Range(50, 400, 150, log=True, whole=True),
        "max_leaf_nodes": Range(7, 127, 15, log=True, whole=True),
        "min_samples_leaf": Range(5, 300, 40, log=True, whole=True),
        "l2_regularization": Range(1e-3, 100, 1.0, log=True),
        "max_features": Range(0.3, 1.0, 1.0),
    },
    "random_forest": {
        "n_estimators": Range(100, 300, 150, whole=True),
        "max_features": Range(0.2, 1.0, 0.4),
        "min_samples_leaf": Range(1, 100, 20, log=True, whole=True),
        "max_samples": Range(0.3, 1.0, 0.5),
    },
    "linear": {"C": Range(1e-4, 100, 1.0, log=True)},
}
# First points of a search beside the defaults, cheap ones first: sets that lost little on tables other than the one
# searched, each strong where the others are weak. A small model for what drifts, many stumpy trees, large even leaves.
FIRST_POINTS: dict[str, tuple[dict[str, Any], ...]] = {
    "hist_gradient_boosting": (
        {
            "learning_rate": 0.03, "max_iter": 70, "max_leaf_nodes": 24, "min_samples_leaf": 60,
            "l2_regularization": 5.0, "max_features": 0.7,
        },
        {
            "learning_rate": 0.08, "max_iter": 400, "max_leaf_nodes": 7, "min_samples_leaf": 30,
            "l2_regularization": 3.5, "max_features": 0.5,
        },
        {
            "learning_rate": 0.04, "max_iter": 200, "max_leaf_nodes": 50, "min_samples_leaf": 300,
            "l2_regularization": 1.0, "max_features": 0.8,
        },
    ),
}  # fmt: skip
_FOREST = {
    "n_estimators": Range(100, 300, 150, whole=True),
    "max_features": Range(0.2, 1.0, 0.4),
    "min_samples_leaf": Range(1, 100, 5, log=True, whole=True),
}
# Classes that are named by their path; others are fitted with their own defaults.
CLASS_SPACES: dict[str, dict[str, Range | Choice]] = {
    "ExtraTreesClassifier": {**_FOREST},
    "ExtraTreesRegressor": {**_FOREST},
    "RandomForestClassifier": {**_FOREST},
    "RandomForestRegressor": {**_FOREST},
    "DecisionTreeClassifier": {"min_samples_leaf": Range(1, 300, 20, log=True, whole=True)},
    "DecisionTreeRegressor": {"min_samples_leaf": Range(1, 300, 20, log=True, whole=True)},
    "KNeighborsClassifier": {"n_neighbors": Range(3, 100, 15, log=True, whole=True)},
    "KNeighborsRegressor": {"n_neighbors": Range(3, 100, 15, log=True, whole=True)},
    "LogisticRegression": {"C": Range(1e-4, 100, 1.0, log=True)},
    "Ridge": {"alpha": Range(1e-3, 1e5, 1.0, log=True)},
    "Lasso": {"alpha": Range(1e-5, 10, 0.01, log=True)},
    "ElasticNet": {"alpha": Range(1e-5, 10, 0.01, log=True), "l1_ratio": Range(0.05, 1.0, 0.5)},
    "MLPClassifier": {"alpha": Range(1e-5, 1.0, 1e-3, log=True)},
    "MLPRegressor": {"alpha": Range(1e-5, 1.0, 1e-3, log=True)},
}
_REGRESSION_SPACES: dict[str, dict[str, Range | Choice]] = {"linear": {"alpha": Range(1e-3, 1e5, 1.0, log=True)}}
_CLASSES = {
    ("hist_gradient_boosting", "classification"): HistGradientBoostingClassifier,
    ("hist_gradient_boosting", "regression"): HistGradientBoostingRegressor,
    ("random_forest", "classification"): RandomForestClassifier,
    ("random_forest", "regression"): RandomForestRegressor,
    ("linear", "classification"): LogisticRegression,
    ("linear", "regression"): Ridge,
}


def build_pipeline(definition: ModelDefinition, parameters: Parameters, seed: int) -> Pipeline:
    """The unfitted pipeline; its last step is `estimator`, and reads a feature frame through the ones before.

    Args:
        definition: Names the estimator, the features and their fixed parameters, which win over `parameters`.
        parameters: Hyperparameters; what they leave out keeps its default.
        seed: Of everything random in it.

    Raises:
        DefinitionError: A parameter the estimator doesn't know, or a custom function that gives no estimator.
    """
    chosen = {**parameters, **definition.training.parameters}
    if definition.training.estimator.endswith(".skops"):
        return stored_pipeline(definition, chosen)
    if is_custom(definition):
        return _custom_pipeline(definition, chosen, seed)
    if is_class(definition):
        estimator = build_class(definition, chosen, seed)
        preprocessing = _preprocessing(
            definition, seed, whole=not takes_gaps(estimator), sparse=takes_sparse(estimator)
        )
        return Pipeline([("preprocess", preprocessing), ("estimator", estimator)])
    return Pipeline(
        [("preprocess", _preprocessing(definition, seed)), ("estimator", _estimator(definition, chosen, seed))]
    )


def is_custom(definition: ModelDefinition) -> bool:
    """Whether the estimator comes from a file of the team's."""
    return estimator_file(definition) is not None


def built_in_space(definition: ModelDefinition) -> dict[str, Range | Choice]:
    """The hyperparameters left to search: none for a custom estimator, none that the definition fixes."""
    name = definition.training.estimator
    spaces = SEARCH_SPACES | (_REGRESSION_SPACES if definition.task == "regression" else {})
    if is_class(definition):
        name = name.rpartition(".")[2]
        spaces = CLASS_SPACES
    return {key: item for key, item in spaces.get(name, {}).items() if key not in definition.training.parameters}


def default_parameters(definition: ModelDefinition) -> dict[str, Any]:
    """The starting point of a search, without the definition's fixed parameters."""
    return {name: item.default for name, item in built_in_space(definition).items()}


def points_from_elsewhere(definition: ModelDefinition) -> list[dict[str, Any]]:
    """Points of the search space that did well on other tables; none where the definition fixes part of a point."""
    points = FIRST_POINTS.get(definition.training.estimator, ())
    space = built_in_space(definition)
    return [dict(point) for point in points if set(point) == set(space)]


def parameter_suggestion(definition: ModelDefinition) -> Callable[[Any], dict[str, Any]] | None:
    """What turns an Optuna trial into parameters, or None where there is nothing to search.

    Raises:
        DefinitionError: The custom file can't be loaded, or (when called) its `search_space` gives no mapping.
    """
    if space := built_in_space(definition):
        return lambda trial: {name: item.suggest(trial, name) for name, item in space.items()}
    if ":" not in definition.training.estimator:
        return None
    path, _ = split_spec(definition.training.estimator, definition.folder)
    own = find_attribute(f"{path}:search_space", definition.folder)
    if own is None:
        return None

    def suggest(trial: Any) -> dict[str, Any]:
        given = own(trial)
        if not isinstance(given, Mapping):
            raise DefinitionError(
                f"{path}: search_space gave {type(given).__name__}, not a mapping", "Return the trial's parameters"
            )
        return dict(given)

    return suggest


def _estimator(definition: ModelDefinition, parameters: dict[str, Any], seed: int) -> Any:
    name = definition.training.estimator
    kind = _CLASSES[name, definition.task]
    values: dict[str, Any] = {"random_state": seed}
    if name == "hist_gradient_boosting":
        first = len(definition.features.numeric)
        # Its own early stopping would hold back random rows; here validation is always the newest time.
        values |= {
            "categorical_features": list(range(first, first + len(definition.features.categorical))) or None,
            "early_stopping": False,
        }
    elif kind is LogisticRegression:
        values |= {"max_iter": 1000}
    defaults = default_parameters(definition)
    values |= {**defaults, **parameters}
    known = sorted(kind().get_params())
    if unknown := sorted(set(values) - set(known)):
        raise DefinitionError(
            f"training.parameters: {kind.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}",
            "Correct the name",
        )
    return kind(**values)


def _preprocessing(
    definition: ModelDefinition, seed: int, *, whole: bool | None = None, sparse: bool = True
) -> ColumnTransformer:
    """Numeric, categorical, text, image, boolean and datetime columns, in this order.

    Args:
        whole: Whether gaps are filled, numbers scaled and categories parted into columns; by default for `linear`.
        sparse: Whether the estimator reads sparse rows.
    """
    linear = definition.training.estimator == "linear" if whole is None else whole
    features = definition.features
    steps: list[tuple[str, Any, Any]] = []
    if features.numeric:
        steps.append(("numeric", _scaled() if linear else EmptyColumns(), list(features.numeric)))
    if features.categorical:
        steps.append(("categorical", _one_hot(sparse) if linear else _ordinal(), list(features.categorical)))
    for column in features.text:
        vectors = TextVectors(components=None if linear and sparse else TEXT_COMPONENTS, seed=seed)
        steps.append((f"text_{column}", vectors, column))
    for column in features.image:
        numbers = make_pipeline(ImageStatistics(), _scaled() if linear else EmptyColumns())
        steps.append((f"image_{column}", numbers, column))
    if features.boolean:
        steps.append(("boolean", _scaled() if linear else EmptyColumns(), list(features.boolean)))
    if features.datetime:
        parts = make_pipeline(DateParts(timezone=features.timezone), _scaled() if linear else EmptyColumns())
        steps.append(("datetime", parts, list(features.datetime)))
    return ColumnTransformer(steps, remainder="drop", verbose_feature_names_out=False)


def _ordinal() -> OrdinalEncoder:
    return OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=MOST_CATEGORIES,
    )


def _one_hot(sparse: bool) -> OneHotEncoder:
    # A category seen fewer than ten times has a coefficient of noise; all such share one column.
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=10, max_categories=MOST_CATEGORIES, sparse_output=sparse
    )


def _scaled() -> Pipeline:
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler())


def _custom_pipeline(definition: ModelDefinition, parameters: dict[str, Any], seed: int) -> Pipeline:
    spec = definition.training.estimator
    function = load_attribute(spec, definition.folder)
    try:
        built = function(definition, parameters, seed)
    except PerennialError:
        raise
    except Exception as error:  # the team's code may raise anything
        path, name = split_spec(spec, definition.folder)
        if isinstance(error, TypeError) and line_of(error, path) == "?":
            remedy = "Define it as function(definition, parameters, seed)"
            raise DefinitionError(f"training.estimator {spec}: {error}", remedy) from error
        where = f"{path}: line {line_of(error, path)}"
        raise DefinitionError(f"{where}: {name} fails: {type(error).__name__}: {error}", "Mend it there") from error
    wanted = "predict_proba" if definition.task == "classification" else "predict"
    lacking = [name for name in ("fit", wanted) if not hasattr(built, name)]
    if lacking:
        raise DefinitionError(
            f"training.estimator {spec}: gave {type(built).__name__}, which has no {' and no '.join(lacking)}",
            f"Return an unfitted scikit-learn estimator for {definition.task}",
        )
    return built if isinstance(built, Pipeline) else Pipeline([("estimator", built)])
