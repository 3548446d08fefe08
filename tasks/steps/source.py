"""What a model's source has that the tables don't: new rows, and truths that are due. It judges no row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import code_truth
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.intake.quarantine import BY_ROW, RefusedRows, entries, entry_lines, held_back, supersede, without_known
from tasks.intake.readable import read_rows, truth_rule
from tasks.intake.refusals import Refusals
from tasks.intake.twins import find_stored, stored_ids
from tasks.rows.classes import known_coding
from tasks.rows.frames import is_known
from tasks.rows.labels import LabelReceipt, find_steps, label_frame
from tasks.rows.normal_form import batch_digest, row_ids, time_column, used_columns
from tasks.rows.source import read_source
from tasks.steps.ingest import SOURCE, delivering


@dataclass(frozen=True)
class SourceRead:
    """What the source has that the tables don't.

    Attributes:
        rows: New rows, as the source gives them.
        truths: Rows seen before or now whose truth is due, as the source gives them.
        history: Nothing was ingested before: this is the import of the past.
        start: Where reading began; None for the source's beginning.
    """

    rows: pd.DataFrame
    truths: pd.DataFrame
    history: bool
    start: datetime | None

    def parts(self) -> Iterator[pd.DataFrame]:
        """The new rows as one part."""
        return iter([self.rows])


def read_new(store: Store, definition: ModelDefinition, *, as_of: datetime) -> SourceRead:
    """Read the source up to `as_of`: rows that are new or contradict what is known, and truths that are due.

    Reading goes back over twice the label delay (a day at least), so that late rows and late truth are found.
    """
    data = definition.data
    last = _last_time(store, definition.name)
    start = None if last is None else min(last, as_of) - max(2 * data.label_delay, timedelta(days=1))
    frame = read_source(definition, start, as_of)
    if not len(frame) or last is None:
        return SourceRead(frame, frame.iloc[:0], last is None, start)
    if not set(data.id_columns) <= set(frame.columns):
        return SourceRead(frame, frame.iloc[:0], False, start)
    truths = frame.iloc[:0]
    ids = row_ids(frame, definition, complete=False)
    if data.target in frame.columns:
        due = time_column(frame[data.time]) + data.label_delay <= as_of
        truths = frame[due.to_numpy() & frame[data.target].notna().to_numpy() & ids.notna().to_numpy()]
    bare = frame.drop(columns=data.target, errors="ignore")
    rows = bare[~_known_as_they_are(store, definition, bare)].reset_index(drop=True)
    return SourceRead(rows[~held_back(store, definition, rows)].reset_index(drop=True), truths, False, start)


def add_source_truths(
    store: Store, definition: ModelDefinition, found: SourceRead, *, as_of: datetime
) -> tuple[LabelReceipt, tuple[str, ...]]:
    """Label the truths that are due; those that are refused go to quarantine with their rows.

    Returns:
        The receipt, and why truths were refused, one sentence a rule.
    """
    truths = found.truths.reset_index(drop=True)
    try:
        receipt = label_frame(
            store, definition, truths, as_of=as_of, author=SOURCE, deliveries=delivering(store, definition.name)
        )
    except DataError as error:  # which classes are meant is not clear yet
        receipt = LabelReceipt(0, 0, 0, 0, refused=tuple((row, str(error)) for row in range(len(truths))))
    refused, rule = Refusals(), truth_rule(definition)
    for row, reason in receipt.refused:
        refused.add(row, rule, reason)
    batch_id = batch_digest(used_columns(truths, definition))
    good = truths[~np.isin(truths.index, list(refused))]
    came = pd.DataFrame({ROW_ID: row_ids(good, definition), ROW_TIME: time_column(good[definition.data.time])})
    came = came[is_known(came[ROW_ID], pd.Series(stored_ids(store, definition.name, came[ROW_ID], "").to_pandas()))]
    supersede(store, definition, came, batch_id=batch_id, source=SOURCE, at=as_of, only=rule)
    if len(refused):
        rows = list(refused)
        held = RefusedRows(
            truths.iloc[rows],
            np.array(rows),
            [refused.text(row) for row in rows],
            [refused.rules(row) for row in rows],
            [BY_ROW] * len(rows),
        )
        lines = entry_lines(held, definition, batch_id=batch_id, source=SOURCE, at=as_of)
        lines = without_known(entries(store, definition), lines)
        if len(lines):
            store.append(definition.name, "quarantine", lines, key=f"truths:{batch_id}:{as_of.isoformat()}")
    return receipt, tuple(refused.told())


def is_first(store: Store, model: str) -> bool:
    """Whether nothing was ingested so far."""
    return _last_time(store, model) is None


def is_nothing_new(store: Store, definition: ModelDefinition, found: SourceRead, *, as_of: datetime) -> bool:
    """Whether what was read would change no table: no new row, and no truth that is not known just so."""
    if found.history or len(found.rows) or known_coding(store, definition).before is not None:
        return False
    if not len(found.truths):
        return True
    coding = known_coding(store, definition)
    if definition.task == "classification" and not coding.stored:
        return False
    target = found.truths[definition.data.target].reset_index(drop=True)
    truth, refused = code_truth(target, definition, coding.classes)
    ids, voices = row_ids(found.truths, definition), delivering(store, definition.name)
    steps = find_steps(store, definition, ids, truth, labelled_at=as_of, author=SOURCE, deliveries=voices)
    return not refused and not len(steps.new)


def _known_as_they_are(store: Store, definition: ModelDefinition, frame: pd.DataFrame) -> np.ndarray:
    """Which rows are stored with just this content: shape (n,)."""
    found = np.zeros(len(frame), dtype=np.bool_)
    try:
        readable = read_rows(frame, definition)
    except DataError:  # it concerns the whole: the ingestion says so
        return found
    rows = readable.rows
    known = stored_ids(store, definition.name, rows[ROW_ID], "")
    if len(known):
        found[rows.index[find_stored(store, definition, rows, "", known).repeats]] = True
    return found


def _last_time(store: Store, model: str) -> datetime | None:
    times = store.read(model, "receipts", columns=["time_until", "verdict"])
    accepted = times.filter(pc.field("verdict") == "accepted")
    newest = pc.max(accepted["time_until"]).as_py() if len(accepted) else None
    return newest
