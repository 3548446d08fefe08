"""All that goes of one model after its time, in the order in which nothing is lost by an interruption."""

from __future__ import annotations

from datetime import datetime

from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.upkeep.choice import outdated_versions, protected, read_versions
from tasks.upkeep.files import remove_reports, remove_work
from tasks.upkeep.freed import Freed
from tasks.upkeep.tables import QUIET_HOURS, remove_closed_entries, remove_predictions, vacuum_tables
from tasks.upkeep.versions import delete_versions


def prune_model(
    workspace: Workspace, definition: ModelDefinition, *, as_of: datetime, dry_run: bool, quiet_hours: int = QUIET_HOURS
) -> list[Freed]:
    """Remove what the definition's retention lets go, or only say it.

    Args:
        quiet_hours: Files of the tables that were written or replaced so short a time ago stay.

    Raises:
        RegistryError, StorageError: They do not answer; what went is gone, the next prune goes on.
    """
    model, kept, store, registry = definition.name, definition.retention, workspace.store, workspace.registry
    freed: list[Freed] = []
    versions = registry.versions(model)
    aliases = registry.aliases(model) if versions else {}
    if versions and kept.kept_out is not None:
        outdated = outdated_versions(versions, registry.history(model), aliases, kept=kept.kept_out, as_of=as_of)
        freed += delete_versions(registry, model, outdated, kept=kept.kept_out, as_of=as_of, dry_run=dry_run)
        versions = [version for version in versions if version not in outdated]
    freed.append(remove_predictions(store, model, kept=kept.predictions, as_of=as_of, dry_run=dry_run))
    with workspace.ingesting(model, wait_seconds=60):  # which reads the quarantine, and adds to it
        freed.append(remove_closed_entries(store, definition, kept=kept.quarantine, as_of=as_of, dry_run=dry_run))
    needed = read_versions(versions, set(protected(versions, aliases)), kept=kept.trainings, as_of=as_of)
    freed.append(vacuum_tables(store, model, needed, dry_run=dry_run, quiet_hours=quiet_hours))
    freed.append(remove_reports(workspace.home, model, kept=kept.reports, as_of=as_of, dry_run=dry_run))
    freed.append(remove_work(workspace.home, model, kept=kept.work, as_of=as_of, dry_run=dry_run))
    return freed
