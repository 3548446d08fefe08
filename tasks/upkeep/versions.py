"""Deletes versions with their runs and artifacts, by MLflow's own means. Which ones is decided in tasks.upkeep.choice.

The version goes first, then what no version names any more: a prune that is killed in between is finished by the next.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.state.registry import TRAINING_KEY_TAG, Registry, Version
from perennial.state.storage import Objects
from tasks.upkeep.freed import Freed

_PAGE = 1000


def delete_versions(
    registry: Registry, model: str, outdated: Iterable[Version], *, kept: timedelta, as_of: datetime, dry_run: bool
) -> list[Freed]:
    """Delete the versions, and the runs of trainings that no version is left of, with their logged models.

    Args:
        kept: A run without a version, of a training that failed or whose version went, goes after this time.
        dry_run: Only say what would go.
    """
    outdated = list(outdated)
    numbers = {version.number for version in outdated}
    if not dry_run:
        for version in outdated:
            registry.client.delete_model_version(model, str(version.number))
    used = {version.run_id for version in registry.versions(model) if version.number not in numbers}
    runs = _runs_without_version(registry, model, used, as_of - kept, also={version.run_id for version in outdated})
    models = [item for run in runs for item in _logged_models(registry, run)]
    size = sum(
        _size(place) for place in [*(run.info.artifact_uri for run in runs), *(m.artifact_location for m in models)]
    )
    if runs and not dry_run:
        for item in models:
            registry.client.delete_logged_model(item.model_id)
        for run in runs:
            if run.info.lifecycle_stage == "active":
                registry.client.delete_run(run.info.run_id)
        if not _collect(registry, [run.info.run_id for run in runs], [item.model_id for item in models]):
            return [
                Freed("kept-out versions", len(outdated), 0, [str(number) for number in sorted(numbers)]),
                Freed("runs without a version", len(runs), 0, ["their files go by `mlflow gc` on MLflow's server"]),
            ]
    return [
        Freed("kept-out versions", len(outdated), 0, [str(number) for number in sorted(numbers)]),
        Freed("runs without a version", len(runs), size, []),
    ]


def _runs_without_version(
    registry: Registry, model: str, used: set[str], until: datetime, *, also: set[str]
) -> list[Any]:
    """Runs of our trainings that no version names: those named, and those that ended long ago."""
    from mlflow.entities import ViewType

    found = registry.client.get_experiment_by_name(model)
    if found is None:
        return []
    runs, token = [], None
    while True:
        page = registry.client.search_runs(
            [found.experiment_id], f"tags.`{TRAINING_KEY_TAG}` != ''", run_view_type=ViewType.ALL, max_results=_PAGE,
            page_token=token,
        )  # fmt: skip
        runs += [
            run for run in page
            if run.info.run_id in also or (run.info.run_id not in used and _moment(run) < until)
        ]  # fmt: skip
        token = page.token
        if not token:
            return runs


def _moment(run: Any) -> datetime:
    """When it was begun, or the moment its training stands at, whichever is later: it may be at work in a replay."""
    begun, told = datetime.fromtimestamp(run.info.start_time / 1000, UTC), run.data.tags.get("as_of")
    return max(begun, datetime.fromisoformat(told)) if told else begun


def _logged_models(registry: Registry, run: Any) -> list[Any]:
    return list(
        registry.client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
        )
    )


def _collect(registry: Registry, runs: list[str], models: list[str]) -> bool:
    """Let MLflow's garbage collection remove what is marked as deleted; False where only its server can."""
    if registry.tracking_uri.startswith(("http://", "https://")):
        return False
    from mlflow.cli import gc

    arguments = ["--backend-store-uri", registry.tracking_uri, "--tracking-uri", registry.tracking_uri]
    arguments += ["--run-ids", ",".join(runs)]
    if models:
        arguments += ["--logged-model-ids", ",".join(models)]
    with contextlib.redirect_stdout(io.StringIO()):
        gc.main(args=arguments, standalone_mode=False)
    return True


def _size(address: str) -> int:
    """The bytes of a folder of artifacts; 0 where only MLflow's server sees it."""
    if address.startswith("file://"):
        address = address.removeprefix("file://")
    elif "://" in address and not address.startswith("s3://"):
        return 0
    if "://" not in address:
        return sum(path.stat().st_size for path in Path(address).rglob("*") if path.is_file())
    return sum(entry.size for entry in Objects(address).entries())
