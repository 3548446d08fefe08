"""A fitted model from where a team keeps it: a file, or a version in MLflow. Loaded only as far as it is trusted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import DefinitionError, NotFoundError, RegistryError
from perennial.model.artifacts import trusted_types

PICKLES = (".joblib", ".pkl", ".pickle")


@dataclass(frozen=True)
class Found:
    """A model as it was found.

    Attributes:
        origin: Where, for people and for the version's tags.
        digest: 16 hex digits of its bytes.
        made_until: When it was certainly made: rows since then it has not seen; None where nobody recorded that.
    """

    model: Any
    origin: str
    digest: str
    made_until: datetime | None


def find_model(place: str, definition: ModelDefinition, *, tracking_uri: str) -> Found:
    """Load a model.

    Args:
        place: A path of a .skops, .joblib or .pkl file, or an MLflow address such as models:/churn@prod.
        tracking_uri: The registry that MLflow addresses are looked up in.

    Raises:
        NotFoundError: There is no such file or version.
        DefinitionError: It is a pickle, or holds types, which the definition doesn't allow.
        RegistryError: It can't be loaded.
    """
    if place.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return _of_mlflow(place, definition, tracking_uri)
    path = Path(place).expanduser()
    if path.is_dir() and (path / "MLmodel").is_file():
        return _of_folder(path, definition, str(path), None)
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", "Give a .skops, .joblib or .pkl file, or models:/NAME@ALIAS")
    return Found(_load_file(path, definition), path.name, _digest(path), None)


def _of_mlflow(place: str, definition: ModelDefinition, tracking_uri: str) -> Found:
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient(tracking_uri)
    with TemporaryDirectory(prefix="perennial-adopt-") as target:
        try:
            folder = Path(mlflow.artifacts.download_artifacts(place, tracking_uri=tracking_uri, dst_path=target))
            run_id = mlflow.models.get_model_info(str(folder)).run_id
            run = client.get_run(run_id) if run_id else None
        except (MlflowException, OSError) as error:
            raise NotFoundError(
                f"{place} can't be read from {tracking_uri.rpartition('@')[2]}: {' '.join(str(error).split())[:200]}",
                "Correct the address, or set --from to the registry that has it",
            ) from error
        ended = None if run is None else run.info.end_time or run.info.start_time
        made = None if ended is None else datetime.fromtimestamp(ended / 1000, UTC)
        return _of_folder(folder, definition, place, made)


def _of_folder(folder: Path, definition: ModelDefinition, origin: str, made: datetime | None) -> Found:
    import yaml

    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8")).get("flavors", {})
    if "sklearn" not in flavors:
        raise RegistryError(
            f"{origin} is no scikit-learn model: its flavors are {', '.join(flavors) or 'none'}",
            "Give one that mlflow.sklearn logged",
        )
    path = folder / flavors["sklearn"]["pickled_model"]
    return Found(_load_file(path, definition), origin, _digest(path), made)


def _load_file(path: Path, definition: ModelDefinition) -> Any:
    if path.suffix == ".skops":
        return _load_skops(path, definition)
    if path.suffix not in PICKLES:
        raise DefinitionError(f"{path.name} is of no kind that can be loaded", "Give .skops, .joblib or .pkl")
    if not definition.training.allow_pickle:
        raise DefinitionError(
            f"{path.name} is a pickle, which runs whatever it holds, and {definition.name} does not allow it",
            "Store it by skops (`skops.io.dump(model, 'model.skops')`), or set `training: {allow_pickle: true}` if you "
            "trust its author",
        )
    import joblib

    try:
        return joblib.load(path)
    except Exception as error:  # a pickle may raise anything
        raise RegistryError(
            f"{path.name} can't be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "Install the packages that it was made with, at their versions",
        ) from error


def _load_skops(path: Path, definition: ModelDefinition) -> Any:
    import skops.io

    trusted = trusted_types(definition.training)
    try:
        strange = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
        if not strange:
            return skops.io.load(path, trusted=list(trusted))
    except Exception as error:  # whatever a file that is none holds
        raise RegistryError(
            f"{path.name} can't be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "Install the packages that it was made with, at their versions",
        ) from error
    named = ", ".join([*definition.training.trusted_types, *strange])
    raise DefinitionError(
        f"{path.name} holds types that nobody trusts: {', '.join(strange)}",
        f"If you do, write `training: {{trusted_types: [{named}]}}`",
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
