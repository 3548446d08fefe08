"""What a champion was trained on, kept once per champion: profile, ordinary variation, importance, loss. No checks.

`build_reference` reads the training rows once; a check afterwards reads the new window only.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.model.scores import shares
from tasks.check.drift import Null, measure_null
from tasks.measures.described.columns import REPEATED, Described, Owned, describe, flag_column, learn, owners
from tasks.measures.profiles import SAMPLE_ROWS, Column, Profile, column_codes, make_columns, microseconds, profile

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

PREDICTION = "(prediction)"
_PREDICTION_OF = "(prediction of "
FORMAT, WATCHED_FORMAT = 1, 2
BLOCKS_PER_WINDOW = 7
MOST_BLOCKS = 1_400
MOST_RUNS = 60
LEAST_RUN_ROWS = 30
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def is_prediction(name: str) -> bool:
    """Whether a column of the profile is the model's answer: `(prediction)`, or of many classes one for each."""
    return name == PREDICTION or name.startswith(_PREDICTION_OF)


def prediction_values(scores: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    """The columns of scores of shape (n,) or (n, k), by their names in the profile, each of shape (n,)."""
    if not classes:
        return {PREDICTION: scores}
    given = scores if scores.ndim == 2 else np.full((len(scores), len(classes)), np.nan)
    return {f"{_PREDICTION_OF}{name})": given[:, code] for code, name in enumerate(classes)}


@dataclass(frozen=True)
class ColumnSummary:
    """One column over one stretch of time, in a few numbers.

    Attributes:
        missing: The share missing.
        outside: The share of values outside the reference's range (numeric) or never seen in it (categorical).
        top_share: The greatest share of one value (categorical), or 1 where all values are equal (numeric), else 0.
        quantiles: Numeric: at 5, 25, 50, 75 and 95 %; empty otherwise or without values.
    """

    missing: float
    outside: float
    top_share: float
    quantiles: tuple[float, ...] = ()

    def to_list(self) -> list[Any]:
        rounded = [float(f"{value:.6g}") for value in self.quantiles]
        return [round(self.missing, 5), round(self.outside, 5), round(self.top_share, 5), rounded]

    @classmethod
    def from_list(cls, raw: Sequence[Any]) -> ColumnSummary:
        return cls(float(raw[0]), float(raw[1]), float(raw[2]), tuple(float(v) for v in raw[3]))


@dataclass(frozen=True)
class RunSummary:
    """One run of the window's length.

    Attributes:
        rows: How many.
        duplicates: The share of rows that repeat another one of the run, time and all.
        columns: Each column's summary.
        hours: Rows by hour of the day (UTC), 24 numbers.
    """

    rows: int
    duplicates: float
    columns: Mapping[str, ColumnSummary]
    hours: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "duplicates": round(self.duplicates, 6),
            "columns": {name: summary.to_list() for name, summary in self.columns.items()},
            "hours": list(self.hours),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> RunSummary:
        columns = {name: ColumnSummary.from_list(values) for name, values in raw["columns"].items()}
        return cls(int(raw["rows"]), float(raw["duplicates"]), columns, tuple(raw["hours"]))


@dataclass(frozen=True)
class Reference:
    """A champion's training data, as far as checks need it; JSON-ready by `to_dict`.

    Attributes:
        task: classification or regression.
        loss: The loss per row that quality is judged by (tasks.measures.quality.additive_loss).
        profile: Per block of time; texts and images by the columns of `watched`; `(prediction)` where scores were.
        null: How far ordinary runs of `window_seconds` lie from the rest.
        runs: Summaries of consecutive runs of `window_seconds`, oldest first, at most the newest 60.
        window_seconds: The window's length.
        importance: Per column, any positive scale; empty when unknown.
        watched: The texts and images that a window must hold, and the columns that stand for them.
        numeric, categorical: The other columns that a window must hold.
        trained_rows: Labelled rows the champion was trained on.
        trained_until: The end of its training data.
        holdout_loss, holdout_error, holdout_rows: Its mean loss when it was promoted, on rows that it had not seen,
            with its standard error; NaN and 0 when unknown.
        target_runs: Mean truth of each run, of many classes the shares of each; empty when unknown.
        classes: Of more than two classes their names, in order; else empty.
    """

    task: Literal["classification", "regression"]
    loss: str
    profile: Profile
    null: Null
    runs: tuple[RunSummary, ...]
    window_seconds: float
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    trained_rows: int
    trained_until: datetime
    importance: Mapping[str, float] = field(default_factory=dict)
    watched: tuple[Described, ...] = ()
    holdout_loss: float = float("nan")
    holdout_error: float = float("nan")
    holdout_rows: int = 0
    target_runs: tuple[float, ...] | tuple[tuple[float, ...], ...] = ()
    classes: tuple[str, ...] = ()

    def described(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows as they are watched: plain values in place of each text and image, but not whether a row repeats one."""
        return describe(frame, self.watched)

    def novelty(self, name: str) -> float:
        """The greatest share of values of a category, in one run, that no run before it had; 0 with less than two.

        Months, versions and numbers that come once are new by nature.
        """
        position = next(i for i, column in enumerate(self.profile.columns) if column.name == name)
        column, blocks = self.profile.columns[position], self.profile
        counts = blocks.counts[:, position, : column.bins]
        runs = (
            ((blocks.starts - blocks.starts[-1]) * blocks.block_seconds) // self.window_seconds if len(counts) else []
        )
        _, place = np.unique(runs, return_inverse=True)
        table = np.zeros((place.max(initial=-1) + 1, column.bins), dtype=np.int64)
        np.add.at(table, place, counts)
        before = np.cumsum(table, axis=0)[:-1]
        new = np.where(before == 0, table[1:], 0)
        new[:, -2:] = table[1:, -2:]  # rare values and unseen ones are counted together: all may be new
        size = table[1:].sum(axis=1)
        enough = size >= LEAST_RUN_ROWS
        return float((new.sum(axis=1)[enough] / size[enough]).max(initial=0.0))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the features: the profile's, without the prediction."""
        return tuple(column for column in self.profile.columns if not is_prediction(column.name))

    @cached_property
    def owners(self) -> Mapping[str, Owned]:
        """By column whose it is; features that stand for themselves are not in it."""
        return owners(self.watched)

    @cached_property
    def apart(self) -> frozenset[str]:
        """The columns that a row by itself doesn't tell: whether it repeats another."""
        return frozenset(name for name, owned in self.owners.items() if owned.what == REPEATED)

    @property
    def row_columns(self) -> tuple[Column, ...]:
        """The columns of the features that each row tells by itself."""
        return tuple(column for column in self.columns if column.name not in self.apart)

    @property
    def trained_from(self) -> datetime:
        """The start of the first block of its training data."""
        return datetime.fromtimestamp(float(self.profile.starts[0]) * self.profile.block_seconds, UTC)

    def column(self, name: str) -> Column | None:
        return next((column for column in self.profile.columns if column.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready (NaN as null)."""
        return {
            "format": WATCHED_FORMAT if self.watched else FORMAT,
            "task": self.task,
            "loss": self.loss,
            "profile": self.profile.to_dict(),
            "null": self.null.to_dict(),
            "runs": [run.to_dict() for run in self.runs],
            "window_seconds": self.window_seconds,
            "numeric": list(self.numeric),
            "categorical": list(self.categorical),
            "trained_rows": self.trained_rows,
            "trained_until": self.trained_until.isoformat(),
            "importance": dict(self.importance),
            **({"watched": [item.to_dict() for item in self.watched]} if self.watched else {}),
            "holdout_loss": None if np.isnan(self.holdout_loss) else self.holdout_loss,
            "holdout_error": None if np.isnan(self.holdout_error) else self.holdout_error,
            "holdout_rows": self.holdout_rows,
            "target_runs": list(self.target_runs),
            **({"classes": list(self.classes)} if self.classes else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Reference:
        """The inverse of `to_dict`.

        Raises:
            DataError: It was written by a version with another format.
        """
        if raw.get("format") not in (FORMAT, WATCHED_FORMAT):
            known = f"{FORMAT} or {WATCHED_FORMAT}"
            raise DataError(
                f"a reference of format {raw.get('format')!r}, not {known}", "Build it anew for the champion"
            )
        before = [Described.before(name, words) for name, words in raw.get("vocabularies", {}).items()]
        return cls(
            task=raw["task"],
            loss=raw["loss"],
            profile=Profile.from_dict(raw["profile"]),
            null=Null.from_dict(raw["null"]),
            runs=tuple(RunSummary.from_dict(run) for run in raw["runs"]),
            window_seconds=float(raw["window_seconds"]),
            numeric=tuple(raw["numeric"]),
            categorical=tuple(raw["categorical"]),
            trained_rows=int(raw["trained_rows"]),
            trained_until=datetime.fromisoformat(raw["trained_until"]),
            importance=dict(raw["importance"]),
            watched=(*before, *(Described.from_dict(item) for item in raw.get("watched", ()))),
            holdout_loss=float("nan") if raw["holdout_loss"] is None else float(raw["holdout_loss"]),
            holdout_error=float("nan") if raw["holdout_error"] is None else float(raw["holdout_error"]),
            holdout_rows=int(raw["holdout_rows"]),
            target_runs=tuple(tuple(run) if isinstance(run, list) else run for run in raw["target_runs"]),
            classes=tuple(raw.get("classes", ())),
        )


def build_reference(
    frame: pd.DataFrame,
    *,
    time: str,
    task: Literal["classification", "regression"],
    loss: str,
    window_seconds: float,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    text: Sequence[str] = (),
    image: Sequence[str] = (),
    scores: Floats | None = None,
    truth: Floats | None = None,
    importance: Mapping[str, float] | None = None,
    holdout_loss: float = float("nan"),
    holdout_error: float = float("nan"),
    holdout_rows: int = 0,
    classes: Sequence[str] = (),
) -> Reference:
    """Profile a champion's training rows (its holdout included).

    Args:
        frame: The rows, in any order: features and the time column.
        time: The time column, datetime64 in UTC.
        task: classification or regression.
        loss: log_loss, brier, error, mse or mae.
        window_seconds: The checks' window.
        numeric, categorical, text, image: The features by kind.
        scores: Shape (rows,), of many classes (rows, k): out-of-sample scores of the champion, NaN where there are
            none. Scores of rows that it was fitted on are more extreme than later ones can be, and must not be given.
        truth: Shape (rows,), NaN where unknown.
        importance: Per feature; a text's or an image's is shared by its columns.
        holdout_loss, holdout_error, holdout_rows: From the gate (`tasks.measures.quality.mean_loss`).
        classes: Of more than two classes their names, in order.

    Raises:
        DataError: No rows, or a column that is missing or not of its kind.
    """
    missing = [name for name in (time, *numeric, *categorical, *text, *image) if name not in frame]
    if missing or not len(frame):
        problem = f"the reference lacks {', '.join(missing)}" if missing else "the reference has no rows"
        raise DataError(problem, "Give the champion's training rows with all features and the time")
    order = np.argsort(microseconds(frame[time]), kind="stable")
    frame = frame.iloc[order].reset_index(drop=True)
    times = microseconds(frame[time])
    stretches = (times - times[-1] - 1) // int(window_seconds * 1e6)
    learned = learn(frame, text=text, image=image, taken=[str(name) for name in frame], starts=stretches)
    watched, features = learned.watched, learned.frame
    numbers = [*numeric, *(name for item in watched for name in item.numeric)]
    names = [*categorical, *(name for item in watched for name in item.categorical)]
    if scores is not None and np.isfinite(np.asarray(scores)).any():
        answers = prediction_values(np.asarray(scores, dtype=np.float64)[order], classes)
        features = features.assign(**answers)
        numbers += answers
    flags = tuple(flag_column(name) for item in watched for name in item.flags)
    columns = (*flags, *make_columns(features, numbers, names))
    span = (times[-1] - times[0]) / 1e6
    block = max(window_seconds / BLOCKS_PER_WINDOW, span / MOST_BLOCKS)
    codes = column_codes(features, columns)
    blocks = profile(features, times, columns, block, codes)
    apart = frozenset(item.names[REPEATED] for item in watched)
    runs, targets = _runs(
        features, times, columns, codes, window_seconds, None if truth is None else truth[order], len(classes), apart
    )
    return Reference(
        task=task,
        loss=loss,
        profile=blocks,
        null=measure_null(blocks, window_seconds),
        runs=runs,
        window_seconds=window_seconds,
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        trained_rows=len(frame) if truth is None else int(np.isfinite(truth).sum()),
        trained_until=datetime.fromtimestamp(times[-1] / 1e6, UTC),
        importance=_spread(importance or {}, watched),
        watched=watched,
        holdout_loss=holdout_loss,
        holdout_error=holdout_error,
        holdout_rows=holdout_rows,
        target_runs=targets,
        classes=tuple(classes),
    )


def summarise(
    features: pd.DataFrame,
    times: Counts,
    columns: Sequence[Column],
    codes: Counts,
    rare_outside: bool = False,
    apart: Container[str] = (),
) -> RunSummary:
    """A stretch of rows in a few numbers per column; quantiles from at most 50,000 evenly spaced rows.

    Args:
        features: Rows with every column.
        times: Shape (rows,), microseconds.
        columns: The bins.
        codes: Shape (columns, rows), `column_codes` of the same rows.
        rare_outside: Count rare categories as unseen: for runs of the reference itself, where nothing is unseen.
        apart: Columns that are no part of what makes a row: whether it repeats another.
    """
    rows = len(features)
    summaries = {}
    for position, column in enumerate(columns):
        counts = np.bincount(codes[position], minlength=column.bins + 1)
        present = max(1, int(counts[:-1].sum()))
        missing = float(counts[-1] / max(rows, 1))
        if column.kind == "numeric":
            values = features[column.name].to_numpy(dtype=np.float64, na_value=np.nan)
            sample = values[:: max(1, rows // SAMPLE_ROWS)]
            sample = sample[np.isfinite(sample)]
            known = tuple(float(v) for v in np.quantile(sample, QUANTILES)) if len(sample) else ()
            same = bool(len(sample)) and bool(np.nanmin(values) == np.nanmax(values))
            outside = float((counts[0] + counts[column.bins - 1]) / present) if column.bins > 1 else 0.0
            summaries[column.name] = ColumnSummary(missing, outside, float(same), known)
        else:
            unseen = counts[column.bins - 1] + (counts[column.bins - 2] if rare_outside else 0)
            top = float(counts[:-2].max(initial=0) / present)
            summaries[column.name] = ColumnSummary(missing, float(unseen / present), top)
    hours = np.bincount((times // 3_600_000_000) % 24, minlength=24)
    content = [column for column in columns if column.name not in apart]
    return RunSummary(rows, duplicate_share(features, times, content), summaries, tuple(hours.tolist()))


def duplicate_share(features: pd.DataFrame, times: Counts, columns: Sequence[Column]) -> float:
    """The share of rows that repeat another one in every column and in time (64-bit digests)."""
    if len(features) < 2:
        return 0.0
    digests = np.sort(row_digests(features, times, columns))
    return float((digests[1:] == digests[:-1]).sum() / len(features))


def row_digests(features: pd.DataFrame, times: Counts, columns: Sequence[Column]) -> NDArray[np.uint64]:
    """A 64-bit digest per row of all its columns and its time, good within one frame."""
    digests = _mixed(times.astype(np.uint64))
    for position, column in enumerate(columns):
        if is_prediction(column.name):
            continue
        if column.kind == "numeric":
            raw = features[column.name].to_numpy(dtype=np.float64, na_value=np.nan).view(np.uint64)
        else:
            raw = pd.factorize(features[column.name])[0].astype(np.uint64)
        digests = _mixed(digests ^ (_mixed(raw) + np.uint64(position + 1)))
    return digests


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _runs(
    features: pd.DataFrame,
    times: Counts,
    columns: Sequence[Column],
    codes: Counts,
    window_seconds: float,
    truth: Floats | None,
    classes: int,
    apart: Container[str],
) -> tuple[tuple[RunSummary, ...], tuple[Any, ...]]:
    """Consecutive whole windows, counted back from the end so that the newest is whole; and each one's mean truth."""
    length = int(window_seconds * 1e6)
    end = int(times[-1]) + 1
    fitting = min(MOST_RUNS, max(1, (end - int(times[0])) // length))
    runs: list[RunSummary] = []
    targets: list[Any] = []
    for number in range(int(fitting), 0, -1):
        first, last = np.searchsorted(times, [end - number * length, end - (number - 1) * length])
        if last <= first:
            continue
        part = slice(int(first), int(last))
        runs.append(
            summarise(features.iloc[part], times[part], columns, codes[:, part], rare_outside=True, apart=apart)
        )
        if truth is not None and np.isfinite(truth[part]).any():
            known = truth[part][np.isfinite(truth[part])]
            targets.append(tuple(shares(known, classes).tolist()) if classes else float(known.mean()))
    return tuple(runs), tuple(targets)


def _spread(importance: Mapping[str, float], watched: Sequence[Described]) -> dict[str, float]:
    known = {name: float(value) for name, value in importance.items()}
    for item in watched:
        if item.feature in known:
            whole = known.pop(item.feature)
            known |= {name: whole / len(item.names) for name in item.names.values()}
    return known
