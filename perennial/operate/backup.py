"""A copy of everything that is ours, made while it runs, and its way back. Restoring over something is refused.

Tables are copied at pinned versions with their whole history, databases through their own means (SQLite's backup,
pg_dump). The order makes the copy consistent without stopping anybody: spool before tables (what was shipped in
between is there twice, and counted once by its key), receipts before the rows that they speak of (a batch without its
receipt is simply finished again), the history of champions before the registry that has the versions, artifacts last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perennial import __version__
from perennial.errors import ConflictError, DataError, NotFoundError, RegistryError
from perennial.operate.registry_dump import dump_postgres, load_postgres
from perennial.redaction import redact
from perennial.settings import Settings
from perennial.state import layout
from perennial.state.addresses import relocate
from perennial.state.storage import Objects, dump, is_remote

NOTE = "backup.json"
_FORMAT = 1
# Of a home; the rest is the tables, the registry, Prefect's, or can be fetched or written again.
_HOME_FOLDERS = ("live", "work", "reports", "init", "removed", "serving/spool", "serving/labels")
# Pinned first what speaks of other tables' rows.
_PINNED_FIRST = ("receipts", "decisions", "history")
_LOG = "_delta_log"


@dataclass(frozen=True)
class Summary:
    """What a backup holds, or what was restored."""

    place: str
    files: int
    size_bytes: int
    tables: dict[str, int]
    registry: str
    left_out: list[str]


def backup(settings: Settings, destination: Path, *, without_registry: bool = False) -> Summary:
    """Copy everything into a new folder. It has its name only when it is whole.

    Args:
        without_registry: Leave out a registry database or server that can't be copied from here.

    Raises:
        ConflictError: The folder is there and not empty, or the layout is another program's.
        RegistryError: The registry is elsewhere, and is not to be left out.
        StorageError: A storage did not answer.
    """
    if destination.exists() and any(destination.iterdir()):
        raise ConflictError(f"{destination} is not empty", "Name a new folder")
    layout.require(settings)
    how = _registry_kind(settings, without_registry=without_registry)
    staged = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True, mode=0o700)
    try:
        copy = _Copy(staged)
        for folder in _HOME_FOLDERS:
            copy.folder(settings.home_path / folder, f"home/{folder}")
        copy.object(Objects(str(settings.home_path)), layout.RECORD, f"home/{layout.RECORD}")
        tables = _copy_tables(Objects(settings.tables_root), copy)
        _copy_databases(settings, copy, how)
        if how != "left out":
            artifacts = Objects(settings.artifacts_root)
            for entry in artifacts.entries():
                copy.object(artifacts, entry.name, f"artifacts/{entry.name}")
        note = _note(settings, copy, tables, how)
        (staged / NOTE).write_bytes(dump(note))
        if destination.exists():
            destination.rmdir()
        staged.rename(destination)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return _summary(destination, note)


def restore(settings: Settings, source: Path) -> Summary:
    """Put a backup into an empty home, empty tables and an empty registry, once all its digests were found right.

    Raises:
        ConflictError: Something is there already, or the backup's layout is newer than this program's.
        DataError: A file of the backup is missing or changed.
        NotFoundError: There is no backup.
    """
    note = _read_note(source)
    _require_empty(settings, note)
    _verify(source, note)
    homes, roots = Objects(str(settings.home_path)), Objects(settings.tables_root)
    for place in (homes, roots):
        place.put(layout.RESTORING, dump({"from": str(source)}))
    for name in sorted(note["files"]):
        _put_back(settings, source, name)
    if note["registry"] == "postgres":
        load_postgres(source / "registry.dump", settings.mlflow_uri)
    if note["registry"] != "left out" and note["artifacts_root"] != settings.artifacts_root:
        relocate(settings.mlflow_uri, _as_uri(note["artifacts_root"]), _as_uri(settings.artifacts_root))
    for place in (homes, roots):
        place.delete(layout.RESTORING)
    return _summary(source, note)


def check_restored(settings: Settings, tables: dict[str, int]) -> list[str]:
    """Settle each model's manifest, and compare its champion's files with what was registered; a line each.

    Raises:
        RegistryError: A champion's version is missing, or its files are not those that were registered.
    """
    from perennial.model.artifacts import folder_digest
    from perennial.workspace import Workspace

    workspace, told = Workspace(settings), []
    for model in sorted({name.split("/")[0] for name in tables if name.endswith("/history")}):
        workspace.registry.settle(model)
        champion = workspace.registry.champion(model)
        if champion is None:
            continue
        if folder_digest(workspace.registry.artifacts(champion)) != champion.digest:
            raise RegistryError(
                f"the files of {model}'s champion {champion.number} are not those that were registered",
                "Restore another backup, or roll back: perennial rollback",
            )
        told.append(f"{model}: version {champion.number} is champion, its files are whole")
    return told


class _Copy:
    """The files of a backup that is being made, with their digests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, dict[str, Any]] = {}

    def object(self, objects: Objects, name: str, target: str) -> None:
        """One object; one that does not exist is left out."""
        try:
            digest = objects.download(name, self.root / target)
        except NotFoundError:
            (self.root / target).unlink(missing_ok=True)
            return
        self._add(target, digest)

    def folder(self, folder: Path, target: str) -> None:
        """Every file of a folder that others write to, move within and remove from meanwhile.

        It is looked through until nothing new is found: what was there under another name is not missed. Hidden
        folders come last, as what leaves a segment without going into the tables waits there.
        """
        found = True
        while found:
            found = False
            for path in sorted(
                folder.rglob("*") if folder.is_dir() else [], key=lambda path: _hidden_last(path.relative_to(folder))
            ):
                name = f"{target}/{path.relative_to(folder).as_posix()}"
                if path.is_file() and path.suffix not in (".lock", ".tmp") and name not in self.files:
                    found = True
                    self.object(Objects(str(path.parent)), path.name, name)
        for name in [name for name in self.files if name.startswith(f"{target}/")]:
            # A segment that was sealed in between: the half that was copied before would take its key.
            if name.removesuffix(".jsonl") + ".sealed.jsonl" in self.files:
                (self.root / name).unlink()
                del self.files[name]

    def written(self, target: str) -> None:
        """Take note of a file that somebody else wrote."""
        if (self.root / target).is_file():
            self._add(target, _digest(self.root / target))

    def _add(self, target: str, digest: str) -> None:
        self.files[target] = {"sha256": digest, "bytes": (self.root / target).stat().st_size}


def _hidden_last(path: Path) -> tuple[bool, str]:
    return any(part.startswith(".") for part in path.parts), str(path)


def _copy_tables(objects: Objects, copy: _Copy) -> dict[str, int]:
    """Every table at a version that is pinned in a safe order; the pinned versions."""
    copy.object(objects, layout.RECORD, f"tables/{layout.RECORD}")
    found = {entry.name.split(f"/{_LOG}/")[0] for entry in objects.entries() if f"/{_LOG}/" in entry.name}
    first = {name: number for number, name in enumerate(_PINNED_FIRST)}
    order = sorted(found, key=lambda table: (first.get(table.rpartition("/")[2], len(first)), table))
    pinned: dict[str, int] = {}
    for table in order:
        logs = [(entry.name, _log_version(entry.name)) for entry in objects.entries(f"{table}/{_LOG}")]
        pinned[table] = max(number for name, number in logs if number is not None and name.endswith(".json"))
        for name, number in logs:
            if (number is not None and number <= pinned[table]) or (
                name.endswith("/_last_checkpoint") and _checkpoint(objects, name) <= pinned[table]
            ):
                copy.object(objects, name, f"tables/{name}")
        for entry in objects.entries(table):
            inner = entry.name.removeprefix(f"{table}/")
            if inner.endswith(".parquet") and not inner.startswith(_LOG):
                copy.object(objects, entry.name, f"tables/{entry.name}")
    return pinned


def _log_version(name: str) -> int | None:
    stem = name.rpartition("/")[2].split(".")[0]
    return int(stem) if stem.isdigit() else None


def _checkpoint(objects: Objects, name: str) -> int:
    return int(json.loads(objects.get(name) or b'{"version": 0}')["version"])


def _registry_kind(settings: Settings, *, without_registry: bool) -> str:
    uri = settings.mlflow_uri
    if without_registry:
        return "left out"
    if uri.startswith("sqlite:///"):
        return "sqlite"
    if uri.startswith("postgresql"):
        if shutil.which("pg_dump") is None:
            raise RegistryError(
                "the registry is on PostgreSQL, and pg_dump is not installed here",
                "Install postgresql-client; or dump it yourself, after this, with --without-registry",
            )
        return "postgres"
    raise RegistryError(
        f"the registry is behind {redact(uri)}: it can't be copied from here",
        "Back up its database and artifacts where it runs, after this, and pass --without-registry",
    )


def _copy_databases(settings: Settings, copy: _Copy, how: str) -> None:
    if how == "sqlite":
        _copy_sqlite(Path(settings.mlflow_uri.removeprefix("sqlite:///")), copy.root / "registry.db")
        copy.written("registry.db")
    elif how == "postgres":
        dump_postgres(settings.mlflow_uri, copy.root / "registry.dump")
        copy.written("registry.dump")
    _copy_sqlite(settings.home_path / "prefect" / "prefect.db", copy.root / "prefect.db")
    copy.written("prefect.db")


def _copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a database that may be written to meanwhile."""
    if not source.is_file():
        return
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def _note(settings: Settings, copy: _Copy, tables: dict[str, int], how: str) -> dict[str, Any]:
    left_out = ["definitions and expectation suites: they are your repository's", "settings and secrets: set them anew"]
    if how == "left out":
        left_out.append(f"the registry and its artifacts: {redact(settings.mlflow_uri)}")
    if os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL") or settings.prefect_api_url:
        left_out.append("Prefect's database (runs and their logs): dump it with its own tools; the ledger is here")
    shown = {name: redact(str(value)) for name, value in settings.model_dump().items() if value is not None}
    return {
        "format": _FORMAT, "perennial": __version__, "layout": layout.LAYOUT_VERSION,
        "created_at": datetime.now(UTC).isoformat(), "settings": shown, "artifacts_root": settings.artifacts_root,
        "registry": how, "tables": tables, "left_out": left_out, "files": copy.files,
    }  # fmt: skip


def _read_note(source: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads((source / NOTE).read_bytes())
        known = note["format"] == _FORMAT and note["layout"] <= layout.LAYOUT_VERSION
    except FileNotFoundError:
        raise NotFoundError(f"{source} holds no {NOTE}", "Name the folder that `perennial backup` made") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source / NOTE} can't be read: {error}", "Take another backup") from error
    if not known:
        raise ConflictError(
            f"{source} was made by Perennial {note['perennial']}, with layout {note['layout']}; "
            f"this one ({__version__}) knows {layout.LAYOUT_VERSION} at most",
            f"Install Perennial {note['perennial']} or a newer one",
        )
    return note


def _require_empty(settings: Settings, note: dict[str, Any]) -> None:
    targets = {"the home": str(settings.home_path), "the tables": settings.tables_root}
    if note["registry"] != "left out":
        targets["the artifacts"] = settings.artifacts_root
    for what, root in targets.items():
        there = [entry.name for entry in Objects(root).entries() if not entry.name.startswith("logs/")]
        if there:
            raise ConflictError(
                f"{what} in {root} are not empty: {there[0]}".replace("home in", "files of the home in"),
                "Move them away, or set PERENNIAL_HOME to a new folder",
            )
    kind = settings.mlflow_uri.partition(":")[0].partition("+")[0].replace("postgresql", "postgres")
    if note["registry"] not in ("left out", kind):
        raise ConflictError(
            f"the backup's registry is {note['registry']}, PERENNIAL_TRACKING_URI names {kind}",
            "Set it to a database of the same kind",
        )


def _verify(source: Path, note: dict[str, Any]) -> None:
    for name, facts in note["files"].items():
        path = source / name
        if not path.is_file():
            raise DataError(f"{path} is missing from the backup", "Restore another backup: nothing was changed here")
        if _digest(path) != facts["sha256"]:
            raise DataError(f"{path} is not what was backed up", "Restore another backup: nothing was changed here")


def _put_back(settings: Settings, source: Path, name: str) -> None:
    area, _, rest = name.partition("/")
    roots = {"home": str(settings.home_path), "tables": settings.tables_root, "artifacts": settings.artifacts_root}
    if area in roots:
        Objects(roots[area]).upload(source / name, rest)
    elif name == "registry.db":
        _copy_file(source / name, Path(settings.mlflow_uri.removeprefix("sqlite:///")))
    elif name == "prefect.db":
        _copy_file(source / name, settings.home_path / "prefect" / "prefect.db")


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _as_uri(root: str) -> str:
    return root if is_remote(root) else Path(root.removeprefix("file://")).resolve().as_uri()


def _summary(place: Path, note: dict[str, Any]) -> Summary:
    size = sum(facts["bytes"] for facts in note["files"].values())
    return Summary(str(place), len(note["files"]), size, note["tables"], note["registry"], note["left_out"])


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    for piece in _pieces(path):
        total.update(piece)
    return total.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece
