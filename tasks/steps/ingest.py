"""A batch's way into the tables: once, validated, with refused rows in quarantine. It reads no source.

What concerns a row costs that row; the batch is refused by the suite's criticals, and where more of its rows are
refused than the definition allows. The appends of one batch share its digest as their key, and the receipt comes
last: a run that was killed in between is finished by the next one, and a batch that is there changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import code_truth, given_cells
from perennial.state.store import ROW_BATCH, ROW_ID, ROW_INGESTED_AT, ROW_TIME, Store
from perennial.workspace import Workspace
from tasks.intake.quarantine import (
    BY_ROW,
    WITH_BATCH,
    RefusedRows,
    entries,
    entry_lines,
    held_back,
    supersede,
    without_known,
)
from tasks.intake.readable import read_rows, truth_rule, wrong_truths
from tasks.intake.refusals import Refusals
from tasks.intake.spool import Spool
from tasks.intake.twins import CONTRADICTS_DELIVERY, CONTRADICTS_STORED, find_stored, find_within, stored_ids
from tasks.rows.classes import Coding, coding_of, known_coding, settle
from tasks.rows.frames import is_known
from tasks.rows.labels import LabelReceipt, add_labels, find_steps, label_frame
from tasks.rows.normal_form import BatchDigest, batch_digest, id_parts, row_ids, time_column, used_columns
from tasks.rows.source import read_source
from tasks.validation.judging import Rows, validate
from tasks.validation.report import ValidationReport, render_html
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite

# A delivery as parts, given anew each time it is called: refused rows are looked up once more.
Parts = Callable[[], Iterator[pd.DataFrame]]
PART_ROWS = 200_000
SOURCE = "source"  # what the model's own source is called in receipts and labels


@dataclass(frozen=True)
class Receipt:
    """What became of one batch: rows = kept + duplicates + quarantined.

    Attributes:
        verdict: `accepted`, `refused` (nothing was kept), or `known` (it had been ingested before).
        kept: Rows now in the table; `quarantined` and `duplicates` (the same rows were there) are not.
        conflicts: Those of the quarantined rows that contradict another row of their id.
        superseded: Rows of earlier batches that were in quarantine, and have come in mended with this one.
        told: Why rows were quarantined, one sentence a rule, with its count and an example.
        learnt: What was learnt of the classes, and changed by that.
    """

    batch_id: str
    source: str
    verdict: str
    rows: int
    kept: int = 0
    quarantined: int = 0
    duplicates: int = 0
    labels: int = 0
    time_from: datetime | None = None
    time_until: datetime | None = None
    reasons: tuple[str, ...] = ()
    conflicts: int = 0
    superseded: int = 0
    told: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()


@dataclass
class Judged:
    """A batch before anything of it is stored.

    Attributes:
        batch_id: Its digest.
        rows: How many rows came.
        spool: Those that could be read, in the normal form.
        coding: What 0 and 1 mean in their truths.
        refused: Rows that are refused one by one, by their position.
        repeats: Which of the spool's rows are there already; `keep`: which go in. Both over the spool's rows in order.
        reasons: Why the whole batch is refused; empty where it is not.
        report: The validation's; None where the batch was known or could not be read.
    """

    batch_id: str
    rows: int
    spool: Spool
    coding: Coding
    refused: Refusals = field(default_factory=Refusals)
    repeats: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    keep: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    reasons: tuple[str, ...] = ()
    report: ValidationReport | None = None
    known: bool = False


def ingest_batch(
    store: Store,
    definition: ModelDefinition,
    frame: pd.DataFrame | Parts,
    suite: Suite,
    *,
    source: str,
    as_of: datetime,
    history: bool = False,
) -> tuple[Receipt, ValidationReport | None]:
    """Validate a batch and put it into the tables.

    Args:
        frame: Rows as the source gives them; or a function that gives them part by part, of which no more than
            one, and single columns, are held at a time.
        source: Where they come from, for the receipt.
        as_of: The moment of ingestion.
        history: The rows are an import of the past: they, and their labels after the label delay, count as
            known when they happened.

    Returns:
        The receipt, and the validation's report (None where the batch could not even be read, or was known).
    """
    parts: Parts = (lambda: iter([frame])) if isinstance(frame, pd.DataFrame) else frame
    with Spool() as spool:
        judged = judge_batch(store, definition, parts, suite, spool)
        receipt = Receipt(judged.batch_id, source, "known" if judged.known else "accepted", judged.rows)
        if judged.known:
            return receipt, None
        if spool.rows:
            times = spool.take([ROW_TIME])[ROW_TIME]
            receipt = replace(receipt, time_from=times.min(), time_until=times.max())
        receipt = replace(receipt, conflicts=conflicts(judged.refused), told=tuple(judged.refused.told()))
        if judged.reasons:
            # Under the rules' digests, so that the batch can be tried again when they were mended.
            key = f"{judged.batch_id}:{definition.hash}:{suite.digest}"
            return _refuse(store, definition, parts, judged, receipt, as_of, key=key), judged.report
        return _accept(store, definition, parts, judged, receipt, as_of=as_of, history=history), judged.report


def judge_batch(
    store: Store, definition: ModelDefinition, parts: Parts, suite: Suite, spool: Spool, *, name: str | None = None
) -> Judged:
    """Read a batch into the spool and say which of its rows go in; nothing is stored.

    Args:
        name: The batch's, where it is not its digest: of rows that are tried again.
    """
    digest, refused, count = BatchDigest(), Refusals(), 0
    problem: DataError | None = None
    for part in parts():
        digest.add(used_columns(part, definition))
        if problem is None:
            try:
                found = read_rows(part, definition)
            except DataError as error:
                problem = error
            else:
                refused.update(found.refused, count)
                found.rows.index += count
                spool.add(found.rows)
        count += len(part)
    coding = Coding(None, {})
    if problem is None:
        try:
            coding = learn_coding(store, definition, spool)
            refuse_truths(definition, spool, refused, coding)
        except DataError as error:  # nothing can be read of a batch whose classes are not clear
            problem = error
    judged = Judged(name or digest.hexdigest(coding.token), count, spool, coding, refused)
    if name is None and store.committed(definition.name, "receipts", f"receipt:{judged.batch_id}"):
        judged.known = True
    elif problem is not None:
        judged.reasons = (str(problem),)
    elif count and not spool.rows:
        judged.reasons = (_every(refused),)
    else:
        _judge_rows(store, definition, suite, judged)
    return judged


def learn_coding(store: Store, definition: ModelDefinition, spool: Spool) -> Coding:
    """What 0 and 1 mean for a delivery, learnt from its truths where nobody has said so. Nothing is written.

    Raises:
        DataError: The truths don't tell which two classes are meant.
    """
    target, known = definition.data.target, known_coding(store, definition)
    if definition.task != "classification" or known.classes is not None or target not in spool.columns:
        return known
    return coding_of(store, definition, spool.take([target])[target].reset_index(drop=True))


def refuse_truths(definition: ModelDefinition, spool: Spool, refused: Refusals, coding: Coding) -> None:
    """Take rows out of the spool whose truth is none of this model."""
    target = definition.data.target
    if target in spool.columns:
        found = wrong_truths(spool.take([target])[target], definition, coding)
        refused.update(found)
        spool.drop(list(found))


def _judge_rows(store: Store, definition: ModelDefinition, suite: Suite, judged: Judged) -> None:
    spool, refused = judged.spool, judged.refused
    report = validate(NamedRows(spool, definition), in_normal_form(suite, definition), id_column=id_name(definition))
    judged.report, judged.reasons = report, report.reasons
    positions = spool.positions()
    judged.repeats = np.zeros(len(positions), dtype=np.bool_)
    if judged.reasons:
        refused.update(suite_refusals(report, positions))
        return
    judged.repeats = _find_twins(store, definition, judged, bad=report.quarantined_rows())
    if reason := _too_many(definition, judged):
        judged.reasons = (reason,)
        return
    by_suite = suite_refusals(report, positions)
    for position in positions[judged.repeats]:  # what is there already stays, whatever the suite says by now
        by_suite.by_row.pop(int(position), None)
    refused.update(by_suite)
    judged.keep = ~judged.repeats & ~np.isin(positions, list(refused))
    if not judged.keep.any() and not judged.repeats.any() and len(refused):
        judged.reasons = (_every(refused),)


def _find_twins(store: Store, definition: ModelDefinition, judged: Judged, bad: np.ndarray) -> np.ndarray:
    """Refuse rows that contradict another of their id; which of the spool's rows are repeats.

    Args:
        bad: Places of rows that the suite refuses: another row of their id does not repeat them.
    """
    spool, start = judged.spool, 0
    repeats, fresh = np.zeros(spool.rows, dtype=np.bool_), np.ones(spool.rows, dtype=np.bool_)
    hashes = np.empty(spool.rows, dtype=np.uint64)
    for part in spool.parts([ROW_ID]):
        end = start + len(part)
        hashes[start:end] = pd.util.hash_array(part[ROW_ID].array, categorize=False)
        known = stored_ids(store, definition.name, part[ROW_ID], judged.batch_id)
        if len(known):
            fresh[start:end] = ~is_known(part[ROW_ID], pd.Series(known.to_pandas(), dtype="str"))
            rows = spool.pick(np.isin(np.arange(spool.rows), np.flatnonzero(~fresh[start:end]) + start))
            found = find_stored(store, definition, rows, judged.batch_id, known)
            repeats[start:end][~fresh[start:end]] = found.repeats
            judged.refused.update(found.conflicts)
        start = end
    fresh[bad] = False
    # By hashes, 8 bytes a row; whether the ids are really the same is asked of those rows alone.
    several = fresh & pd.Series(hashes).duplicated(keep=False).to_numpy()
    if several.any():
        found = find_within(spool.pick(several), definition)
        repeats[several] = found.repeats
        judged.refused.update(found.conflicts)
    return repeats


def _too_many(definition: ModelDefinition, judged: Judged) -> str | None:
    """Why more rows are refused one by one than the definition allows; a single one never costs the others."""
    count, limit = len(judged.refused), definition.data.refused_share
    if count < 2 or count <= limit * judged.rows:
        return None
    told = "; ".join(judged.refused.told())
    text = f"{count:,} of {judged.rows:,} rows are refused, more than data.refused_share = {limit:g} allows: {told}"
    if 2 * conflicts(judged.refused) < count:
        return text
    names = ", ".join(dict.fromkeys((*definition.data.id_columns, definition.data.time)))
    return f"{text}. If {definition.data.id} names no row, name the columns that do together: `data: {{id: [{names}]}}`"


def _every(refused: Refusals) -> str:
    return f"every row is refused: {'; '.join(refused.told())}"


def conflicts(refused: Refusals) -> int:
    """How many rows contradict another one of their id."""
    return sum(bool({CONTRADICTS_STORED, CONTRADICTS_DELIVERY} & set(refused.rules(row))) for row in refused)


def suite_refusals(report: ValidationReport, positions: np.ndarray) -> Refusals:
    """The rows that failed a critical expectation, by their positions in the delivery."""
    found = Refusals()
    bad = report.row_reasons()
    for place, column, reason in zip(bad["row"].astype("int64"), bad["column"], bad["reason"], strict=True):
        rule = str(reason).rpartition("; expected ")[2]
        found.add(int(positions[int(place)]), f"{column}: expected {rule}", str(reason))
    return found


class NamedRows(Rows):
    """The spool's rows under the names that the definition and its suite use, column by column."""

    def __init__(self, spool: Spool, definition: ModelDefinition) -> None:
        self._spool, self._definition = spool, definition
        hollow = pd.DataFrame(columns=spool.columns) if spool.columns else normal_columns(definition)
        self.columns = named(hollow, definition).columns

    def __len__(self) -> int:
        return self._spool.rows

    def take(self, columns: list[str]) -> pd.DataFrame:
        """These columns of all rows, counted from 0."""
        if not self._spool.columns:
            return pd.DataFrame(columns=columns)
        ours = set(columns) & set(self._spool.columns)
        if self._definition.data.time in columns:
            ours.add(ROW_TIME)
        if set(columns) - {self._definition.data.time, *ours}:
            ours.add(ROW_ID)
        rows = self._spool.take([name for name in self._spool.columns if name in ours])
        return named(rows.reset_index(drop=True), self._definition)[columns]


def normal_columns(definition: ModelDefinition) -> pd.DataFrame:
    """The normal form of no rows."""
    return pd.DataFrame(columns=[ROW_ID, ROW_TIME, *definition.features.columns])


def named(rows: pd.DataFrame, definition: ModelDefinition) -> pd.DataFrame:
    """Rows in the normal form under the names that the definition and its suite use."""
    data = definition.data
    frame = rows.rename(columns={ROW_TIME: data.time})
    if data.id == data.time:
        return frame.drop(columns=ROW_ID, errors="ignore")
    if isinstance(data.id, str):
        return frame.rename(columns={ROW_ID: data.id})
    if ROW_ID not in rows.columns:
        return frame
    parts = id_parts(rows[ROW_ID], definition)
    return frame.assign(**{name: part for name, part in parts.items() if name not in frame.columns})


def id_name(definition: ModelDefinition) -> str:
    """The column of `named` rows that tells them apart."""
    return definition.data.id if isinstance(definition.data.id, str) else ROW_ID


def _accept(
    store: Store, definition: ModelDefinition, parts: Parts, judged: Judged, receipt: Receipt, *, as_of: datetime,
    history: bool,
) -> Receipt:  # fmt: skip
    model, batch_id = definition.name, receipt.batch_id
    # Before anything is stored: it may be refused.
    learnt = settle(store, definition, judged.coding, at=as_of, batch_id=batch_id)
    store_rows(store, definition, judged, as_of=as_of, history=history)
    target = [definition.data.target] if definition.data.target in judged.spool.columns else []
    columns = [ROW_ID, ROW_TIME, *target]
    # What is there already may bring a truth that it had not, or another one.
    labels = sum(
        add_batch_labels(
            store, definition, part, receipt, judged.coding, as_of=as_of, history=history, part=number
        )
        for number, part in enumerate(_chosen(judged, judged.keep | judged.repeats, columns))
    )  # fmt: skip
    _quarantine(store, definition, parts, judged, receipt, as_of, key=batch_id)
    superseded = _supersede(store, definition, judged, receipt, columns, as_of)
    done = replace(
        receipt,
        kept=int(judged.keep.sum()),
        quarantined=len(judged.refused),
        duplicates=int(judged.repeats.sum()),
        labels=labels,
        superseded=superseded,
        learnt=learnt,
    )
    return finish(store, model, done, judged.report, as_of, key=f"receipt:{batch_id}")


def _supersede(
    store: Store, definition: ModelDefinition, judged: Judged, receipt: Receipt, columns: list[str], as_of: datetime
) -> int:
    """Close what lies in quarantine and came in with this batch, a row or its truth; how many."""
    if store.version(definition.name, "quarantine") is None:
        return 0
    rows, target = judged.spool.take(columns), columns[2:]
    mended = partial(supersede, store, definition, batch_id=receipt.batch_id, source=receipt.source, at=as_of)
    superseded = mended(rows[judged.keep])
    if target:
        told = given_cells(rows[target[0]]) & judged.repeats
        superseded += mended(rows[told], only=truth_rule(definition))
    return superseded


def _chosen(judged: Judged, chosen: np.ndarray, columns: list[str]) -> Iterator[pd.DataFrame]:
    """The rows of a mask over the spool's, part by part, without the parts that have none."""
    start = 0
    for part in judged.spool.parts(columns):
        rows = part[chosen[start : start + len(part)]]
        start += len(part)
        if len(rows):
            yield rows


def store_rows(
    store: Store, definition: ModelDefinition, judged: Judged, *, as_of: datetime, history: bool = False
) -> None:
    """Append the rows that go in, in one commit, part by part."""
    columns = [ROW_ID, ROW_TIME, *definition.features.columns]

    def stored() -> Iterator[pd.DataFrame]:
        for kept in _chosen(judged, judged.keep, columns):
            known_at = kept[ROW_TIME] if history else pd.Timestamp(as_of)
            yield kept.assign(**{ROW_BATCH: judged.batch_id, ROW_INGESTED_AT: known_at})

    store.append_parts(definition.name, "batches", stored, key=f"batch:{judged.batch_id}")


def add_batch_labels(
    store: Store, definition: ModelDefinition, rows: pd.DataFrame, receipt: Receipt, coding: Coding, *,
    as_of: datetime, history: bool = False, part: int = 0,
) -> int:  # fmt: skip
    """The labels that came with rows that are stored and are known: all of a file's, of history those past the delay.

    Args:
        coding: What 0 and 1 mean, settled.
        part: Which part of the batch it is: each is appended once.
    """
    target = definition.data.target
    if target not in rows.columns or not len(rows):
        return 0
    moments = rows[ROW_TIME] + definition.data.label_delay
    if history:
        rows, moments = rows[moments <= as_of], moments[moments <= as_of]
    if not len(rows) or (definition.task == "classification" and coding.classes is None):  # all truths are missing
        return 0
    truth, _ = code_truth(rows[target].reset_index(drop=True), definition, coding.classes)
    receipts = add_labels(
        store, definition, rows[ROW_ID], truth, labelled_at=moments if history else as_of, author=receipt.source,
        key=f"labels:batch:{receipt.batch_id}" + (f":{part}" if part else ""),
        deliveries=delivering(store, definition.name),
    )  # fmt: skip
    return receipts.new + receipts.corrected


def delivering(store: Store, model: str) -> set[str]:
    """The authors of labels that are deliveries of rows."""
    return {SOURCE, *store.read(model, "receipts", columns=["source"])["source"].unique().to_pylist()}


def _refuse(
    store: Store, definition: ModelDefinition, parts: Parts, judged: Judged, receipt: Receipt, as_of: datetime, *,
    key: str,
) -> Receipt:  # fmt: skip
    """The whole batch into quarantine."""
    receipt = replace(receipt, verdict="refused", quarantined=judged.rows, reasons=judged.reasons)
    _quarantine(store, definition, parts, judged, receipt, as_of, key=key)
    return finish(store, definition.name, receipt, judged.report, as_of, key=f"refused:{key}")


def _quarantine(
    store: Store, definition: ModelDefinition, parts: Parts, judged: Judged, receipt: Receipt, as_of: datetime, *,
    key: str,
) -> None:  # fmt: skip
    """The refused rows; of a refused batch all, those that have no reason of their own under the batch's."""
    refused, whole = judged.refused, "; ".join(judged.reasons)
    if not whole and not len(refused):
        return
    scope, there = WITH_BATCH if whole else BY_ROW, entries(store, definition)

    def lines() -> Iterator[pd.DataFrame]:
        start = 0
        for part in parts():
            positions = [row for row in range(start, start + len(part)) if whole or row in refused]
            frame = part.iloc[[row - start for row in positions]]
            start += len(part)
            if positions:
                rows = RefusedRows(
                    frame,
                    np.array(positions),
                    [refused.text(row) if row in refused else whole for row in positions],
                    [refused.rules(row) if row in refused else judged.reasons for row in positions],
                    [scope] * len(positions),
                )
                found = entry_lines(rows, definition, batch_id=receipt.batch_id, source=receipt.source, at=as_of)
                if len(found := without_known(there, found)):
                    yield found

    store.append_parts(definition.name, "quarantine", lines, key=f"quarantine:{key}")


def finish(
    store: Store, model: str, receipt: Receipt, report: ValidationReport | None, as_of: datetime, *, key: str
) -> Receipt:
    facts = asdict(receipt)
    told = {name: facts.pop(name) for name in ("reasons", "conflicts", "superseded", "told", "learnt")}
    facts["report"] = json.dumps((report.to_dict() if report else {}) | told, allow_nan=False)
    facts["ingested_at"] = pd.Timestamp(as_of)
    row = pd.DataFrame([facts])
    for name in ("time_from", "time_until"):
        row[name] = pd.to_datetime(row[name], utc=True).dt.as_unit("us")
    store.append(model, "receipts", row, key=key)
    return receipt


def write_page(
    workspace: Workspace, definition: ModelDefinition, receipt: Receipt, report: ValidationReport, *, as_of: datetime
) -> Path:
    """The validation's report as a page for people; where it lies."""
    name = f"validation-{as_of:%Y%m%dT%H%M%S}-{receipt.batch_id[:8]}.html"
    path = workspace.reports_folder(definition.name) / name
    path.write_text(render_html(report, receipt.told), encoding="utf-8")
    return path


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
