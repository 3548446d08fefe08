"""Old files in the home: reports, and what a training would be resumed from. By when they were last written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.upkeep.freed import Freed


def remove_reports(home: Path, model: str, *, kept: timedelta | None, as_of: datetime, dry_run: bool) -> Freed:
    """Remove a model's pages that are older than the keep."""
    return _remove("reports", sorted((home / "reports" / model).glob("*")), kept, as_of, dry_run=dry_run)


def remove_work(home: Path, model: str, *, kept: timedelta | None, as_of: datetime, dry_run: bool) -> Freed:
    """Remove what trainings left behind of which nothing was written for so long."""
    return _remove("trainings' work", sorted((home / "work" / model).glob("*")), kept, as_of, dry_run=dry_run)


def _remove(what: str, places: list[Path], kept: timedelta | None, as_of: datetime, *, dry_run: bool) -> Freed:
    if kept is None:
        return Freed(what, 0)
    count, size = 0, 0
    for place in places:
        stats = [path.stat() for path in _files(place)] or [place.stat()]
        if datetime.fromtimestamp(max(stat.st_mtime for stat in stats), UTC) >= as_of - kept:
            continue
        count, size = count + 1, size + sum(stat.st_size for stat in stats)
        if not dry_run and place.is_dir():
            shutil.rmtree(place)
        elif not dry_run:
            place.unlink(missing_ok=True)
    return Freed(what, count, size)


def _files(place: Path) -> Iterator[Path]:
    return place.rglob("*") if place.is_dir() else iter([place])
