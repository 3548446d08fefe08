"""A model's tables in memory, and what of them was known at a moment of the past. It fits, checks and decides nothing.

What a check or a training of that moment would have read from the tables is cut out of one frame here; that both are
the same is tested against tasks.steps.monitor and tasks.rows.data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.scores import score_column
from perennial.model.truth import Classes
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT, ROW_TIME, ROW_TRUTH
from tasks.check.complaints.complaint import Complaint
from tasks.check.complaints.masks import sound_rows
from tasks.check.health import Freshness, repeating_deliveries
from tasks.intake.quarantine import RELEASES
from tasks.measures.described.images import stored_features
from tasks.measures.profiles import microseconds
from tasks.rows.classes import known_coding, require_settled
from tasks.rows.frames import window_rows
from tasks.rows.reviewed import reviewed

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]
Micros = NDArray[np.int64]
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Past:
    """Every row and label of a model, with when they became known.

    Attributes:
        frame: `_id`, `_time` and the features, sorted by time, then id; n rows.
        ingested: When each row was known, shape (n,), microseconds since 1970.
        label_rows, label_moments, label_truth: Labels in the order in which they became known, corrections included:
            positions in the frame, microseconds, and values.
        receipts: Accepted deliveries.
        classes: What the truth's codes mean; None for regression, and where nobody needs to know of two.
    """

    definition: ModelDefinition
    frame: pd.DataFrame
    ingested: Micros
    label_rows: Positions
    label_moments: Micros
    label_truth: Floats
    receipts: pd.DataFrame
    classes: Classes | None = None

    @cached_property
    def times(self) -> Micros:
        return microseconds(self.frame[ROW_TIME])

    @cached_property
    def named(self) -> pd.DataFrame:
        """Each row's id and time, as a log of predictions calls them."""
        return self.frame[[ROW_ID, ROW_TIME]].rename(columns={ROW_ID: "id", ROW_TIME: "time"})

    def no_scores(self, rows: int) -> Floats:
        """NaN in the shape of so many rows' scores."""
        if self.classes is None or not self.classes.many:
            return np.full(rows, np.nan)
        return np.full((rows, len(self.classes.names)), np.nan)

    @cached_property
    def features(self) -> pd.DataFrame:
        """What a pipeline reads, one row each."""
        return stored_features(self.frame, self.definition.features)

    @cached_property
    def truth(self) -> Floats:
        """The truth as it is known today, shape (n,), NaN where there is none."""
        return self.labels_until(np.iinfo(np.int64).max)[0]

    def labels_until(self, moment: int) -> tuple[Floats, Micros]:
        """Each row's newest truth known at a moment, and since when: shape (n,) each, NaN and 0 where there is none."""
        known = int(np.searchsorted(self.label_moments, moment, side="right"))
        truth, since = np.full(len(self.frame), np.nan), np.zeros(len(self.frame), dtype=np.int64)
        rows = self.label_rows[:known]  # of repeated positions the last assignment stays: the newest label
        truth[rows], since[rows] = self.label_truth[:known], self.label_moments[:known]
        return truth, since

    def moment(self, row: int) -> datetime:
        """A row's time."""
        return pd.Timestamp(self.times[row], unit="us", tz="UTC").to_pydatetime()

    def at(self, as_of: datetime) -> Moment:
        return Moment(self, as_of)


def load_past(store: Store, definition: ModelDefinition, *, until: datetime | None = None) -> Past:
    """Read the model's tables.

    Args:
        until: Only rows before it; all by default.

    Raises:
        DataError: Nothing was ingested, or nothing has labels.
    """
    model = definition.name
    require_settled(store, definition)
    columns = [*definition.features.columns, ROW_INGESTED_AT]
    frame = window_rows(store, definition, start=None, end=until or _LATEST, known_at=_LATEST, columns=columns)
    frame = frame.drop_duplicates(ROW_ID).sort_values([ROW_TIME, ROW_ID], ignore_index=True)
    labels = store.frame(model, "labels", columns=["id", "truth", "labelled_at"])
    by_people = reviewed(store, model, as_of=_LATEST)
    if by_people is not None:  # what was chosen for its margin would be judged by, here as anywhere
        labels = labels[~labels["id"].isin(list(by_people.chosen))]
    labels = labels.sort_values("labelled_at", kind="stable")
    position = pd.Index(frame[ROW_ID]).get_indexer(pd.Index(labels["id"]))
    labels, position = labels[position >= 0], position[position >= 0]
    if not len(position):
        raise DataError(
            f"{model} has {len(frame)} ingested rows and no labels of them: there is no history to replay",
            f"Ingest the past: `perennial ingest {model} FILE --history`",
        )
    receipts = store.frame(model, "receipts")
    return Past(
        definition=definition,
        frame=frame.drop(columns=ROW_INGESTED_AT),
        ingested=microseconds(frame[ROW_INGESTED_AT]),
        label_rows=position,
        label_moments=microseconds(labels["labelled_at"]),
        label_truth=labels["truth"].to_numpy(dtype=np.float64),
        receipts=receipts[receipts["verdict"] == "accepted"],
        classes=known_coding(store, definition).classes,
    )


class Moment:
    """The past as it was known at one moment; what several policies ask for is made once."""

    def __init__(self, past: Past, as_of: datetime, refused: tuple[Complaint, ...] = ()) -> None:
        self.past = past
        self.as_of = as_of
        self.refused = refused
        self.now = micros(as_of)
        self.truth, self.labelled_at = past.labels_until(self.now)

    def between(self, start: datetime | None, end: datetime) -> Positions:
        """Positions of the known rows with start ≤ time < end, ascending."""
        times = self.past.times
        first = 0 if start is None else int(np.searchsorted(times, micros(start)))
        last = int(np.searchsorted(times, micros(end)))
        return first + np.flatnonzero(self.past.ingested[first:last] <= self.now)

    @cached_property
    def labelled(self) -> Positions:
        """The rows that a training may learn from: as tasks.rows.data.labelled_rows finds them."""
        window = self.past.definition.training.window
        rows = self.between(self.as_of - window if window else None, self.as_of)
        rows = rows[np.isfinite(self.truth[rows])]
        if all(item.column is not None for item in self.refused):
            return rows
        return rows[sound_rows(self.past.frame.iloc[rows], ROW_TIME, self.refused)]

    def without(self, complaints: Sequence[Complaint]) -> Moment:
        """The same moment for a training that may not learn from what complaints stand against."""
        refused = tuple(item for item in complaints if item.refuses)
        return Moment(self.past, self.as_of, refused) if refused else self

    def labelled_since(self, trained_from: datetime) -> int:
        """How many labelled rows a check counts, as tasks.steps.monitor.count_labelled: since the champion's oldest."""
        rows = self.between(trained_from if self.past.definition.training.window else None, self.as_of)
        return int(np.isfinite(self.truth[rows]).sum())

    @cached_property
    def labelled_frame(self) -> pd.DataFrame:
        """Those rows under the definition's names for time and target, beside `_id`."""
        rows, data = self.labelled, self.past.definition.data
        frame = self.past.frame.iloc[rows].reset_index(drop=True).assign(**{ROW_TRUTH: self.truth[rows]})
        return frame.rename(columns={ROW_TIME: data.time, ROW_TRUTH: data.target})

    def window(self, start: datetime) -> pd.DataFrame:
        """The known rows since `start`, with time and features."""
        return self.past.frame.iloc[self.between(start, self.as_of)].drop(columns=ROW_ID).reset_index(drop=True)

    def labels(self, rows: Positions) -> pd.DataFrame:
        """id, truth and labelled_at of those of the rows that have a label by now."""
        rows = rows[np.isfinite(self.truth[rows])]
        known = pd.Series(pd.to_datetime(self.labelled_at[rows], unit="us", utc=True)).astype("datetime64[us, UTC]")
        ids = self.past.frame[ROW_ID].iloc[rows].reset_index(drop=True)
        return pd.DataFrame({"id": ids, "truth": self.truth[rows], "labelled_at": known})

    def freshness(self, start: datetime) -> Freshness:
        """What ingestion knew of the feed; of an import of the past, which left no receipts then, its rows tell."""
        past, receipts = self.past, self.past.receipts
        receipts = receipts[receipts["ingested_at"] <= self.as_of]
        known = self.between(None, self.as_of)
        newest = [] if not len(known) else [pd.Timestamp(past.times[known[-1]], unit="us", tz="UTC")]
        newest += [receipts["time_until"].max()] if len(receipts) else []
        later = slice(int(np.searchsorted(past.times, self.now)), None)
        future = (past.ingested[later] <= self.now) & (past.ingested[later] < past.times[later])
        twice = repeating_deliveries(receipts[receipts["source"] != RELEASES])
        twice = twice[twice["ingested_at"] >= start]
        return Freshness(
            latest_event=max(newest).to_pydatetime() if newest else None,
            future_rows=int(future.sum()),
            duplicate_batches=len(twice),
            duplicate_rows=int(twice["duplicates"].sum()),
            example=str(twice["source"].iloc[-1]) if len(twice) else "",
        )


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return int(pd.Timestamp(moment).as_unit("ns").value // 1000)


def log_frame(past: Past, rows: Positions, columns: dict[str, Any]) -> pd.DataFrame:
    """Rows of a log of predictions: id, time and the given columns."""
    named = past.named.iloc[rows].reset_index(drop=True)
    many = {name: score_column(values) for name, values in columns.items() if np.ndim(values) == 2}
    return named.assign(**{**columns, **many})
