"""The edge of an upgrade's check: models' files and tables are measured by two Pythons and compared."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import NotFoundError
from perennial.redaction import redact
from perennial.serving.versions.cache import GOLDEN_FILE
from perennial.surroundings import child_environment, python_command
from perennial.workspace import Workspace
from tasks.steps.review.fill import threshold_of
from tasks.steps.score import require_champion
from tasks.upgrade.comparison import Compared, compare
from tasks.upgrade.environment import UNUSED, environment_of, forget_unused, read_lock

PARTS = ("golden", "fit", "backtest")
FIT_ROWS, WINDOWS = 20_000, 4
_SECONDS = 3600.0


@dataclass(frozen=True)
class Upgrade:
    """What a lock would change.

    Attributes:
        other: The packages whose versions differ from those here: ours and the lock's.
        models: Each model under both; none where no package differs.
    """

    other: dict[str, tuple[str, str]]
    models: tuple[Compared, ...]

    @property
    def alike(self) -> bool:
        return all(item.alike for item in self.models)


def check_upgrade(
    workspace: Workspace, lock_file: Path, models: Sequence[str] = (), *, at: datetime, whole: bool = False,
    parts: Sequence[str] = PARTS, tell: Callable[[str], None] = lambda _: None,
) -> Upgrade:  # fmt: skip
    """Measure every model that has a champion, or those named, with the packages of now and with those of a lock.

    Args:
        whole: Install all of the lock, and share nothing with this installation.
        parts: Which of golden, fit and backtest.
        tell: Told what is being done.

    Raises:
        DataError: The file is no lock.
        NotFoundError: A model that is named has no champion; or none has.
        ServiceError: The environment could not be made.
    """
    lock = read_lock(lock_file)
    definitions = list(_with_champion(workspace, models))
    other = lock.other()
    if not other and not whole:
        return Upgrade(other, ())
    tell(f"making an environment with {len(other)} other packages")
    python = environment_of(lock, workspace.home, whole=whole)
    for name in forget_unused(workspace.home, used=python, now=datetime.now(UTC)):
        tell(f"removed the environment {name}, which no check has used for {UNUSED.days} days")
    found = []
    for definition in definitions:
        request = _request(workspace, definition, at, parts)
        tell(f"{definition.name}: with the packages of now")
        now = _measured(Path(sys.executable), request)
        tell(f"{definition.name}: with the lock's")
        new = _measured(python, request)
        champion = require_champion(workspace.registry, definition.name)
        threshold = threshold_of(definition, champion) if definition.task == "classification" else None
        tolerance = definition.gate.golden_tolerance
        found.append(compare(definition.name, champion.number, now, new, threshold=threshold, tolerance=tolerance))
    return Upgrade(other, tuple(found))


def _with_champion(workspace: Workspace, models: Sequence[str]) -> Iterator[ModelDefinition]:
    if models:
        for name in models:
            definition = workspace.definition(name)
            require_champion(workspace.registry, name)
            yield definition
        return
    found = [item for item in workspace.definitions().values() if workspace.registry.champion(item.name) is not None]
    if not found:
        raise NotFoundError("no model has a champion yet", "Train one: `perennial retrain MODEL`")
    yield from found


def _request(workspace: Workspace, definition: ModelDefinition, at: datetime, parts: Sequence[str]) -> dict[str, Any]:
    """All that a measuring process needs of the registry."""
    champion = require_champion(workspace.registry, definition.name)
    return {
        "definition": str(definition.path),
        "tables": workspace.store.root,
        "model": str(workspace.registry.artifacts(champion)),
        "golden": str(workspace.registry.run_artifact(champion, GOLDEN_FILE)),
        "digest": champion.digest,
        "parameters": json.loads(champion.tag("parameters", "{}")),
        "as_of": at.isoformat(),
        "fit_rows": FIT_ROWS,
        "windows": WINDOWS,
        "parts": list(parts),
    }


def _measured(python: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What a Python finds; where it fails as a whole, each part says so."""
    with tempfile.TemporaryDirectory(prefix="perennial-upgrade-") as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = (str(python), *python_command("tasks.upgrade.measuring", str(asked), str(answered))[1:])
        try:
            run = subprocess.run(  # noqa: S603 - our own module, arguments as a list
                command, env=child_environment({"PYTHONHASHSEED": "0"}), capture_output=True, text=True,
                timeout=_SECONDS, check=False,
            )  # fmt: skip
            last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            last = f"no answer within {_SECONDS:g} s"
        if not answered.exists():
            return {part: {"problem": redact(last[-400:])} for part in request["parts"]}
        found: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return found
