"""One place to get at all of this installation: definitions, tables, registry, ledger, folders. Decides nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from perennial.definition import NOT_MODELS, ModelDefinition, load_definition, load_definitions
from perennial.errors import NotFoundError
from perennial.settings import Settings, load_settings
from perennial.state.layout import require, stamp
from perennial.state.leases import Lease, hold
from perennial.state.ledger import Ledger
from perennial.state.registry import Registry, Version
from perennial.state.storage import Objects, storage_options
from perennial.state.store import Store

_IMPATIENT_SECONDS = 20.0


@dataclass(frozen=True)
class Workspace:
    """What the settings lead to; everything is opened when it is first asked for.

    Args:
        patient: Whether a registry or storage that is away is waited for, as flows do, or told at once.
        checked: Whether the layout was checked already, by who started this process.
    """

    settings: Settings
    patient: bool = False
    checked: bool = False

    @cached_property
    def store(self) -> Store:
        """The tables.

        Raises:
            ConflictError: Home or tables have another layout than this program's.
        """
        if not self.checked:
            require(self.settings)
        root, patience = self.settings.tables_root, self.settings.patience_seconds if self.patient else None
        options = storage_options(root, patience_seconds=_IMPATIENT_SECONDS if patience is None else patience)
        return Store(root, options, before_first=lambda: stamp(self.settings))

    @cached_property
    def registry(self) -> Registry:
        settings = self.settings
        return Registry(
            settings.mlflow_uri, settings.experiments_root, self.store, self.home / "live",
            publish=settings.tables is not None,
            patience_seconds=settings.patience_seconds if self.patient else 0.0,
            on_promotion=self._write_card,
        )  # fmt: skip

    def _write_card(self, version: Version) -> None:
        from perennial.cards.writing import write_or_tell

        write_or_tell(self.registry, lambda: self.definition(version.model), version, at=datetime.now(UTC))

    @property
    def home(self) -> Path:
        return self.settings.home_path

    def ledger(self, model: str) -> Ledger:
        return Ledger(self.store, model)

    def definitions(self) -> dict[str, ModelDefinition]:
        """Every model's definition by name."""
        return load_definitions(self.settings.model_folders)

    def files(self) -> dict[str, Path]:
        """Every definition's file by its model's name; none is opened, so that a broken one hides no other."""
        return {path.stem: path for path in reversed(list(self._files()))}

    def definition(self, model: str) -> ModelDefinition:
        """One model's definition; another model's broken file is no hindrance.

        Raises:
            NotFoundError: No folder has it; the nearest name is proposed.
            DefinitionError: It breaks a rule.
        """
        for path in self._files():
            if path.stem == model:
                return load_definition(path)
        names = sorted(path.stem for path in self._files())
        near = difflib.get_close_matches(model, names, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Defined are: {', '.join(names) or 'none'}"
        raise NotFoundError(f"there is no model {model!r}", remedy)

    def settle(self) -> list[str]:
        """Bring every model's aliases and manifest to what its history says; the models that have one."""
        models = [name for name in Objects(self.settings.tables_root).folders() if not name.startswith("_")]
        reigned = [name for name in models if self.store.version(name, "history") is not None]
        for model in reigned:
            self.registry.settle(model)
        return reigned

    def work_folder(self, model: str, key: str) -> Path:
        """Where one training keeps what a restart goes on from."""
        folder = self.home / "work" / model / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def reports_folder(self, model: str) -> Path:
        folder = self.home / "reports" / model
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def retraining(self, model: str, *, wait_seconds: float) -> AbstractContextManager[Lease]:
        """The right to retrain the model: one process at a time, on whatever machine."""
        return self._lease(f"retrain-{model}", wait_seconds, f"{model} is being retrained")

    def ingesting(self, model: str, *, wait_seconds: float) -> AbstractContextManager[Lease]:
        """The right to add batches to the model's tables: two at once could both take an id for new."""
        return self._lease(f"ingest-{model}", wait_seconds, f"{model} is being ingested")

    def _lease(self, name: str, wait_seconds: float, busy: str) -> AbstractContextManager[Lease]:
        require(self.settings)
        stamp(self.settings)
        # A holder must know in time that it can't renew: the storage is not asked for longer than that.
        seconds = self.settings.lease_seconds
        objects = Objects(self.settings.tables_root, patience_seconds=seconds / 4)
        return hold(objects, name, wait_seconds=wait_seconds, busy=busy, lease_seconds=seconds)

    def _files(self) -> Iterator[Path]:
        for folder in self.settings.model_folders:
            yield from (path for path in sorted(folder.glob("*.yaml")) if path.name not in NOT_MODELS)


def open_workspace(settings: Settings | None = None, *, patient: bool = False, checked: bool = False) -> Workspace:
    """The workspace of these settings; of the environment's by default."""
    return Workspace(settings or load_settings(), patient, checked)
