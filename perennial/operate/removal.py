"""Taking a model away: what it has here, and removing it whole. It asks nobody, and makes no backup.

The order is that of trust: first nobody can be told of a champion any more, then the registry, then the tables.
Definition and suite are moved, not removed: they may be the only ones of their kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial.errors import NotFoundError
from perennial.settings import Settings
from perennial.state.storage import Objects
from perennial.workspace import Workspace


@dataclass(frozen=True)
class Part:
    """One thing that a model has here.

    Attributes:
        kind: definition, suite, registry, table, artifacts or files.
        place: Where it lies.
        detail: How much of it.
    """

    kind: str
    place: str
    detail: str


def parts(settings: Settings, model: str) -> list[Part]:
    """All that a model has in this installation, as it is now.

    Raises:
        NotFoundError: There is nothing of that name.
    """
    found = [*_files_of_people(settings, model), *_registered(settings, model), *_tables(settings, model)]
    found += _artifacts(settings, model)
    for folder in _folders(settings, model):
        if folder.exists():
            found.append(Part("files", str(folder), _size(folder)))
    if not found:
        raise NotFoundError(f"there is nothing of a model {model!r} here", "See `perennial models`")
    return found


def remove(settings: Settings, model: str, *, at: datetime) -> Path:
    """Remove all of it; the folder into which definition and suite were moved.

    Raises:
        ConflictError: It is being retrained or ingested.
        NotFoundError: There is nothing of that name.
    """
    parts(settings, model)
    workspace = Workspace(settings)
    kept = settings.home_path / "removed" / f"{model}-{at:%Y%m%dT%H%M%S}"
    with workspace.retraining(model, wait_seconds=0), workspace.ingesting(model, wait_seconds=0):
        kept.mkdir(parents=True)
        for part in _files_of_people(settings, model):
            shutil.move(part.place, kept / Path(part.place).name)
        for folder in _folders(settings, model):
            if folder.is_dir():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
        _unregister(workspace, model, at)
        for root in (settings.artifacts_root, settings.tables_root):
            objects = Objects(root)
            for entry in objects.entries(f"{model}/"):
                objects.delete(entry.name)
        for folder in (Path(settings.artifacts_root) / model, Path(settings.tables_root) / model):
            shutil.rmtree(folder, ignore_errors=True)  # what is left of a folder's objects: empty folders
    return kept


def _files_of_people(settings: Settings, model: str) -> Iterator[Part]:
    for kind, folders, ending in (
        ("definition", settings.model_folders, "yaml"), ("suite", settings.expectation_folders, "json"),
    ):  # fmt: skip
        for folder in folders:
            if (path := folder / f"{model}.{ending}").is_file():
                yield Part(kind, str(path), "moved, not removed")


def _folders(settings: Settings, model: str) -> list[Path]:
    home = settings.home_path
    return [
        home / "live" / f"{model}.json", home / "serving" / "good" / f"{model}.json",
        home / "serving" / "versions" / model, home / "work" / model, home / "reports" / model, home / "init" / model,
    ]  # fmt: skip


def _registered(settings: Settings, model: str) -> Iterator[Part]:
    database = settings.mlflow_uri
    if database.startswith("sqlite:///") and not Path(database.removeprefix("sqlite:///")).exists():
        return
    registry = Workspace(settings).registry
    if versions := registry.versions(model):
        yield Part("registry", registry.tracking_uri.partition("@")[2] or registry.tracking_uri, _versions(versions))
    elif registry.client.get_experiment_by_name(model) is not None:
        yield Part("registry", "runs", "an experiment without a version")


def _versions(versions: list[Any]) -> str:
    return f"{len(versions)} version{'s' * (len(versions) > 1)} with their runs"


def _tables(settings: Settings, model: str) -> Iterator[Part]:
    objects = Objects(settings.tables_root)
    for name in sorted(objects.folders(f"{model}/")):
        held = objects.entries(f"{model}/{name}/")
        size = sum(entry.size for entry in held) / 2**20
        yield Part("table", f"{settings.tables_root}/{model}/{name}", f"{len(held)} files, {size:.1f} MiB")


def _artifacts(settings: Settings, model: str) -> Iterator[Part]:
    held = Objects(settings.artifacts_root).entries(f"{model}/")
    if held:
        size = sum(entry.size for entry in held) / 2**20
        yield Part("artifacts", f"{settings.artifacts_root}/{model}", f"{len(held)} files, {size:.1f} MiB")


def _unregister(workspace: Workspace, model: str, at: datetime) -> None:
    """The model, its versions and runs; the experiment gives its name back, so that another model may have it."""
    from mlflow.exceptions import MlflowException

    client = workspace.registry.client
    try:
        client.delete_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    experiment = client.get_experiment_by_name(model)
    if experiment is not None and experiment.lifecycle_stage == "active":
        client.rename_experiment(experiment.experiment_id, f"{model} removed {at:%Y%m%dT%H%M%S}")
        client.delete_experiment(experiment.experiment_id)


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return f"{len(files)} files, {sum(item.stat().st_size for item in files) / 2**20:.1f} MiB"
