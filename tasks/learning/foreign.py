"""Estimators that are not built in: a class by its dotted name, a stored pipeline by its file. Nothing is fitted."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from perennial.definition import ModelDefinition
from perennial.errors import DefinitionError
from perennial.model.artifacts import trusted_types


def estimator_file(definition: ModelDefinition) -> Path | None:
    """The file that the estimator comes from: a team's Python, or a stored pipeline; None for a name or a class."""
    spec = definition.training.estimator
    if ":" not in spec and not spec.endswith(".skops"):
        return None
    return (definition.folder / Path(spec.rpartition(":")[0] or spec).expanduser()).resolve()


def is_class(definition: ModelDefinition) -> bool:
    """Whether the estimator is an importable class, such as sklearn.ensemble.ExtraTreesClassifier."""
    spec = definition.training.estimator
    return "." in spec and estimator_file(definition) is None


def estimator_class(definition: ModelDefinition) -> type[Any]:
    """The class that a dotted name means.

    Raises:
        DefinitionError: It can't be imported, or is no estimator for the task.
    """
    spec = definition.training.estimator
    module, _, name = spec.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise DefinitionError(
            f"training.estimator {spec}: {error}", "Install its package, or correct the name"
        ) from error
    if not inspect.isclass(found):
        names = sorted(key for key, item in vars(importlib.import_module(module)).items() if inspect.isclass(item))
        raise DefinitionError(
            f"training.estimator {spec}: {module} has no class {name}", f"It has {', '.join(names[:30]) or 'none'}"
        )
    wanted = "predict_proba" if definition.task == "classification" else "predict"
    lacking = [method for method in ("fit", "get_params", wanted) if not hasattr(found, method)]
    if lacking:
        raise DefinitionError(
            f"training.estimator {spec}: it has no {' and no '.join(lacking)}",
            f"Name a scikit-learn estimator for {definition.task}",
        )
    return found


def build_class(definition: ModelDefinition, parameters: Mapping[str, Any], seed: int) -> Any:
    """The class with its parameters; its seed where it takes one.

    Raises:
        DefinitionError: It doesn't know a parameter.
    """
    kind = estimator_class(definition)
    try:
        known = sorted(kind().get_params())
    except TypeError as error:
        raise DefinitionError(
            f"training.estimator {definition.training.estimator}: {error}",
            "Build it in a function of your own: `estimator: file.py:function`",
        ) from error
    if unknown := sorted(set(parameters) - set(known)):
        raise DefinitionError(
            f"training.parameters: {kind.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}",
            "Correct the name",
        )
    return kind(**({"random_state": seed} if "random_state" in known else {}), **parameters)


def takes_gaps(estimator: Any) -> bool:
    """Whether it reads missing values as they are."""
    return bool(get_tags(estimator).input_tags.allow_nan)


def takes_sparse(estimator: Any) -> bool:
    return bool(get_tags(estimator).input_tags.sparse)


def stored_pipeline(definition: ModelDefinition, parameters: Mapping[str, Any]) -> Pipeline:
    """A clone, without its fit, of the pipeline in a skops file.

    Raises:
        DefinitionError: The file is missing, is none, holds types that nobody trusts, or doesn't know a parameter.
    """
    import skops.io

    path = estimator_file(definition)
    assert path is not None
    if not path.is_file():
        raise DefinitionError(f"training.estimator: there is no file {path}", "Correct the path")
    trusted = trusted_types(definition.training)
    try:
        strange = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
        found = None if strange else clone(skops.io.load(path, trusted=list(trusted)))
    except Exception as error:  # whatever a file that is none holds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DefinitionError(f"training.estimator {path.name}: {reason}", "Store it anew by skops.io.dump") from error
    if found is None:
        raise DefinitionError(
            f"training.estimator {path.name} holds types that nobody trusts: {', '.join(strange)}",
            f"If you do, write `training: {{trusted_types: [{', '.join(strange)}]}}`",
        )
    try:
        found.set_params(**parameters)
    except ValueError as error:
        raise DefinitionError(f"training.parameters: {error}", "Correct the name") from error
    return found if isinstance(found, Pipeline) else Pipeline([("estimator", found)])
