"""Quarantined rows tried again under the rules of now, or discarded by a person. What an entry is, is in tasks.intake.

A row that was refused by itself is judged by itself: by what can be read, by the suite's critical rules for rows, and
by the rows of its id. A refused batch is judged whole again, as if it came now. What passes goes in as of now, once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.intake.judging import Judged, NamedRows, id_name, judge_batch, learn_coding, refuse_truths, suite_refusals
from tasks.intake.quarantine import (
    BY_ROW,
    DISCARDED,
    KNOWN,
    OPEN,
    RELEASED,
    RELEASES,
    WITH_BATCH,
    RefusedRows,
    close,
    entries,
    entry_lines,
    rows_of,
)
from tasks.intake.readable import read_rows
from tasks.intake.refusals import Refusals
from tasks.intake.spool import Spool
from tasks.intake.twins import find_stored, find_within, stored_ids
from tasks.rows.classes import Coding, settle
from tasks.rows.frames import is_known, known_labels
from tasks.steps.ingest import Receipt, add_batch_labels, finish, store_rows
from tasks.validation.report import summary
from tasks.validation.rowwise import unjudged, validate_rows
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite


@dataclass(frozen=True)
class Chosen:
    """Which open entries are meant; all of them by default.

    Attributes:
        names: Entries, or beginnings of their names.
        ids: Rows' ids.
        rule: A part of the rule that refused them.
        batch: The delivery that brought them, or the beginning of its name.
    """

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    rule: str | None = None
    batch: str | None = None

    def among(self, found: pd.DataFrame) -> pd.DataFrame:
        """Those of the entries that are meant."""
        keep = np.ones(len(found), dtype=np.bool_)
        if self.names:
            keep &= found["entry"].str.startswith(self.names).to_numpy(dtype=np.bool_)
        if self.ids:
            keep &= found["id"].isin(self.ids).to_numpy()
        if self.rule:
            keep &= found["rules"].str.contains(self.rule, case=False, regex=False).to_numpy(dtype=np.bool_)
        if self.batch:
            keep &= found["batch_id"].str.startswith(self.batch).to_numpy(dtype=np.bool_)
        return found[keep].reset_index(drop=True)


@dataclass(frozen=True)
class Released:
    """What became of the entries that were tried again.

    Attributes:
        tried: How many there were.
        released: Rows that are in the tables now; `known` were there with just this content.
        held: Rows that stay; `told` says why, one sentence a rule.
        labels: Truths that came with the released rows.
        learnt: What was learnt of the classes, and changed by that.
    """

    tried: int
    released: int = 0
    known: int = 0
    held: int = 0
    labels: int = 0
    told: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()


def open_entries(store: Store, definition: ModelDefinition, chosen: Chosen, *, with_rows: bool = False) -> pd.DataFrame:
    """The open entries that are meant.

    Raises:
        NotFoundError: There are open entries, but none is meant.
    """
    found = entries(store, definition, with_rows=with_rows)
    found = found[found["state"] == OPEN].reset_index(drop=True)
    meant = chosen.among(found)
    if chosen != Chosen() and not len(meant):
        raise NotFoundError(
            f"no open entry in the quarantine of {definition.name} is meant by that; {len(found)} are open",
            f"See `perennial quarantine {definition.name} show`",
        )
    return meant


def release(
    store: Store, definition: ModelDefinition, suite: Suite, chosen: Chosen, *, as_of: datetime, by: str, reason: str
) -> Released:
    """Let in what passes now; what does not stays open. Of a refused batch all rows are tried, or none.

    Raises:
        NotFoundError: As `open_entries`.
    """
    meant = open_entries(store, definition, chosen)
    found = open_entries(store, definition, Chosen(), with_rows=True)
    whole = set(meant.loc[meant["scope"] == WITH_BATCH, "batch_id"])
    alone = found[found["entry"].isin(meant["entry"]) & (found["scope"] == BY_ROW)]
    batches = found[(found["scope"] == WITH_BATCH) & found["batch_id"].isin(whole)]
    done = [Released(0)]
    if len(alone):
        done.append(_release_rows(store, definition, suite, alone, as_of=as_of, by=by, reason=reason))
    for _, lines in batches.sort_values(["first_at", "batch_id", "position"]).groupby("batch_id", sort=False):
        done.append(_release_batch(store, definition, suite, lines, as_of=as_of, by=by, reason=reason))
    names = ("tried", "released", "known", "held", "labels")
    counts: dict[str, int] = {name: sum(getattr(item, name) for item in done) for name in names}
    told = tuple(dict.fromkeys(text for item in done for text in item.told))
    return Released(**counts, told=told, learnt=tuple(text for item in done for text in item.learnt))


def discard(store: Store, definition: ModelDefinition, chosen: Chosen, *, at: datetime, by: str, reason: str) -> int:
    """Close entries for good: they are not taken, nor told again, however often they are delivered.

    Raises:
        NotFoundError: As `open_entries`.
        DataError: The name or the reason is empty.
    """
    for name, value in (("name", by), ("reason", reason)):
        if not value.strip():
            raise DataError(f"the {name} is empty", "Say who discards the rows, and why: it is kept")
    names = open_entries(store, definition, chosen)["entry"].tolist()
    close(store, definition.name, names, DISCARDED, at=at, by=by, reason=reason)
    return len(names)


def _release_rows(
    store: Store, definition: ModelDefinition, suite: Suite, lines: pd.DataFrame, *, as_of: datetime, by: str,
    reason: str,
) -> Released:  # fmt: skip
    lines = lines.reset_index(drop=True)
    with Spool() as spool:
        rows = rows_of(lines["row"].tolist(), definition)
        try:
            readable = read_rows(rows, definition)
            judged = Judged(_batch_name(lines), len(lines), spool, Coding(None, {}), readable.refused)
            spool.add(readable.rows)
            judged.coding = learn_coding(store, definition, spool)
            refuse_truths(definition, spool, judged.refused, judged.coding)
        except DataError as error:
            return Released(len(lines), held=len(lines), told=(str(error),))
        if spool.rows:
            _judge_alone(store, definition, suite, judged)
        return _take_in(store, definition, judged, lines, as_of=as_of, by=by, reason=reason)


def _judge_alone(store: Store, definition: ModelDefinition, suite: Suite, judged: Judged) -> None:
    rows = next(judged.spool.parts())
    positions, refused = rows.index.to_numpy(), judged.refused
    known = stored_ids(store, definition.name, rows[ROW_ID], judged.batch_id)
    stored = find_stored(store, definition, rows, judged.batch_id, known)
    refused.update(stored.conflicts)
    refused.update(_by_suite(definition, suite, judged.spool, positions))
    judged.repeats = stored.repeats
    for position in positions[judged.repeats]:
        refused.by_row.pop(int(position), None)
    free = ~judged.repeats & ~np.isin(positions, list(refused))
    within = find_within(rows[free], definition)
    refused.update(within.conflicts)
    judged.repeats[free] |= within.repeats
    judged.keep = ~judged.repeats & ~np.isin(positions, list(refused))


def _by_suite(definition: ModelDefinition, suite: Suite, spool: Spool, positions: np.ndarray) -> Refusals:
    rows = NamedRows(spool, definition)
    report = validate_rows(rows, in_normal_form(suite, definition), id_column=id_name(definition))
    if report is None:
        return Refusals()
    found = suite_refusals(report, positions)
    for result in unjudged(report):
        for position in positions:
            found.add(int(position), f"{result.column}: expected {result.rule}", summary(result))
    return found


def _release_batch(
    store: Store, definition: ModelDefinition, suite: Suite, lines: pd.DataFrame, *, as_of: datetime, by: str,
    reason: str,
) -> Released:  # fmt: skip
    lines = lines.reset_index(drop=True)
    frame = rows_of(lines["row"].tolist(), definition)
    with Spool() as spool:
        judged = judge_batch(store, definition, lambda: iter([frame]), suite, spool, name=_batch_name(lines))
        if judged.reasons:
            return Released(len(lines), held=len(lines), told=judged.reasons)
        done = _take_in(store, definition, judged, lines, as_of=as_of, by=by, reason=reason)
        if rows := list(judged.refused):
            # Their batch is in: from now on they are judged by themselves.
            refused = RefusedRows(
                frame.iloc[rows],
                lines["position"].to_numpy()[rows],
                [judged.refused.text(row) for row in rows],
                [judged.refused.rules(row) for row in rows],
                [BY_ROW] * len(rows),
            )
            source = str(lines["source"].iloc[0])
            told = entry_lines(refused, definition, batch_id=judged.batch_id, source=source, at=as_of)
            store.append(definition.name, "quarantine", told, key=f"quarantine:{judged.batch_id}")
        return done


def _take_in(
    store: Store, definition: ModelDefinition, judged: Judged, lines: pd.DataFrame, *, as_of: datetime, by: str,
    reason: str,
) -> Released:  # fmt: skip
    model, refused = definition.name, judged.refused
    result = Released(len(lines), held=len(refused), told=tuple(refused.told()))
    if not judged.keep.any() and not judged.repeats.any():
        return result
    target = [definition.data.target] if definition.data.target in judged.spool.columns else []
    rows = judged.spool.take([ROW_ID, ROW_TIME, *target])
    kept, repeated = rows[judged.keep], rows[judged.repeats]
    learnt = settle(store, definition, judged.coding, at=as_of, batch_id=judged.batch_id)
    receipt = Receipt(judged.batch_id, RELEASES, "accepted", len(kept) + len(repeated), len(kept), 0, len(repeated))
    if len(kept):
        receipt = replace(receipt, time_from=kept[ROW_TIME].min(), time_until=kept[ROW_TIME].max())
        store_rows(store, definition, judged, as_of=as_of)
    came = rows[judged.keep | judged.repeats]
    # A truth that came by another way since is newer than the one that lay here.
    labelled = known_labels(store, model, as_of=as_of, ids=came[ROW_ID])["id"]
    labels = add_batch_labels(
        store, definition, came[~is_known(came[ROW_ID], labelled)], receipt, judged.coding, as_of=as_of
    )
    finish(store, model, replace(receipt, labels=labels), judged.report, as_of, key=f"receipt:{judged.batch_id}")
    for state, there in ((RELEASED, kept), (KNOWN, repeated)):
        close(
            store, model, lines["entry"].iloc[there.index].tolist(), state, at=as_of, by=by, reason=reason,
            batch_id=judged.batch_id, key=f"{state}:{judged.batch_id}",
        )  # fmt: skip
    return replace(result, released=len(kept), known=len(repeated), labels=labels, learnt=learnt)


def _batch_name(lines: pd.DataFrame) -> str:
    """The name of what is released together: of its rows as they are, whatever they are called."""
    content = "\n".join(sorted(lines["entry"] + lines["row"] + lines["quarantined_at"].astype("str")))
    return hashlib.sha256(content.encode()).hexdigest()[:24]
