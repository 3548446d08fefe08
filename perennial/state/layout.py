"""What we lay out in the home and the tables' root: its version, recorded, required, migrated. It reads no table.

Layout 1 is what no record was written for: retraining and ingestion were locked by files of one machine.
Layout 2 adds the record itself and the leases, which hold across machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perennial import __version__
from perennial.errors import ConflictError, StorageError
from perennial.settings import Settings
from perennial.state.addresses import bring_home, require_at_home
from perennial.state.storage import Objects, dump

LAYOUT_VERSION = 2
RECORD = "_perennial/layout.json"
RESTORING = "_perennial/restoring.json"
# What a home of layout 1 has once a model lives in it. What a server or a command makes at its start does not count.
_OF_LAYOUT_1 = ("live", "tables", "locks/retrain-*.lock", "locks/ingest-*.lock")


@dataclass(frozen=True)
class Place:
    """The home or the tables' root, and which layout it has.

    Attributes:
        version: As recorded; 1 where something of ours is there without a record; None where nothing is there yet.
        written_by: The Perennial that wrote the record.
    """

    name: str
    root: str
    version: int | None
    written_by: str = ""


def home_place(settings: Settings) -> Place:
    """The home, as it is.

    Raises:
        ConflictError: A restore was broken off there.
    """
    lived_in = any(any(settings.home_path.glob(pattern)) for pattern in _OF_LAYOUT_1)
    return _look("the home", str(settings.home_path), in_use=lived_in)


def places(settings: Settings) -> list[Place]:
    """Both places, as they are.

    Raises:
        ConflictError: A restore was broken off there.
        StorageError: The tables' storage does not answer, or a record can't be read.
    """
    tables = settings.tables_root
    filled = any(name != "_perennial" for name in Objects(tables).folders())
    return [home_place(settings), _look("the tables", tables, in_use=filled)]


def require(settings: Settings, *, tables: bool = True) -> None:
    """Refuse to work on another layout than this program's.

    Args:
        tables: Whether to ask the tables too, or only the home.

    Raises:
        ConflictError: It is older (migrate) or newer (upgrade); a restore was broken off; or the home was copied.
        StorageError: The tables' storage does not answer.
        RegistryError: The registry's file can't be read.
    """
    _require_version(places(settings) if tables else [home_place(settings)])
    require_at_home(settings)


def _require_version(found: list[Place]) -> None:
    for place in found:
        if place.version is None or place.version == LAYOUT_VERSION:
            continue
        told = f"{place.name} in {place.root} have layout {place.version}".replace("home in", "files of the home in")
        if place.version < LAYOUT_VERSION:
            raise ConflictError(
                f"{told}, this Perennial ({__version__}) works on layout {LAYOUT_VERSION}",
                "Make a backup of it, end what still runs on it, and run: perennial migrate",
            )
        raise ConflictError(
            f"{told}, written by Perennial {place.written_by}; this one ({__version__}) knows {LAYOUT_VERSION} at most",
            f"Install Perennial {place.written_by} or a newer one",
        )


def stamp(settings: Settings) -> None:
    """Record the layout in places that have no record yet. A record that is there stays."""
    for root in (str(settings.home_path), settings.tables_root):
        Objects(root).create(RECORD, _record())


def stamp_home(home: Path) -> None:
    """The same for a home alone: of a machine that only follows what others have put into the tables."""
    Objects(str(home)).create(RECORD, _record())


def migrate(settings: Settings) -> Iterator[str]:
    """Bring both places to this program's layout and addresses here, and tell each step. After a break it goes on.

    Raises:
        ConflictError: A place is newer, or a process of the old layout is at work.
    """
    newer = [place for place in places(settings) if (place.version or 0) > LAYOUT_VERSION]
    if newer:
        _require_version(newer)
    for place in places(settings):
        for version in range(place.version or LAYOUT_VERSION, LAYOUT_VERSION):
            yield from _STEPS[version](settings, place)
            Objects(place.root).put(RECORD, _record(version + 1))
            yield f"{place.name} in {place.root}: layout {version} → {version + 1}"
        if place.version is None:
            Objects(place.root).create(RECORD, _record())
            yield f"{place.name} in {place.root}: layout {LAYOUT_VERSION}, nothing was there"
    yield from bring_home(settings)


def _to_leases(settings: Settings, place: Place) -> Iterator[str]:
    """1 → 2: nobody may hold a lock of the old kind; then those files go, so that no old program waits on them."""
    from filelock import FileLock, Timeout

    folder = settings.home_path / "locks"
    if place.root != str(settings.home_path):
        return
    old = sorted(path for kind in ("retrain", "ingest") for path in folder.glob(f"{kind}-*.lock"))
    with ExitStack() as stack:
        for path in old:
            lock = FileLock(path, timeout=0)
            try:
                stack.enter_context(lock)
            except Timeout:
                raise ConflictError(
                    f"{path.stem} is held: a process of the older Perennial is at work in {place.root}",
                    "Stop `perennial up` and what else runs there, then migrate again",
                ) from None
        for path in old:
            path.unlink(missing_ok=True)
            yield f"removed the lock file {path}; leases take its place"


_STEPS: dict[int, Callable[[Settings, Place], Iterator[str]]] = {1: _to_leases}


def _look(name: str, root: str, *, in_use: bool) -> Place:
    objects = Objects(root)
    if objects.get(RESTORING) is not None:
        raise ConflictError(
            f"a restore into {root} was broken off: it is not whole", f"Empty {root}, then restore again"
        )
    content = objects.get(RECORD)
    if content is None:
        return Place(name, root, 1 if in_use else None)
    try:
        record = json.loads(content)
        return Place(name, root, int(record["layout"]), str(record["written_by"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{root}/{RECORD} can't be read: {error}", "Restore it from a backup, or ask whoever changed it"
        ) from error


def _record(version: int = LAYOUT_VERSION) -> bytes:
    return dump({"layout": version, "written_by": __version__, "written_at": datetime.now(UTC).isoformat()})
