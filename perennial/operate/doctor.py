"""What may be wrong with an installation, and the remedy of each finding. It looks and probes; it mends nothing.

A probe writes a small object below ROOT/_perennial/probe and removes it. A home that is not there yet is left so.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from perennial.errors import PerennialError, RegistryError
from perennial.operate.asking import ANSWER_SECONDS, ask, is_proxied
from perennial.operate.identity import prefect_claim
from perennial.operate.prefect.runs import look, troubles
from perennial.redaction import redact
from perennial.settings import PROJECT_ROOT, Settings
from perennial.state.addresses import require_at_home
from perennial.state.layout import LAYOUT_VERSION, places
from perennial.state.leases import held
from perennial.state.storage import Objects, is_remote
from perennial.surroundings import proxies
from perennial.workspace import Workspace

Status = Literal["ok", "warning", "error"]
_LEAST_BYTES, _FEW_BYTES = 500 * 2**20, 2 * 2**30
_LEAST_TEMPORARY_BYTES, _FEW_TEMPORARY_BYTES = 100 * 2**20, 500 * 2**20  # a container's are in its memory
_NOTICEABLE_SKEW_SECONDS, _HARMFUL_SKEW_SECONDS = 5.0, 60.0
_OLD_SPOOL_SECONDS = 900.0
_PROBE = "_perennial/probe"
# Each with the values that switch it off.
_TELEMETRY = {
    "DO_NOT_TRACK": ("1", "true"),
    "GX_ANALYTICS_ENABLED": ("false", "0"),
    "MLFLOW_DISABLE_TELEMETRY": ("true", "1"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": ("false", "0"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        status: `ok`; `warning` asks for a look; `error` keeps something from working.
        detail: What was found.
        remedy: What to do about it; empty where nothing is to do.
    """

    check: str
    status: Status
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which things rest on one another. A check that fails is a finding itself."""
    found: list[Finding] = []
    for name, check in _CHECKS.items():
        try:
            found += check(settings)
        except PerennialError as error:
            found.append(Finding(name, "error", error.problem, error.remedy))
        except Exception as error:  # noqa: BLE001 - whatever is broken, the other checks are wanted too
            detail = redact(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            found.append(Finding(name, "error", detail, "Mend what the message names"))
    return found


def _requirements() -> list[str] | None:
    """What Perennial needs. In an image it isn't an installed package: by pyproject.toml, which the worker's has."""
    try:
        return importlib.metadata.requires("perennial") or []
    except importlib.metadata.PackageNotFoundError:
        file = PROJECT_ROOT / "pyproject.toml"
        if not file.exists():
            return None
        found: list[str] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
        return found


def _versions(_settings: Settings) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wrong, missing = [], []
    requirements = _requirements()
    if requirements is None:
        yield Finding("versions", "ok", f"Python {sys.version.split()[0]}; the pins stayed where this image was built")
        return
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(wanted.name)
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, needed is {wanted.specifier}")
    if wrong:
        yield Finding("versions", "error", "; ".join(wrong), "Install what the lock names: make setup")
    if missing:
        remedy = "Install what the lock names: make setup. (The serving image is without them on purpose)"
        yield Finding("versions", "warning", f"not installed: {', '.join(missing)}", remedy)
    if not wrong and not missing:
        yield Finding("versions", "ok", f"Python {sys.version.split()[0]}, every package within its pin")


def _telemetry(_settings: Settings) -> Iterator[Finding]:
    on = [name for name, off in _TELEMETRY.items() if os.environ.get(name, off[0]).lower() not in off]
    if on:
        yield Finding("telemetry", "warning", f"switched on by {', '.join(on)}", "Unset the variables")
    else:
        yield Finding("telemetry", "ok", "off in every dependency")


def _definitions(settings: Settings) -> Iterator[Finding]:
    from perennial.definition import load_definitions

    names = list(load_definitions(settings.model_folders))
    if names:
        yield Finding("definitions", "ok", f"{len(names)} valid: {', '.join(names)}")
    else:
        yield Finding("definitions", "warning", "no model is defined", "Write a NAME.yaml, or set PERENNIAL_MODELS")


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home_path
    if not home.exists():
        yield Finding(
            "home", "warning", f"{home} does not exist yet", "Nothing: the first command that writes makes it"
        )
        return
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        yield Finding(
            "home", "error", f"{home} can't be written: {error.strerror}", f"Give this user the right: {home}"
        )
        return
    if home.stat().st_mode & 0o002:
        yield Finding(
            "home", "warning", f"anybody on this machine may write to {home}, and so change models", f"chmod o-w {home}"
        )
    else:
        yield Finding("home", "ok", f"{home} can be written")


def _disk(settings: Settings) -> Iterator[Finding]:
    named = {"home": str(settings.home_path), "tables": settings.tables_root, "artifacts": settings.artifacts_root}
    for name, root in [*named.items(), ("temporary files", tempfile.gettempdir())]:
        folder = Path(root.removeprefix("file://"))
        few, least = _FEW_BYTES, _LEAST_BYTES
        if name == "temporary files":
            few, least = _FEW_TEMPORARY_BYTES, _LEAST_TEMPORARY_BYTES
        if is_remote(root):
            continue
        while not folder.exists():
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        detail = f"{usage.free / 2**30:.1f} GiB free for {name} ({folder})"
        if usage.free >= few:
            yield Finding("disk", "ok", detail)
        else:
            status: Status = "error" if usage.free < least else "warning"
            yield Finding("disk", status, detail, f"Free space on the disk of {folder}, or move {name} elsewhere")


def _layout(settings: Settings) -> Iterator[Finding]:
    for place in places(settings):
        if place.version == LAYOUT_VERSION:
            yield Finding("layout", "ok", f"{place.name}: {place.version}")
        elif place.version is None:
            yield Finding("layout", "ok", f"{place.name}: nothing there yet")
        elif place.version < LAYOUT_VERSION:
            detail = f"{place.name} in {place.root}: {place.version}, needed is {LAYOUT_VERSION}"
            yield Finding("layout", "error", detail, "Make a backup, stop what runs, then: perennial migrate")
        else:
            detail = f"{place.name} in {place.root}: {place.version}, newer than this program's {LAYOUT_VERSION}"
            yield Finding("layout", "error", detail, f"Install Perennial {place.written_by} or a newer one")


def _tables(settings: Settings) -> Iterator[Finding]:
    if not is_remote(settings.tables_root) and not Path(settings.tables_root).exists():
        yield Finding("tables", "ok", f"{settings.tables_root} is made by the first ingestion")
        return
    objects = Objects(settings.tables_root, patience_seconds=5)
    name, content = f"{_PROBE}/{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    sent = datetime.now(UTC)
    objects.create(name, content)
    written = datetime.now(UTC)
    try:
        alone = not objects.create(name, b"another")
        same = objects.get(name) == content
        entry = next((each for each in objects.entries(_PROBE) if each.name == name), None)
    finally:
        objects.delete(name)
    if not alone:
        yield Finding(
            "tables", "error", f"{objects.root} lets two create one object: commits and leases are not safe",
            "Use a storage with conditional writes (If-None-Match), or switch them on",
        )  # fmt: skip
        return
    if not same or entry is None:
        yield Finding("tables", "error", f"{objects.root} does not give back what was written", "Check the storage")
        return
    yield Finding("tables", "ok", f"{objects.root} reads, writes and refuses a second writer")
    if is_remote(objects.root):
        yield _skew("the tables' storage", _ahead_seconds(entry.modified, sent, written))


def _artifacts(settings: Settings) -> Iterator[Finding]:
    root = settings.artifacts_root
    if settings.mlflow_uri.startswith("http"):
        yield Finding("artifacts", "ok", "behind the MLflow server, which serves them")
        return
    if not is_remote(root) and not Path(root.removeprefix("file://")).exists():
        yield Finding("artifacts", "ok", f"{root} is made by the first training")
        return
    objects = Objects(root, patience_seconds=5)
    name = f"{_PROBE}/{uuid.uuid4().hex}"
    objects.put(name, b"probe")
    readable = objects.get(name) == b"probe"
    objects.delete(name)
    if readable:
        yield Finding("artifacts", "ok", f"{root} reads and writes")
    else:
        yield Finding("artifacts", "error", f"{root} does not give back what was written", "Check the storage")


def _registry(settings: Settings) -> Iterator[Finding]:
    uri = settings.mlflow_uri
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        if not path.exists():
            yield Finding("registry", "ok", f"{path} is made by the first training")
            return
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            verdict = str(connection.execute("pragma quick_check(1)").fetchone()[0])
        if verdict != "ok":
            yield Finding("registry", "error", f"{path} is damaged: {verdict}", "Restore a backup: perennial restore")
            return
        yield Finding("registry", "ok", f"{path} is whole")
        require_at_home(settings)
        return
    if uri.startswith("http"):
        answer = ask(f"{uri.rstrip('/')}/version")
        yield from _same_version("registry", "mlflow", answer.text.strip().strip('"'))
        yield _skew("the MLflow server", _ahead_seconds(answer.at, answer.sent, answer.received))
        return
    Workspace(settings).registry.client.search_registered_models(max_results=1)
    yield Finding("registry", "ok", f"{redact(uri)} answers")


def _prefect(settings: Settings) -> Iterator[Finding]:
    claim = prefect_claim(settings, ANSWER_SECONDS)
    if settings.prefect_api_url and claim.refuted:
        yield Finding("prefect", "error", claim.refuted, "Start it, or correct PERENNIAL_PREFECT_API_URL")
        return
    if claim.busy:
        yield Finding("prefect", "error", claim.refuted, "If it stays so: end `perennial up` and start it again")
        return
    if claim.url is None or claim.refuted:
        told = f"{claim.refuted}; no" if claim.refuted else "no"
        port = "; if the port is taken, with another PERENNIAL_PREFECT_PORT" if claim.foreign else ""
        yield Finding(
            "prefect", "warning", f"{told} server runs for this home: no schedule runs", f"perennial up{port}"
        )
        return
    answer = ask(f"{claim.url.rstrip('/')}/admin/version")
    yield from _same_version("prefect", "prefect", json.loads(answer.text))
    yield _skew("the Prefect server", _ahead_seconds(answer.at, answer.sent, answer.received))
    yield from _runs(settings, claim.url)


def _runs(settings: Settings, url: str) -> Iterator[Finding]:
    from perennial.definition import load_definitions

    now = datetime.now(UTC)
    server = look(url, now)
    found = troubles(server, list(load_definitions(settings.model_folders)), now)
    for trouble in found:
        yield Finding("runs", "warning", trouble.detail, trouble.remedy)
    if not found:
        told = f"{len(server.deployments)} deployments, {server.coming} runs to come, none is stuck"
        yield Finding("runs", "ok", told)


def _proxies(settings: Settings) -> Iterator[Finding]:
    named = proxies(os.environ)
    if not named:
        yield Finding("proxies", "ok", "none is set")
        return
    told = ", ".join(f"{name}={redact(value)}" for name, value in sorted(named.items()))
    yield Finding("proxies", "ok", f"{told}: for other machines; this one's own servers are asked without it")
    for name, url in (("Prefect", settings.prefect_api_url), ("MLflow", settings.tracking_uri)):
        if url and url.startswith("http") and is_proxied(url):
            detail = f"{name}'s server {redact(url)} is asked through the proxy"
            remedy = f"Where that is not wanted, add {urlsplit(url).hostname} to NO_PROXY"
            yield Finding("proxies", "warning", detail, remedy)


def _champions(settings: Settings) -> Iterator[Finding]:
    from perennial.definition import load_definitions
    from perennial.model.artifacts import folder_digest
    from perennial.serving.versions.cache import GOLDEN_FILE
    from perennial.serving.versions.proving import prove

    workspace = Workspace(settings)
    for model, definition in load_definitions(settings.model_folders).items():
        champion = workspace.registry.champion(model) if workspace.store.version(model, "history") is not None else None
        reign = workspace.registry.reign(model)
        if champion is None or reign is None:
            yield Finding("champions", "ok", f"{model} has none yet")
            continue
        if folder_digest(workspace.registry.artifacts(champion)) != champion.digest:
            detail = f"{model}: the files of version {champion.number} are not those that were registered"
            yield Finding(
                "champions", "error", detail, f"perennial rollback {model}, then retrain; find who changed them"
            )
            continue
        try:
            proven = prove(
                definition, model=workspace.registry.artifacts(champion), digest=champion.digest,
                golden=workspace.registry.run_artifact(champion, GOLDEN_FILE), version=champion.number,
            )  # fmt: skip
        except RegistryError as error:
            remedy = f"perennial rollback {model}, or retrain; what the API serves now goes on until it is restarted"
            yield Finding("champions", "error", f"{model}: version {champion.number}: {error.problem}", remedy)
            continue
        manifest = workspace.home / "live" / f"{model}.json"
        try:
            told = json.loads(manifest.read_text(encoding="utf-8"))["sequence"] if manifest.is_file() else None
        except (ValueError, KeyError, TypeError):
            detail = f"{model}: {manifest} is {'torn' if manifest.stat().st_size else 'empty'}: the API can't follow it"
            yield Finding("champions", "error", detail, f"Write it anew: perennial check {model}; look for a full disk")
            continue
        if told != reign.sequence:
            detail = f"{model}: the API is told line {told or 'none'} of the history, the newest is {reign.sequence}"
            yield Finding("champions", "warning", detail, f"Let a check mend it: perennial check {model}")
            continue
        detail = f"{model}: version {champion.number} is whole; a fresh process answers its {proven.rows} golden rows"
        yield Finding("champions", "ok", detail)


def _leases(settings: Settings) -> Iterator[Finding]:
    now = datetime.now(UTC)
    leases = held(Objects(settings.tables_root, patience_seconds=5))
    for name, record in leases.items():
        age = record.age_seconds(now)
        who = f"{name} is held by process {record.pid} on {record.host}, renewed {age:.0f} s ago by its clock"
        if record.dead_here():
            yield Finding("leases", "warning", f"{who}; that process is gone", "Nothing: the next run takes it over")
        elif age > 2 * record.seconds:
            remedy = f"Nothing, if it died: the next run takes it over after {record.seconds:g} s. Else see its clock"
            yield Finding("leases", "warning", who, remedy)
        else:
            yield Finding("leases", "ok", who)
    if not leases:
        yield Finding("leases", "ok", "none is held")


def _spool(settings: Settings) -> Iterator[Finding]:
    from filelock import FileLock, Timeout

    waiting = 0
    for kind in ("spool", "labels"):
        # Hidden ones belong to no process: labels of ids that nobody knows yet wait there.
        for folder in sorted((settings.home_path / "serving" / kind).glob("[!.]*")):
            segments = [path for path in folder.glob("*/*.jsonl") if path.stat().st_size]
            if not segments:
                continue
            waiting += len(segments)
            oldest = time.time() - min(path.stat().st_mtime for path in segments)
            alive = False
            try:
                with FileLock(folder / "owner.lock", timeout=0):
                    pass
            except Timeout:
                alive = True
            if not alive:
                detail = f"{len(segments)} segments of a process that ended wait in {folder}"
                yield Finding("spool", "warning", detail, "Start `perennial serve`: it ships them within a minute")
            elif oldest > _OLD_SPOOL_SECONDS:
                detail = f"a segment in {folder} is {oldest / 60:.0f} minutes old and was not shipped"
                yield Finding(
                    "spool", "error", detail, "See the reason in the API's /health; mostly the tables' storage"
                )
            else:
                yield Finding("spool", "ok", f"{len(segments)} young segments of a living process")
    if not waiting:
        yield Finding("spool", "ok", "nothing waits")


def _same_version(check: str, package: str, version: str) -> Iterator[Finding]:
    try:
        ours = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the serving image is without it
        yield Finding(check, "ok", f"the server answers, version {version}; {package} is not installed here")
        return
    if version == ours:
        yield Finding(check, "ok", f"the server answers, version {version}")
    else:
        detail = f"the server runs {package} {version}, this program {ours}"
        yield Finding(check, "warning", detail, "Run one version of it everywhere: the lock's")


def _ahead_seconds(theirs: datetime, sent: datetime, received: datetime) -> float:
    """How far our clock is ahead, at least: their moment, to the second, lies between our two."""
    if theirs < sent - timedelta(seconds=1):
        return (sent - theirs).total_seconds()
    return min(0.0, (received - theirs).total_seconds())


def _skew(where: str, seconds: float) -> Finding:
    detail = f"our clock is {abs(seconds):.0f} s {'ahead of' if seconds >= 0 else 'behind'} that of {where}"
    if abs(seconds) <= _NOTICEABLE_SKEW_SECONDS:
        return Finding("clock", "ok", f"within {_NOTICEABLE_SKEW_SECONDS:g} s of {where}")
    status: Status = "error" if abs(seconds) > _HARMFUL_SKEW_SECONDS else "warning"
    return Finding("clock", status, detail, "Synchronise the clocks of both machines (NTP)")


_CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "versions": _versions,
    "telemetry": _telemetry,
    "definitions": _definitions,
    "home": _home,
    "disk": _disk,
    "layout": _layout,
    "tables": _tables,
    "artifacts": _artifacts,
    "registry": _registry,
    "proxies": _proxies,
    "prefect": _prefect,
    "champions": _champions,
    "leases": _leases,
    "spool": _spool,
}


def summary(found: list[Finding]) -> dict[str, Any]:
    """Counts by status."""
    return {status: sum(item.status == status for item in found) for status in ("ok", "warning", "error")}
