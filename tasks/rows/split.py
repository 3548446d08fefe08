"""Which rows a challenger learns from, is tuned on and is judged by, cut by time. Nothing about their contents.

Time only ever cuts forward: every training row is older than every validation row, and these are older than the
holdout. Rows of one time never lie on both sides of a cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.definition import ModelDefinition, duration_text
from perennial.errors import DataError

Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """One validation block and every row before it: positions in the frame, oldest first."""

    train: Index
    validation: Index


@dataclass(frozen=True)
class Split:
    """Positions in the frame, each array oldest first.

    Args:
        train: Rows older than the first validation block.
        validation: The validation blocks together.
        holdout: The newest rows, on which the gate judges; neither model has learned from them.
        folds: For tuning, newest last; each trains on everything before its block.
        holdout_from: The oldest holdout row's time; whoever learns from `learning` has seen nothing since.
        aside: Rows of the holdout's time that may be learned from in the end, but must not judge.
        unlabelled: Rows left out because their truth is missing.
        immature: Rows left out because at `as_of` their truth wasn't final or they had not happened.
        outside_window: Rows left out because they are older than the training's window.
    """

    train: Index
    validation: Index
    holdout: Index
    folds: tuple[Fold, ...]
    holdout_from: datetime
    unlabelled: int = 0
    immature: int = 0
    outside_window: int = 0
    aside: Index = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    @property
    def learning(self) -> Index:
        """Every row before the holdout: what the challenger is fitted on once its parameters are chosen."""
        return np.concatenate([self.train, self.validation])


def split_by_time(
    frame: pd.DataFrame,
    definition: ModelDefinition,
    as_of: datetime,
    champion_trained_until: datetime | None = None,
) -> Split:
    """Cut the mature, labelled rows of the training's window into train, validation and holdout.

    Args:
        frame: The rows in any order, with the definition's time and target columns.
        definition: Its `gate` says how large the holdout is, its `training` the window, folds and least rows.
        as_of: The moment of the retraining; no row whose truth is known later is used.
        champion_trained_until: The newest time that the champion has learned from. The holdout starts after it, and
            leaves about half of the rows since to the challenger, as far as `gate.minimum_rows` are left to judge by:
            one that has learned nothing new would be the champion once more.

    Raises:
        DataError: A column is missing, the times can't be read, or too few rows are left for a part.
    """
    times, mature, counts = _mature_rows(frame, definition, as_of)
    order = mature[np.argsort(times[mature], kind="stable")]
    holdout_start = _holdout_start(times[order], definition, champion_trained_until)
    learning, holdout = order[:holdout_start], order[holdout_start:]
    groups = _groups(frame, definition)
    learning = _apart(learning, holdout, groups)
    least = definition.training.minimum_rows
    if len(learning) < least:
        raise DataError(
            f"only {len(learning)} labelled rows before the holdout of {len(holdout)} rows, and training.minimum_rows "
            f"is {least} ({_left_out(counts)})",
            "Wait for more labels, ingest more history, widen training.window or lower training.minimum_rows",
        )
    tuning = definition.training.tuning
    folds = time_ordered_folds(times[learning], tuning.folds, tuning.validation_share)
    first = folds[0].validation[0]
    return Split(
        train=learning[:first],
        validation=learning[first:],
        holdout=holdout,
        folds=tuple(
            Fold(_apart(learning[fold.train], learning[fold.validation], groups), learning[fold.validation])
            for fold in folds
        ),
        holdout_from=pd.Timestamp(times[holdout[0]], tz="UTC").to_pydatetime(),
        unlabelled=counts["unlabelled"],
        immature=counts["immature"],
        outside_window=counts["outside_window"],
    )


def without_judges(split: Split, barred: npt.NDArray[np.bool_]) -> Split:
    """The split with rows that must not judge, neither in the holdout nor in a validation block; they still teach.

    Args:
        barred: Which rows of the frame, shape (n,).
    """
    folds = tuple(
        Fold(fold.train, kept) if len(kept := fold.validation[~barred[fold.validation]]) else fold
        for fold in split.folds
    )
    holdout = split.holdout
    aside = np.concatenate([split.aside, holdout[barred[holdout]]])
    return replace(split, folds=folds, holdout=holdout[~barred[holdout]], aside=aside)


def _groups(frame: pd.DataFrame, definition: ModelDefinition) -> np.ndarray | None:
    """The group of each row as a number, shape (n,); None where rows stand for themselves. No group is one of its own.

    Raises:
        DataError: The rows have no such column.
    """
    name = definition.training.groups
    if name is None:
        return None
    if name not in frame.columns or frame[name].isna().all():
        raise DataError(
            f"no labelled row has a value in {name}, which training.groups names",
            "Ingest the rows anew with that column, into a new PERENNIAL_HOME or under another model's name",
        )
    codes = pd.factorize(frame[name])[0]
    alone = codes < 0
    codes[alone] = codes.max() + 1 + np.arange(int(alone.sum()))
    return np.asarray(codes)


def _apart(older: Index, newer: Index, groups: np.ndarray | None) -> Index:
    """The older rows without those whose group is among the newer ones."""
    return older if groups is None else older[~np.isin(groups[older], groups[newer])]


def time_ordered_folds(times: npt.NDArray[np.datetime64], count: int, share: float) -> tuple[Fold, ...]:
    """Cut the newest `share` of the rows into `count` consecutive validation blocks.

    Args:
        times: Ascending, shape (n,). The folds are positions in it.
        count: How many blocks; fewer come back where rows of one time can't be parted into so many.
        share: Of all rows, at most, in the blocks together; more than 0, less than 1.

    Raises:
        DataError: No cut leaves rows on both sides.
    """
    rows = len(times)
    wanted = [rows - int(np.ceil(rows * share * (count - number) / count)) for number in range(count)]
    starts = sorted({cut for target in wanted if 0 < (cut := _at_new_time(times, target)) < rows})
    if not starts:
        raise DataError(
            f"no validation block of at most {share:.0%} of {rows} rows starts at a time of its own: "
            f"the newest time, {_shown(times[-1]) if rows else 'none'}, has too many rows",
            "Raise training.tuning.validation_share, use a finer time column or ingest more history",
        )
    ends = [*starts[1:], rows]
    return tuple(Fold(np.arange(start), np.arange(start, end)) for start, end in zip(starts, ends, strict=True))


def _mature_rows(
    frame: pd.DataFrame, definition: ModelDefinition, as_of: datetime
) -> tuple[npt.NDArray[np.datetime64], Index, dict[str, int]]:
    data, training = definition.data, definition.training
    if missing := [name for name in (data.time, data.target) if name not in frame.columns]:
        raise DataError(f"missing columns: {', '.join(missing)}", "Supply them, or correct the definition's data")
    times = utc_times(frame[data.time])
    moment = _naive(as_of)
    labelled = frame[data.target].notna().to_numpy()
    mature = (times + np.timedelta64(data.label_delay) <= moment) & (times < moment)
    inside = np.ones(len(times), dtype=bool)
    if training.window is not None:
        inside = times >= moment - np.timedelta64(training.window)
    counts = {
        "immature": int((~mature).sum()),
        "outside_window": int((mature & ~inside).sum()),
        "unlabelled": int((mature & inside & ~labelled).sum()),
    }
    rows = np.flatnonzero(labelled & mature & inside)
    if not len(rows):
        raise DataError(
            f"no labelled rows known at {as_of.isoformat()} ({_left_out(counts)})",
            "Ingest rows and labels first, or correct data.label_delay and training.window",
        )
    return times, rows, counts


def utc_times(series: pd.Series[Any]) -> npt.NDArray[np.datetime64]:
    """The times as naive UTC microseconds, shape (n,).

    Raises:
        DataError: They are no datetimes, or one is missing.
    """
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise DataError(f"time column {series.name!r} is {series.dtype}, not a datetime", "Convert it when ingesting")
    if series.isna().any():
        row = int(series.isna().to_numpy().argmax())
        raise DataError(f"time column {series.name!r}, row {row} (counted from 0): missing", "Leave such rows out")
    naive = series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz is not None else series
    return naive.to_numpy(dtype="datetime64[us]")


def _holdout_start(
    times: npt.NDArray[np.datetime64], definition: ModelDefinition, champion_trained_until: datetime | None
) -> int:
    gate, rows = definition.gate, len(times)
    if gate.holdout_window is not None:
        # Counted back from the newest mature row, since labels that are late by design would leave nothing.
        rule = f"gate.holdout_window {duration_text(gate.holdout_window)}"
        start = int(np.searchsorted(times, times[-1] - np.timedelta64(gate.holdout_window), side="right"))
    else:
        rule = f"gate.holdout_share {gate.holdout_share:g}"
        start = _at_new_time(times, rows - max(1, int(rows * gate.holdout_share)))
    if start >= rows:
        raise DataError(
            f"{rule} leaves no holdout of {rows} labelled rows: the newest time, {_shown(times[-1])}, alone has more",
            "Raise it, use a finer time column or ingest more history",
        )
    if champion_trained_until is not None:
        fresh = int(np.searchsorted(times, _naive(champion_trained_until), side="right"))
        if fresh >= rows:
            raise DataError(
                f"none of {rows} labelled rows is newer than {champion_trained_until.isoformat()}, up to which the "
                f"champion has learned; the newest is of {_shown(times[-1])}",
                "Wait for newer labels: on rows that it has seen, a champion can't be judged",
            )
        taught = min((rows - fresh) // 2, max(0, rows - fresh - gate.minimum_rows))
        parted = _at_new_time(times, fresh + taught)
        start = max(start, fresh if parted >= rows else parted)
    return start


def _at_new_time(times: npt.NDArray[np.datetime64], position: int) -> int:
    """The first position from `position` on whose time differs from the one before; the length if none does."""
    if position <= 0 or position >= len(times) or times[position] != times[position - 1]:
        return position
    return int(np.searchsorted(times, times[position], side="right"))


def _naive(moment: datetime) -> np.datetime64:
    if moment.tzinfo is None:
        raise DataError(
            f"the moment {moment.isoformat()} has no time zone", "Give it in UTC, such as 2026-01-31T06:00Z"
        )
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _left_out(counts: dict[str, int]) -> str:
    return (
        f"left out: {counts['unlabelled']} unlabelled, {counts['immature']} not known yet, "
        f"{counts['outside_window']} outside the window"
    )


def _shown(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='s')}Z"
