"""One model version as a folder that an image is built from: its files, the code that serves, the lock. Builds nothing.

The folder needs neither the registry nor this checkout any more. What goes in was checked first: the version's digest,
its golden scores, and that the packages of the image will be those that trained it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, NotFoundError, ServiceError
from perennial.model import pins
from perennial.serving.versions.cache import GOLDEN_FILE, PROOF_FILE
from perennial.serving.versions.model import load_version
from perennial.settings import PROJECT_ROOT
from perennial.state.registry import Version
from perennial.workspace import Workspace

MARKER = "# `perennial containerize` copies this file as far as this line."
ENGINES = ("docker", "podman", "buildah")
_HELPERS = ("trim.py", "perennial", "healthcheck")
_BAKED = """
# One version, which needs no registry; `.env` of a run has the tokens (PERENNIAL_SERVING_TOKENS).
FROM serving AS model
LABEL org.opencontainers.image.title="{model}" \\
      org.opencontainers.image.version="{version}" \\
      perennial.model="{model}" \\
      perennial.version="{version}" \\
      perennial.digest="{digest}" \\
      perennial.lock="{lock}" \\
      perennial.definition="{definition}"
COPY baked /app/baked
ENV PERENNIAL_SERVING_BAKED=/app/baked PERENNIAL_MODELS=/app/baked
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \\
    CMD ["healthcheck", "http://127.0.0.1:8000/v2/health/ready"]
"""


@dataclass(frozen=True)
class Baked:
    """What was written, and how to build it."""

    model: str
    version: int
    digest: str
    lock: str
    folder: Path
    tag: str

    def command(self, engine: str) -> list[str]:
        """What builds the image."""
        build = [engine, "bud"] if engine == "buildah" else [engine, "build"]
        form = [] if engine == "docker" else ["--format", "docker"]  # or the health check is lost
        return [*build, *form, "--file", str(self.folder / "Dockerfile"), "--tag", self.tag, str(self.folder)]


def bake(
    workspace: Workspace, definition: ModelDefinition, version: Version, output: Path, *, trained_lock: bool = False
) -> Baked:
    """Write the build context of one version.

    Args:
        output: A folder that does not exist yet, or is empty.
        trained_lock: Take the lock of the training although the code's own lock has changed since.

    Raises:
        ConflictError: The folder is in use, or the packages would not be those that trained the version.
        RegistryError: The version's files are not what was registered, or fail on their golden rows.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConflictError(f"{output} is there already", "Name a new folder with --output, or empty it")
    lock = _lock(workspace, version, trained_lock)
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        _write_version(workspace, definition, version, staged / "baked")
        (staged / pins.LOCK_FILE).write_text(lock, encoding="utf-8")
        _write_code(staged)
        baked = Baked(
            definition.name, version.number, version.digest, pins.digest(lock), output.resolve(),
            f"perennial-{definition.name.lower()}:{version.number}",
        )  # fmt: skip
        (staged / "Dockerfile").write_text(_dockerfile(baked, version, definition), encoding="utf-8")
        staged.chmod(0o755)
        if output.exists():
            output.rmdir()
        staged.rename(output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return baked


def find_engine() -> str | None:
    """The first program here that can really build an image."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        ask = [engine, "info"]
        try:
            answer = subprocess.run(ask, capture_output=True, timeout=30, check=False)  # noqa: S603 - a fixed name
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.returncode == 0:
            return engine
    return None


def build(baked: Baked) -> str:
    """Build the image; its name.

    Raises:
        ServiceError: Nothing here can build, or the build failed.
    """
    engine = find_engine()
    by_hand = f"Build it where there is one: docker build --tag {baked.tag} {baked.folder}"
    if engine is None:
        raise ServiceError(f"none of {', '.join(ENGINES)} works here; {baked.folder} is ready to be built", by_hand)
    # What it prints goes to standard error: standard output is the command's answer.
    done = subprocess.run(baked.command(engine), stdout=2, check=False)  # noqa: S603 - a list of our own
    if done.returncode:
        raise ServiceError(f"{engine} failed with exit code {done.returncode}; its message is above", by_hand)
    return baked.tag


def _lock(workspace: Workspace, version: Version, trained_lock: bool) -> str:
    """The lock that the version was trained under.

    Raises:
        ConflictError: It is unknown, was not what trained the version, or is no longer the code's.
    """
    name = f"version {version.number} of {version.model}"
    recorded = version.tag(pins.LOCK_TAG)
    retrain = f"Retrain: `perennial retrain {version.model}`"
    if not recorded:
        raise ConflictError(f"{name} carries no lock of the packages that trained it", retrain)
    if told := version.tag(pins.DIFFERENCES_TAG):
        raise ConflictError(
            f"{name} was trained with packages that differ from its lock: {told}", f"`make setup`, then {retrain}"
        )
    lock = workspace.registry.run_artifact(version, pins.LOCK_FILE).read_text(encoding="utf-8")
    if pins.digest(lock) != recorded:
        raise ConflictError(
            f"the lock of {name} has the digest {pins.digest(lock)[:12]}…, registered was {recorded[:12]}…",
            f"Its files were changed. {retrain}",
        )
    if lock != pins.serving_lock() and not trained_lock:
        commit = version.tag("code_version") or "that trained it"
        raise ConflictError(
            f"{name} was trained under another lock than this code's: {_told(lock)}",
            f"Check out the commit {commit}, or pass --trained-lock to serve it by this code on its own packages, "
            f"or {retrain[0].lower()}{retrain[1:]}",
        )
    return lock


def _told(lock: str) -> str:
    """The first differences between a lock and the code's own."""
    theirs, ours = pins.locked(lock), pins.locked(pins.serving_lock())
    told = [
        f"{name} {theirs.get(name, 'none')} there, {ours.get(name, 'none')} here"
        for name in sorted(theirs | ours)
        if theirs.get(name) != ours.get(name)
    ]
    return ", ".join(told[:5]) + (f", and {len(told) - 5} more" if len(told) > 5 else "") or "only hashes differ"


def _write_version(workspace: Workspace, definition: ModelDefinition, version: Version, folder: Path) -> None:
    """The version's files, checked as the API checks them, and its definition."""
    registry, place = workspace.registry, folder / definition.name
    place.mkdir(parents=True)
    shutil.copytree(registry.artifacts(version), place / "model")
    shutil.copy2(registry.run_artifact(version, GOLDEN_FILE), place / GOLDEN_FILE)
    manifest = _manifest(workspace, version)
    (place / "manifest.json").write_text(json.dumps(dict(manifest), indent=2, sort_keys=True), encoding="utf-8")
    assert definition.path is not None
    shutil.copy2(definition.path, folder / f"{definition.name}.yaml")
    load_version(place, manifest, definition)
    (place / PROOF_FILE).unlink(missing_ok=True)  # it was measured on this machine


def _manifest(workspace: Workspace, version: Version) -> Mapping[str, Any]:
    """What the API says of the version; addresses of our storage are nobody's business."""
    lines = [line for line in workspace.registry.history(version.model) if line.version == version.number]
    reign = lines[-1] if lines else None
    return {
        "model": version.model, "version": version.number, "digest": version.digest, "source": "baked",
        "run_id": version.run_id, "definition_hash": version.tag("definition_hash"),
        "trained_until": version.tag("trained_until"), "gate_verdict": version.tag("gate.verdict"),
        "classes": version.tag("classes"),
        "at": reign.at.isoformat() if reign else None, "reason": reign.reason if reign else "never champion",
        "action": "containerize",
    }  # fmt: skip


def _write_code(folder: Path) -> None:
    """The code that serves, and the Dockerfile's helpers."""
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(PROJECT_ROOT / "perennial", folder / "perennial", ignore=skipped)
    (folder / "docker").mkdir()
    for name in _HELPERS:
        shutil.copy2(PROJECT_ROOT / "docker" / name, folder / "docker" / name)
    (folder / "deployments").mkdir()
    shutil.copy2(next((folder / "baked").glob("*.yaml")), folder / "deployments")


def _dockerfile(baked: Baked, version: Version, definition: ModelDefinition) -> str:
    source = PROJECT_ROOT / "docker" / "Dockerfile"
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{source} is missing", "Run it in a checkout, or in the worker's image") from None
    assert MARKER in text
    serving = text.split(MARKER)[0]
    python = ".".join(version.tag(pins.PYTHON_TAG).split(".")[:2])
    serving = serving.replace("library/python:3.11-slim", f"library/python:{python}-slim")
    labels = {
        "model": baked.model, "version": baked.version, "digest": baked.digest, "lock": baked.lock,
        "definition": definition.hash,
    }  # fmt: skip
    return serving.rstrip() + "\n" + _BAKED.format_map(labels)
