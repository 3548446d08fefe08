"""A batch's way into the tables: once, validated, with refused rows in quarantine. It reads no source.

The appends of one batch share its digest as their key, and the receipt comes last: a run that was killed in
between is finished by the next one, and a batch that is there changes nothing.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.features import numeric_values
from perennial.state.store import ROW_BATCH, ROW_ID, ROW_INGESTED_AT, ROW_TIME, Store, among, between
from tasks.rows.frames import is_known
from tasks.rows.labels import add_labels, encode_truth
from tasks.rows.normal_form import (
    batch_digest,
    id_parts,
    normalise,
    row_ids,
    time_column,
    unusable_numbers,
    used_columns,
)
from tasks.rows.source import read_source
from tasks.validation.judging import validate
from tasks.validation.report import ValidationReport
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite


@dataclass(frozen=True)
class Receipt:
    """What became of one batch.

    Attributes:
        verdict: `accepted`, `refused` (nothing was kept), or `known` (it had been ingested before).
        kept: Rows now in the table; `quarantined` and `duplicates` (ids that were there) are not.
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


def ingest_batch(
    store: Store,
    definition: ModelDefinition,
    frame: pd.DataFrame,
    suite: Suite,
    *,
    source: str,
    as_of: datetime,
    history: bool = False,
) -> tuple[Receipt, ValidationReport | None]:
    """Validate a batch and put it into the tables.

    Args:
        frame: Rows as the source gives them.
        source: Where they come from, for the receipt.
        as_of: The moment of ingestion.
        history: The rows are an import of the past: they, and their labels after the label delay, count as
            known when they happened.

    Returns:
        The receipt, and the validation's report (None where the batch could not even be read, or was known).
    """
    batch_id = batch_digest(used_columns(frame, definition))
    model = definition.name
    if store.committed(model, "receipts", f"receipt:{batch_id}"):
        return Receipt(batch_id, source, "known", len(frame)), None
    try:
        rows = normalise(frame, definition)
    except DataError as error:
        receipt = Receipt(batch_id, source, "refused", len(frame), quarantined=len(frame), reasons=(str(error),))
        return _refuse(store, definition, frame, receipt, None, as_of, key=f"{batch_id}:{definition.hash}"), None
    report = validate(named(rows, definition), in_normal_form(suite, definition), id_column=id_name(definition))
    spans = {"time_from": rows[ROW_TIME].min(), "time_until": rows[ROW_TIME].max()}
    reasons = report.reasons if report.verdict == "refused" else _unusable(rows, report, definition)
    if reasons:
        receipt = Receipt(batch_id, source, "refused", len(rows), quarantined=len(rows), reasons=reasons, **spans)
        # Under the rules' digests, so that the batch can be tried again when they were mended.
        key = f"{batch_id}:{definition.hash}:{suite.digest}"
        return _refuse(store, definition, frame, receipt, report, as_of, key=key), report
    receipt = Receipt(batch_id, source, "accepted", len(rows), **spans)
    return _accept(store, definition, frame, rows, report, receipt, as_of=as_of, history=history), report


def named(rows: pd.DataFrame, definition: ModelDefinition) -> pd.DataFrame:
    """Rows in the normal form under the names that the definition and its suite use."""
    data = definition.data
    frame = rows.rename(columns={ROW_TIME: data.time})
    if data.id == data.time:
        return frame.drop(columns=ROW_ID)
    if isinstance(data.id, str):
        return frame.rename(columns={ROW_ID: data.id})
    parts = id_parts(rows[ROW_ID], definition)
    return frame.assign(**{name: part for name, part in parts.items() if name not in frame.columns})


def id_name(definition: ModelDefinition) -> str:
    """The column of `named` rows that tells them apart."""
    return definition.data.id if isinstance(definition.data.id, str) else ROW_ID


def _unusable(rows: pd.DataFrame, report: ValidationReport, definition: ModelDefinition) -> tuple[str, ...]:
    """What no training could read, though the suite lets it pass: found before anything is written."""
    broken = unusable_numbers(rows, definition)
    good = ~rows.index.isin([*report.row_reasons()["row"], *broken])
    found = [f"all {len(rows)} rows are broken: {broken[0]}"] if broken and len(broken) == len(rows) else []
    if definition.data.target in rows.columns:
        try:
            encode_truth(rows[definition.data.target].where(good), definition)
        except DataError as error:
            found.append(str(error))
    return tuple(found)


def _accept(
    store: Store, definition: ModelDefinition, frame: pd.DataFrame, rows: pd.DataFrame, report: ValidationReport,
    receipt: Receipt, *, as_of: datetime, history: bool,
) -> Receipt:  # fmt: skip
    model, batch_id = definition.name, receipt.batch_id
    bad = report.row_reasons()
    reasons = bad.groupby("row")["reason"].agg("; ".join).to_dict() if len(bad) else {}
    for row, reason in unusable_numbers(rows, definition).items():
        reasons[row] = f"{reasons[row]}; {reason}" if row in reasons else reason
    by_row = pd.Series(reasons, dtype="str").sort_index()
    good = ~rows.index.isin(by_row.index)
    repeated = rows[ROW_ID].where(good).duplicated().to_numpy() | is_known(
        rows[ROW_ID], _other_ids(store, model, rows, batch_id)
    )
    keep = good & ~repeated
    kept = rows[keep]
    features = kept[[ROW_ID, ROW_TIME, *definition.features.columns]]
    # Of a column that had a broken cell the rest is still text.
    features = features.assign(**{name: numeric_values(features[name]) for name in definition.features.numeric})
    known_at = features[ROW_TIME] if history else pd.Timestamp(as_of)
    stored = features.assign(**{ROW_BATCH: batch_id, ROW_INGESTED_AT: known_at})
    if len(stored):
        store.append(model, "batches", stored, key=f"batch:{batch_id}")
    labels = _batch_labels(store, definition, kept, receipt, as_of=as_of, history=history)
    positions = by_row.index.to_numpy()
    _quarantine(store, definition, batch_id, frame, positions, by_row.tolist(), as_of, key=batch_id)
    done = replace(
        receipt,
        kept=len(kept),
        quarantined=len(by_row),
        duplicates=int((good & ~keep).sum()),
        labels=labels,
        reasons=report.reasons,
    )
    return _finish(store, model, done, report, as_of, key=f"receipt:{batch_id}")


def _other_ids(store: Store, model: str, rows: pd.DataFrame, batch_id: str) -> pd.Series:
    """The ids of this span of time that other batches brought."""
    end = rows[ROW_TIME].max() + pd.Timedelta(1, unit="us")
    where = between(ROW_TIME, rows[ROW_TIME].min(), end) & (pc.field(ROW_BATCH) != batch_id)
    return store.frame(model, "batches", columns=[ROW_ID], where=where)[ROW_ID]


def _batch_labels(
    store: Store, definition: ModelDefinition, kept: pd.DataFrame, receipt: Receipt, *, as_of: datetime, history: bool
) -> int:
    """The labels that came with the rows and are known: all of a file's, of history those past the delay."""
    target = definition.data.target
    if target not in kept.columns or not len(kept):
        return 0
    moments = kept[ROW_TIME] + definition.data.label_delay
    if history:
        kept, moments = kept[moments <= as_of], moments[moments <= as_of]
    if not len(kept):
        return 0
    labelled_at = moments if history else as_of
    truth = encode_truth(kept[target], definition)
    receipts = add_labels(
        store, definition, kept[ROW_ID], truth, labelled_at=labelled_at, author=receipt.source,
        key=f"labels:batch:{receipt.batch_id}",
    )  # fmt: skip
    return receipts.new + receipts.corrected


def _refuse(
    store: Store, definition: ModelDefinition, frame: pd.DataFrame, receipt: Receipt, report: ValidationReport | None,
    as_of: datetime, *, key: str,
) -> Receipt:  # fmt: skip
    """The whole batch into quarantine."""
    reasons = ["; ".join(receipt.reasons)] * len(frame)
    _quarantine(store, definition, receipt.batch_id, frame, np.arange(len(frame)), reasons, as_of, key=key)
    return _finish(store, definition.name, receipt, report, as_of, key=f"refused:{key}")


def _quarantine(
    store: Store, definition: ModelDefinition, batch_id: str, frame: pd.DataFrame, positions: np.ndarray,
    reasons: list[str], as_of: datetime, *, key: str,
) -> None:  # fmt: skip
    if not len(positions):
        return
    bad = frame.iloc[positions]
    rows = pd.DataFrame(
        {
            "batch_id": batch_id,
            "position": positions.astype(np.int64),
            "id": _ids_where_there(bad, definition),
            "quarantined_at": pd.Timestamp(as_of),
            "reasons": reasons,
            "row": _lines(bad),
        }
    )
    store.append(definition.name, "quarantine", rows, key=f"quarantine:{key}")


def _ids_where_there(frame: pd.DataFrame, definition: ModelDefinition) -> pd.Series | None:
    """Ids of rows that may lack them, or be refused for them."""
    try:
        return row_ids(frame, definition, complete=False)
    except (DataError, KeyError):
        return None


def _lines(frame: pd.DataFrame) -> list[str]:
    """Each row as JSON; bytes in base64."""
    plain = frame.copy(deep=False)
    for name in [name for name in frame.columns if pd.api.types.is_object_dtype(frame[name])]:
        plain[name] = [base64.b64encode(item).decode() if isinstance(item, bytes) else item for item in frame[name]]
    return str(plain.to_json(orient="records", lines=True, date_format="iso", default_handler=str)).splitlines()


def _finish(
    store: Store, model: str, receipt: Receipt, report: ValidationReport | None, as_of: datetime, *, key: str
) -> Receipt:
    facts = asdict(receipt)
    facts["report"] = json.dumps(report.to_dict() if report else {"reasons": receipt.reasons}, allow_nan=False)
    facts["ingested_at"] = pd.Timestamp(as_of)
    del facts["reasons"]
    row = pd.DataFrame([facts])
    for name in ("time_from", "time_until"):
        row[name] = pd.to_datetime(row[name], utc=True).dt.as_unit("us")
    store.append(model, "receipts", row, key=key)
    return receipt


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


def read_new(store: Store, definition: ModelDefinition, *, as_of: datetime) -> SourceRead:
    """Read the source up to `as_of`: rows whose ids are new, and truths that are due by the label delay.

    Reading goes back over twice the label delay (a day at least), so that late rows and late truth are found.
    """
    data = definition.data
    last = _last_time(store, definition.name)
    start = None if last is None else min(last, as_of) - max(2 * data.label_delay, timedelta(days=1))
    frame = read_source(definition, start, as_of)
    if not len(frame) or last is None:
        return SourceRead(frame, frame.iloc[:0], last is None, start)
    where = between(ROW_TIME, start, as_of)
    known = store.frame(definition.name, "batches", columns=[ROW_ID], where=where)[ROW_ID]
    if not set(data.id_columns) <= set(frame.columns):
        return SourceRead(frame, frame.iloc[:0], False, start)
    ids = row_ids(frame, definition, complete=False)
    rows = frame[~is_known(ids, known)].drop(columns=data.target, errors="ignore").reset_index(drop=True)
    truths = frame.iloc[:0]
    if data.target in frame.columns:
        due = time_column(frame[data.time]) + data.label_delay <= as_of
        truths = frame[due.to_numpy() & frame[data.target].notna().to_numpy() & ids.notna().to_numpy()]
    return SourceRead(rows[~_in_quarantine(store, definition, rows)].reset_index(drop=True), truths, False, start)


def _in_quarantine(store: Store, definition: ModelDefinition, rows: pd.DataFrame) -> np.ndarray:
    """Which rows are in quarantine by themselves, just as they are: shape (n,). Mended ones are not."""
    ids = row_ids(rows, definition, complete=False)
    receipts = store.frame(definition.name, "receipts", columns=["batch_id", "verdict"])
    accepted = receipts.loc[receipts["verdict"] == "accepted", "batch_id"]
    where = among("id", ids.dropna()) & among("batch_id", accepted)
    kept = store.frame(definition.name, "quarantine", columns=["id", "row"], where=where)
    # Compared without the truth, which may have come since.
    lines = {_without(line, definition.data.target) for line in kept["row"]}
    found = is_known(ids, kept["id"])
    if not found.any():
        return found
    found[found] = [_without(line, definition.data.target) in lines for line in _lines(rows[found])]
    return found


def _without(line: str, name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(line).items() if key != name}, sort_keys=True)


def _last_time(store: Store, model: str) -> datetime | None:
    times = store.read(model, "receipts", columns=["time_until", "verdict"])
    accepted = times.filter(pc.field("verdict") == "accepted")
    newest = pc.max(accepted["time_until"]).as_py() if len(accepted) else None
    return newest
