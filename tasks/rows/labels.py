"""Late truth: from a column or a file to rows of the table `labels`. It joins nothing to predictions.

People, and deliveries of rows, are voices. Deliveries overlap, and what one of them repeats of the others is no news:
a person's correction is not undone by the next export that still says what was wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import code_truth
from perennial.state.store import Store, among
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.rows.classes import Coding, coding_of, settle
from tasks.rows.frames import has_doubles, is_known, label_steps
from tasks.rows.normal_form import batch_digest, moments_where_readable, row_ids, utc_moments

TAKE_BACK = "take_back"  # a column of a label file: true takes back what was said of the id
_NOTHING = -1.0
_SAME_MOMENT = pd.Timedelta(1, unit="ms")
_FEW_IDS = 20_000  # more are quicker found in the whole column
_CLOCKS_DIFFER = timedelta(minutes=5)  # so far ahead of us may a moment lie before it is called the future


@dataclass(frozen=True)
class LabelReceipt:
    """What became of a set of labels.

    Attributes:
        new: Ids that had no truth.
        corrected: Steps that say something else than what was known before them.
        unchanged: Those that say what is known.
        missing: Rows without a truth.
        taken_back: Truths that no longer count.
        refused: Rows that were not taken, each with its reason; the row counts from 0.
        unknown: Ids that were neither ingested nor predicted; their labels count as soon as they are.
        told: What was learnt of the classes, and changed by that.
    """

    new: int
    corrected: int
    unchanged: int
    missing: int
    taken_back: int = 0
    refused: tuple[tuple[int, str], ...] = ()
    unknown: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Steps:
    """What a set of labels says.

    Attributes:
        new: The steps that say something new: id, truth (NaN takes back), labelled_at and author, in order of time.
        receipt: Their counts, and of those that say nothing new.
    """

    new: pd.DataFrame
    receipt: LabelReceipt


def add_labels(
    store: Store, definition: ModelDefinition, ids: pd.Series[Any], truth: np.ndarray, *,
    labelled_at: datetime | pd.Series[Any], author: str, key: str | None = None, witness: bool = False,
    taken_back: np.ndarray | None = None, deliveries: Collection[str] = (), known: pd.DataFrame | None = None,
) -> LabelReceipt:  # fmt: skip
    """Append every step that says something new: ids without truth so far, and each correction at its own moment.

    Args:
        key: Makes the append happen once; the digest of the rows by default.
        Others: As `find_steps`.
    """
    steps = find_steps(
        store, definition, ids, truth, labelled_at=labelled_at, author=author, witness=witness, taken_back=taken_back,
        deliveries=deliveries, known=known,
    )  # fmt: skip
    if len(steps.new):
        store.append(definition.name, "labels", steps.new, key=key or f"labels:{batch_digest(steps.new)}")
    return steps.receipt


def find_steps(
    store: Store, definition: ModelDefinition, ids: pd.Series[Any], truth: np.ndarray, *,
    labelled_at: datetime | pd.Series[Any], author: str, witness: bool = False, taken_back: np.ndarray | None = None,
    deliveries: Collection[str] = (), known: pd.DataFrame | None = None,
) -> Steps:  # fmt: skip
    """What labels say that was not known, nothing written: missing truths are counted and left out.

    Of two steps of an id at one moment the later given comes later.

    Args:
        ids: Row ids, shape (n,).
        truth: Encoded truth, shape (n,).
        labelled_at: When each became known: one moment, or one for each row.
        author: Who says so: a source, a person.
        witness: A person speaks: what they say is kept also where it only confirms what somebody else said.
        taken_back: Which rows take back what was said of their id, shape (n,); their truth is not read.
        deliveries: The authors that are deliveries of rows, and this one is: what the last of them said of an id is no
            news, whatever people said since.
        known: What was said of these ids and perhaps of others, as `label_steps` gives it, where that has been read;
            each of the ids is given once then.
    """
    back = np.zeros(len(ids), dtype=bool) if taken_back is None else taken_back
    frame = pd.DataFrame({"id": ids.reset_index(drop=True), "truth": np.where(back, np.nan, truth)})
    moments = labelled_at if isinstance(labelled_at, pd.Series) else pd.Series(pd.Timestamp(labelled_at), frame.index)
    frame["labelled_at"] = utc_moments(moments)
    said = frame["truth"].notna().to_numpy() | back
    missing = int((~said).sum())
    frame = frame[said].assign(author=author)
    if not len(frame):
        return Steps(frame, LabelReceipt(0, 0, 0, missing))
    several = known is None and has_doubles(frame["id"])
    if known is None:
        known = label_steps(store, definition.name, ids=frame["id"].drop_duplicates() if several else frame["id"])
    elif len(known):
        known = known[is_known(known["id"], frame["id"])]
    frame = _after_what_they_correct(frame, known, several=several)
    voices = {*deliveries, author} if deliveries else set()
    fresh = _says_something(frame, known, witness, voices, several=several)
    steps = frame[fresh]
    first = ~is_known(frame["id"], known["id"])
    if several:
        first &= ~frame["id"].duplicated().to_numpy()
    gone = steps["truth"].isna().to_numpy()
    new = int((first[fresh] & ~gone).sum())
    back_count, unchanged = int(gone.sum()), len(frame) - len(steps)
    return Steps(steps, LabelReceipt(new, len(steps) - new - back_count, unchanged, missing, back_count))


def _after_what_they_correct(frame: pd.DataFrame, known: pd.DataFrame, *, several: bool) -> pd.DataFrame:
    """In order of time; a correction at the very moment of what it corrects comes just after it."""
    frame = frame.sort_values("labelled_at", kind="stable", ignore_index=True)
    tick = pd.Timedelta(1, unit="us")
    if len(known):
        newest = known.drop_duplicates("id", keep="last").set_index("id")["labelled_at"].reindex(frame["id"])
        last = newest.set_axis(frame.index)
        tied = last.between(frame["labelled_at"], frame["labelled_at"] + _SAME_MOMENT, inclusive="left")
        frame["labelled_at"] = frame["labelled_at"].mask(tied, last + tick)
    if several:
        frame["labelled_at"] += frame.groupby(["id", "labelled_at"]).cumcount() * tick
    return frame


def _says_something(
    frame: pd.DataFrame, known: pd.DataFrame, witness: bool, deliveries: set[str], *, several: bool
) -> np.ndarray:
    """Which steps differ from the step before them, known or given: booleans of shape (n,)."""
    if not len(known) and not several:
        return frame["truth"].notna().to_numpy()  # nothing to take back
    both = pd.concat([known.assign(given=-1), frame.assign(given=np.arange(len(frame)))], ignore_index=True)
    both = both.sort_values(["labelled_at", "given"], kind="stable")
    grouped = both.groupby("id", sort=False)
    before = grouped["truth"].shift()
    same = (both["truth"] == before) | (both["truth"].isna() & before.isna())
    if deliveries:
        of_delivery = both["author"].isin(deliveries)
        # A delivery takes nothing back: where it has no truth, its word is no class any more.
        voice = both["truth"].fillna(_NOTHING).where(of_delivery)
        said = voice.groupby(both["id"], sort=False).ffill()
        same |= of_delivery & (both["truth"] == said.groupby(both["id"], sort=False).shift())
    elif witness:
        said = both.groupby(["id", "author"], sort=False)["truth"].shift()
        same &= (both["truth"] == said) | both["truth"].isna()
    found = np.zeros(len(frame), dtype=bool)
    mine = both["given"] >= 0
    found[both.loc[mine, "given"].to_numpy()] = ~same[mine].to_numpy()
    return found


def label_frame(
    store: Store, definition: ModelDefinition, frame: pd.DataFrame, *, as_of: datetime, author: str,
    witness: bool = False, deliveries: Collection[str] = (),
) -> LabelReceipt:  # fmt: skip
    """Labels from a frame with the definition's id and target columns, and perhaps `labelled_at` and `take_back`.

    What can't be taken is refused by row; the others go in.

    Args:
        deliveries: As `find_steps`: the frame was delivered with rows, and may hold nothing that can be taken.

    Raises:
        DataError: A column is missing, the classes are not clear, or no row at all can be taken.
    """
    data = definition.data
    needed = (*data.id_columns, *(() if TAKE_BACK in frame.columns else (data.target,)))
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(f"the labels lack {', '.join(missing)}", f"Give the columns {' and '.join(needed)}")
    frame = frame.reset_index(drop=True)
    back = _take_back(frame)
    target = frame[data.target].where(~back) if data.target in frame.columns else pd.Series(np.nan, frame.index)
    coding = coding_of(store, definition, target)
    ids = row_ids(frame, definition, complete=False)
    truth, refused = _truths(target, definition, coding)
    refused |= {int(row): f"{data.id}: the row has no id" for row in np.flatnonzero(ids.isna())}
    moments, undated = _moments(frame, as_of)
    refused |= undated
    given = (np.isfinite(truth) | back) & ~np.isin(frame.index, list(refused))
    events = event_times(store, definition.name, ids[given].drop_duplicates())
    refused |= _impossible(ids, moments, events, given, as_of)
    good = ~np.isin(frame.index, list(refused))
    taken = good & given
    if refused and not taken.any() and not deliveries:
        first, why = min(refused.items())
        raise DataError(f"no label can be taken; row {first}: {why}", "Correct the file; nothing was stored")
    told = settle(store, definition, coding, at=as_of, batch_id=f"labels:{author}") if taken.any() else ()
    receipt = add_labels(
        store, definition, ids[good], truth[good], labelled_at=moments[good], author=author, witness=witness,
        taken_back=back[good], deliveries=deliveries,
    )  # fmt: skip
    unknown = tuple(ids[taken & ~ids.isin(events.index).to_numpy()].drop_duplicates())
    return replace(receipt, refused=tuple(sorted(refused.items())), unknown=unknown, told=told)


def _truths(target: pd.Series[Any], definition: ModelDefinition, coding: Coding) -> tuple[np.ndarray, dict[int, str]]:
    """As `code_truth`; without known classes there was no truth to learn them from."""
    if definition.task == "classification" and coding.classes is None:
        return np.full(len(target), np.nan), {}
    return code_truth(target, definition, coding.classes)


def _moments(frame: pd.DataFrame, as_of: datetime) -> tuple[pd.Series[Any], dict[int, str]]:
    """When each label became known, and the rows whose `labelled_at` can't be read."""
    if "labelled_at" not in frame.columns:
        return pd.Series(pd.Timestamp(as_of).as_unit("us"), index=frame.index), {}
    moments = moments_where_readable(frame["labelled_at"])
    wrong = np.flatnonzero(moments.isna())
    return moments, {int(row): f"labelled_at: {frame['labelled_at'].iloc[row]!r} is no ISO 8601 time" for row in wrong}


def _take_back(frame: pd.DataFrame) -> np.ndarray:
    if TAKE_BACK not in frame.columns:
        return np.zeros(len(frame), dtype=bool)
    words = frame[TAKE_BACK].astype("str").str.strip().str.lower()
    known = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}
    given = (frame[TAKE_BACK].notna() & (words != "")).to_numpy()
    if (wrong := np.flatnonzero(given & ~words.isin(list(known)).to_numpy())).size:
        raise DataError(
            f"{TAKE_BACK}: row {wrong[0]} has {frame[TAKE_BACK].iloc[wrong[0]]!r}", "Write true, false, or nothing"
        )
    found: np.ndarray = words.map(known).fillna(False).to_numpy(dtype=bool) & given
    return found


def event_times(store: Store, model: str, ids: pd.Series[Any]) -> pd.Series[Any]:
    """When the rows of these ids happened, by id: of those that were ingested or predicted."""
    found = []
    for table, name, time in (("batches", ROW_ID, ROW_TIME), ("predictions", "id", "time")):
        where = among(name, ids) if len(ids) < _FEW_IDS else None
        rows = store.frame(model, table, columns=[name, time], where=where)
        rows = rows[is_known(rows[name], ids)] if len(rows) else rows
        found.append(rows.rename(columns={name: "id", time: "time"}))
    both = pd.concat(found, ignore_index=True).drop_duplicates("id")
    return both.set_index("id")["time"]


def _impossible(
    ids: pd.Series[Any], moments: pd.Series[Any], events: pd.Series[Any], given: np.ndarray, as_of: datetime
) -> dict[int, str]:
    """The rows whose truth would be known before it could be, with the reason."""
    found: dict[int, str] = {}
    future = given & (moments > pd.Timestamp(as_of) + _CLOCKS_DIFFER).to_numpy()
    for row in np.flatnonzero(future):
        found[int(row)] = f"labelled_at {moments.iloc[row].isoformat()} lies in the future"
    happened = events.reindex(ids).set_axis(ids.index)
    early = given & (moments < happened).to_numpy()
    for row in np.flatnonzero(early & ~future):
        told = f"labelled_at {moments.iloc[row].isoformat()} lies before its event at {happened.iloc[row].isoformat()}"
        found[int(row)] = f"id {ids.iloc[row]}: {told}"
    return found


def refusals_told(refused: Mapping[int, str] | tuple[tuple[int, str], ...], most: int = 5) -> str:
    """`row 3: …; row 8: … and 5 more`."""
    items = list(refused.items() if isinstance(refused, Mapping) else refused)
    told = "; ".join(f"row {row}: {reason}" for row, reason in items[:most])
    return told + (f" and {len(items) - most} more" if len(items) > most else "")
