"""Whether a fitted model reads what a definition gives it and answers what that asks; else it is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from perennial.definition import ModelDefinition
from perennial.definition.values import class_word
from perennial.errors import DataError
from perennial.model.adopted import Adopted
from perennial.model.truth import Classes


def matched(model: Any, definition: ModelDefinition, classes: Classes | None) -> Any:
    """The model as the definition asks it: itself, or behind its own columns and class order.

    Raises:
        DataError: It wants columns that the definition doesn't have, or other kinds of them, or answers other classes.
    """
    wanted = "predict_proba" if definition.task == "classification" else "predict"
    if not hasattr(model, wanted):
        raise DataError(
            f"the model is {type(model).__name__}, which has no {wanted}",
            f"Give a fitted scikit-learn estimator for {definition.task}",
        )
    columns, plain = _columns(model, definition)
    _require_kinds(model, definition)
    order = _class_order(model, classes)
    given = list(definition.features.columns)
    if columns == given and not plain and order == list(range(len(order))) and _counts_classes(model, order):
        return model
    return Adopted(model, columns, order, plain)


def _columns(model: Any, definition: ModelDefinition) -> tuple[list[str], bool]:
    """The columns that the model reads, in its order; and whether it knows no names."""
    given = list(definition.features.columns)
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        wanted = [str(name) for name in names]
        if missing := [name for name in wanted if name not in given]:
            known = f"; the definition has {', '.join(given)}"
            raise DataError(
                f"the model was fitted on columns that are no features: {', '.join(missing)}{known}",
                "Add them to the definition's features, by the names that the model knows",
            )
        return wanted, False
    count = getattr(model, "n_features_in_", None)
    if count is None:
        raise DataError(
            f"{type(model).__name__} doesn't say which columns it was fitted on",
            "Fit it on a DataFrame: scikit-learn keeps the names then",
        )
    if int(count) != len(given):
        raise DataError(
            f"the model was fitted on {count} columns without names, and the definition has {len(given)} features",
            "Name just those, in the order in which it was fitted",
        )
    if definition.features.columns != definition.features.numeric:
        raise DataError(
            "the model was fitted on columns without names, and not all features are numeric",
            "Fit it on a DataFrame: scikit-learn keeps the names then",
        )
    return given, True


def _require_kinds(model: Any, definition: ModelDefinition) -> None:
    """Refuse encoders that learned numbers of a column which the definition spells as text: they would know nothing."""
    text = {*definition.features.categorical, *definition.features.text}
    truths = set(definition.features.boolean)
    for encoder, columns in _encoders(model):
        for column, values in zip(columns, encoder.categories_, strict=False):
            if column in truths and np.asarray(values).dtype.kind not in "iufb":
                raise DataError(
                    f"the model learned {column} as text, and the definition gives truth values as 1 and 0: it would "
                    "know neither",
                    f"Make {column} a categorical feature, or fit the model on truth values",
                )
            if column in text and np.asarray(values).dtype.kind in "iufb":
                raise DataError(
                    f"the model learned {column} as numbers or truth values, and the definition spells categories as "
                    "text: it would know none of them",
                    f"Make {column} a numeric feature, or fit the model on texts",
                )


def _encoders(part: Any) -> Iterator[tuple[Any, list[str]]]:
    """Fitted encoders of categories, with the columns that they read, however deep."""
    for _, step, columns in getattr(part, "transformers_", ()) or ():
        names = [str(column) for column in columns] if isinstance(columns, list | np.ndarray) else [str(columns)]
        for inner in [step, *(each for _, each in getattr(step, "steps", ()) or ())]:
            if isinstance(getattr(inner, "categories_", None), list):
                yield inner, names
    for _, step in getattr(part, "steps", ()) or ():
        yield from _encoders(step)


def _class_order(model: Any, classes: Classes | None) -> list[int]:
    """For each of our classes the place among the model's."""
    if classes is None:
        return []
    own = list(getattr(model, "classes_", ()))
    words = [class_word(value.item() if isinstance(value, np.generic) else value) for value in own]
    coded = [classes.code(word) for word in words]
    order = [coded.index(code) for code in map(float, range(len(classes.names))) if code in coded]
    if len(order) != len(classes.names) or len(words) != len(order):
        raise DataError(
            f"the model answers {', '.join(words) or 'nothing'}, and the definition's classes are "
            f"{', '.join(classes.names)}",
            "Correct `classes` in the definition, or adopt a model of these classes",
        )
    return order


def _counts_classes(model: Any, order: list[int]) -> bool:
    """Whether its classes are 0, 1, …, as ours are in a stored model."""
    codes = [str(code) for code in range(len(order))]
    return not order or [class_word(value) for value in np.asarray(model.classes_).tolist()] == codes
