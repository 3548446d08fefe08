"""Which rows of a delivery go in, which are there already, and which are refused and why. Nothing is stored here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.intake.readable import read_rows, wrong_truths
from tasks.intake.refusals import Refusals
from tasks.intake.spool import Spool
from tasks.intake.twins import CONTRADICTS_DELIVERY, CONTRADICTS_STORED, find_stored, find_within, stored_ids
from tasks.rows.classes import Coding, coding_of, known_coding
from tasks.rows.frames import is_known
from tasks.rows.normal_form import BatchDigest, id_parts, used_columns
from tasks.validation.judging import Rows, validate
from tasks.validation.report import ValidationReport
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite

# A delivery as parts, given anew each time it is called: refused rows are looked up once more.
Parts = Callable[[], Iterator[pd.DataFrame]]


@dataclass
class Judged:
    """A batch before anything of it is stored.

    Attributes:
        batch_id: Its digest.
        rows: How many rows came.
        spool: Those that could be read, in the normal form.
        coding: What the codes mean in their truths.
        refused: Rows that are refused one by one, by their position.
        repeats: Which of the spool's rows are there already; `keep`: which go in. Both over the spool's rows in order.
        doubled: Whether an id may be there twice among the spool's rows.
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
    doubled: bool = True
    reasons: tuple[str, ...] = ()
    report: ValidationReport | None = None
    known: bool = False


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
    """What the codes mean for a delivery, learnt from its truths where nobody has said so. Nothing is written.

    Raises:
        DataError: The truths don't tell which classes are meant.
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
    doubled = pd.Series(hashes).duplicated(keep=False).to_numpy()
    judged.doubled, several = bool(doubled.any()), fresh & doubled
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
    return pd.DataFrame(columns=[ROW_ID, ROW_TIME, *definition.features.columns, *definition.carried])


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
