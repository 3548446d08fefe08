"""Old rows and files of a model's tables: removes, merges, vacuums. What trainings read stays readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.serving.log.shipper import SHADOW
from perennial.state.storage import Objects
from perennial.state.store import Store
from perennial.state.tables import LAYOUT
from tasks.intake.quarantine import DISCARDED, OPEN, entries
from tasks.upkeep.freed import Freed

LEAST_FILES = 12
# A reader or a training may hold a list of files for hours.
QUIET_HOURS = 48
_MANY = 1000
_CLOSED = "closed rows of the quarantine"


def remove_predictions(store: Store, model: str, *, kept: timedelta | None, as_of: datetime, dry_run: bool) -> Freed:
    """Remove rows of the prediction log, the shadow's too, that were answered before the keep."""
    rows = 0
    if kept is not None:
        until = as_of - kept
        old = pc.field("predicted_at") < pa.scalar(until, type=pa.timestamp("us", tz="UTC"))
        for place in (model, f"{model}/{SHADOW}"):
            rows += (
                store.count(place, "predictions", where=old)
                if dry_run
                else store.remove(place, "predictions", f"predicted_at < {_sql(until)}")
            )
    return Freed("predictions", rows)


def remove_closed_entries(
    store: Store, definition: ModelDefinition, *, kept: timedelta | None, as_of: datetime, dry_run: bool
) -> Freed:
    """Remove quarantined rows that went in, or were mended, before the keep.

    A discarded row stays: by it, it is known for one when its source delivers it again.
    """
    if kept is None or store.version(definition.name, "quarantine") is None:
        return Freed(_CLOSED, 0)
    found = entries(store, definition)
    old = found[~found["state"].isin([OPEN, DISCARDED]) & (found["closed_at"] < pd.Timestamp(as_of - kept))]
    names = sorted(set(old["entry"].dropna().astype("str")))
    if dry_run:
        return Freed(_CLOSED, len(old))
    rows = 0
    for first in range(0, len(names), _MANY):
        listed = ", ".join(f"'{name}'" for name in names[first : first + _MANY])
        rows += store.remove(definition.name, "quarantine", f"entry IN ({listed})")
    return Freed(_CLOSED, rows)


def vacuum_tables(
    store: Store, model: str, needed: Mapping[str, Sequence[int]], *, dry_run: bool, quiet_hours: int = QUIET_HOURS
) -> Freed:
    """Merge many small files, and remove files that no table needs any more.

    Args:
        needed: By table, the earlier versions that must stay readable.
    """
    files, size = 0, 0
    for place in (model, f"{model}/{SHADOW}"):
        for table in LAYOUT:
            if store.version(place, table) is None:
                continue
            if not dry_run:
                store.compact(place, table, least_files=LEAST_FILES)
            sizes = {entry.name: entry.size for entry in Objects(store.root).entries(f"{place}/{table}")}
            kept = needed.get(table, ()) if place == model else ()
            gone = store.vacuum(place, table, keep_versions=kept, quiet_hours=quiet_hours, dry_run=dry_run)
            files += len(gone)
            size += sum(sizes.get(f"{place}/{table}/{name}", 0) for name in gone)
            if not dry_run and table not in needed:
                store.forget_log(place, table)
    return Freed("files of the tables", files, size)


def _sql(moment: datetime) -> str:
    return f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z'"
