"""A batch's way into the tables: once, validated, with refused rows in quarantine. It reads no source.

What concerns a row costs that row; the batch is refused by the suite's criticals, and where more of its rows are
refused than the definition allows. The appends of one batch share its digest as their key, and the receipt comes
last: a run that was killed in between is finished by the next one, and a batch that is there changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from perennial.definition import ModelDefinition
from perennial.model.truth import code_truth, given_cells
from perennial.state.store import Store
from perennial.state.tables import ROW_BATCH, ROW_ID, ROW_INGESTED_AT, ROW_TIME
from perennial.workspace import Workspace
from tasks.intake.judging import Judged, Parts, conflicts, judge_batch
from tasks.intake.quarantine import BY_ROW, WITH_BATCH, RefusedRows, entries, entry_lines, supersede, without_known
from tasks.intake.readable import truth_rule
from tasks.intake.spool import Spool
from tasks.rows.classes import Coding, settle
from tasks.rows.frames import label_steps
from tasks.rows.labels import add_labels
from tasks.validation.report import ValidationReport, render_html
from tasks.validation.suites import Suite

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
            one, and single columns, are held at a time (of a parquet file also the next part).
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
    known = _known_labels(store, definition, judged) if target else None
    # What is there already may bring a truth that it had not, or another one.
    labels = sum(
        add_batch_labels(
            store, definition, part, receipt, judged.coding, as_of=as_of, history=history, part=number, known=known
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


def _known_labels(store: Store, definition: ModelDefinition, judged: Judged) -> pd.DataFrame | None:
    """What was said of the batch's ids, read once for all parts; None where one part may correct what another says."""
    if judged.doubled:
        return None
    return label_steps(store, definition.name, ids=judged.spool.take([ROW_ID])[ROW_ID])


def _chosen(judged: Judged, chosen: np.ndarray, columns: list[str]) -> Iterator[pd.DataFrame]:
    """The rows of a mask over the spool's, part by part, without the parts that have none."""
    start = 0
    for part in judged.spool.parts(columns):
        mask = chosen[start : start + len(part)]
        rows = part if mask.all() else part[mask]
        start += len(part)
        if len(rows):
            yield rows


def store_rows(
    store: Store, definition: ModelDefinition, judged: Judged, *, as_of: datetime, history: bool = False
) -> None:
    """Append the rows that go in, in one commit, part by part."""
    columns = [ROW_ID, ROW_TIME, *definition.features.columns, *definition.carried]

    def stored() -> Iterator[pa.Table]:
        start = 0
        for part in judged.spool.tables(columns):
            mask = judged.keep[start : start + len(part)]
            kept = part if mask.all() else part.filter(pa.array(mask))
            start += len(part)
            known_at = kept[ROW_TIME] if history else pa.repeat(pa.scalar(as_of, kept[ROW_TIME].type), len(kept))
            if len(kept):
                yield kept.append_column(ROW_BATCH, pa.repeat(judged.batch_id, len(kept))).append_column(
                    ROW_INGESTED_AT, known_at
                )

    store.append_parts(definition.name, "batches", stored, key=f"batch:{judged.batch_id}")


def add_batch_labels(
    store: Store, definition: ModelDefinition, rows: pd.DataFrame, receipt: Receipt, coding: Coding, *,
    as_of: datetime, history: bool = False, part: int = 0, known: pd.DataFrame | None = None,
) -> int:  # fmt: skip
    """The labels that came with rows that are stored and are known: all of a file's, of history those past the delay.

    Args:
        coding: What the codes mean, settled.
        part: Which part of the batch it is: each is appended once.
        known: What was said of these ids already, as `find_steps` takes it.
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
        deliveries=delivering(store, definition.name), known=known,
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
