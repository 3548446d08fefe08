"""Scoring rows with a registered version, and the log of what was predicted. It judges nothing."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perennial.definition import ModelDefinition, Serving
from perennial.errors import ConflictError, DataError, NotFoundError
from perennial.model.answers.intervals import Intervals, read_intervals
from perennial.model.answers.noticed import Noticed
from perennial.model.artifacts import load_model
from perennial.model.calibrated import Recalibrated, apply_map
from perennial.model.features import feature_frame
from perennial.model.scores import is_many, likeliest, score_arrow
from perennial.model.truth import Classes, declared_classes
from perennial.serving.scoring.groups import left_alone
from perennial.state.registry import Registry, Version
from perennial.state.store import Store, between
from perennial.state.tables import ROW_ID, ROW_TIME
from tasks.compute.cluster import Shared, open_cluster
from tasks.learning.fitting import predict_score
from tasks.measures.described.images import readable_images
from tasks.measures.propensity import CONTROL, TREATED
from tasks.rows.files import read_in_chunks
from tasks.rows.frames import is_known, window_rows
from tasks.rows.normal_form import id_parts, normalise

_CHUNK_ROWS = 100_000
Record = Callable[[pd.DataFrame, np.ndarray, np.ndarray], None]


def require_champion(registry: Registry, model: str, *, as_of: datetime | None = None) -> Version:
    """The champion, or the error that says how to get one."""
    champion = registry.champion(model, as_of=as_of)
    if champion is not None:
        return champion
    if as_of is not None and (lines := registry.history(model)):
        first = lines[0]
        raise NotFoundError(
            f"at {as_of:%Y-%m-%d %H:%M} {model} had no champion: its first, version {first.version}, reigns since "
            f"{first.at:%Y-%m-%d %H:%M}",
            f"Act at a later moment (--as-of); how a model would have fared before, tells `perennial backtest {model}`",
        )
    raise NotFoundError(f"{model} has no champion yet", f"Train one: `perennial retrain {model}`")


def load_version(registry: Registry, version: Version, definition: ModelDefinition) -> Any:
    """The fitted pipeline of a version, digest-checked; kept in memory for the process's life."""
    _require_same_coding(version, definition)
    training = definition.training
    return _load(str(registry.artifacts(version)), version.digest, training.trusted_types, training.allow_pickle)


def _require_same_coding(version: Version, definition: ModelDefinition) -> None:
    """Refuse a version whose scores are of other classes than the definition's, or of the one that is not positive."""
    tag = version.tag("classes")
    if not tag:
        return
    told, declared = Classes(*json.loads(tag)), declared_classes(definition)
    if told.many or (declared is not None and declared.many):
        if definition.positive is None and (declared is None or told.means(declared)):
            return
        listed = ", ".join(f'"{name}"' for name in told.names)
        raise ConflictError(
            f"version {version.number} of {version.model} answers {told.told()}, but the definition's classes are "
            + (declared.told() if declared is not None else f"two, with {definition.positive!r} as the positive one"),
            f"Set `classes: [{listed}]` back at the top level of the definition, or start the model anew under "
            "another name",
        )
    positive, wanted = told.positive, declared.positive if declared else definition.positive
    if wanted is None or told.code(wanted) == 1:
        return
    raise ConflictError(
        f"version {version.number} of {version.model} answers how likely {positive!r} is, "
        f"but the definition's positive class is {wanted!r}",
        f'Set `positive: "{positive}"` back, or start the model anew under another name',
    )


@lru_cache(maxsize=4)
def _load(folder: str, digest: str, trusted: tuple[str, ...], allow_pickle: bool) -> Any:
    return load_model(Path(folder), digest=digest, trusted=trusted, allow_pickle=allow_pickle)


def unscored_rows(
    store: Store, definition: ModelDefinition, *, start: datetime | None, as_of: datetime
) -> pd.DataFrame:
    """The ingested rows of [start, as_of) that nobody predicted yet: `_id`, `_time` and the features."""
    rows = window_rows(store, definition, start=start, end=as_of, known_at=as_of)
    done = store.frame(definition.name, "predictions", columns=["id"], where=between("time", start, as_of))
    return rows[~is_known(rows[ROW_ID], done["id"])].reset_index(drop=True)


def score_unscored(
    store: Store, definition: ModelDefinition, pipeline: Any, *, version: int, as_of: datetime,
    noticed: Noticed | None = None, intervals: Intervals | None = None,
) -> int:  # fmt: skip
    """Score and log the ingested rows that nobody predicted; their number.

    The first time, rows older than the monitor's window are left alone: they are history, not traffic.

    Args:
        noticed: Gets the rows to look at. An image among them that can't be read is scored as a missing one.
        intervals: Of the version, to be logged beside the scores.
    """
    predicted = store.read(definition.name, "predictions", columns=["time"])["time"]
    reach = max(definition.monitoring.window, definition.data.label_delay)
    start = as_of - reach
    if len(predicted):
        span = pc.min_max(predicted).as_py()
        start = max(span["min"], min(span["max"], as_of) - reach)
    rows = unscored_rows(store, definition, start=start, as_of=as_of)
    if not len(rows):
        return 0
    chunks = (
        _readable(rows.iloc[start : start + _CHUNK_ROWS], definition, noticed)
        for start in range(0, len(rows), _CHUNK_ROWS)
    )
    found = [(score, raw) for _, score, raw in score_chunks(pipeline, definition, chunks)]
    scores, raw = (np.concatenate(part) for part in zip(*found, strict=True))
    log_predictions(
        store, definition.name, rows, scores, raw=raw, version=version, as_of=as_of, origin="batch", intervals=intervals
    )  # fmt: skip
    return len(rows)


def _readable(rows: pd.DataFrame, definition: ModelDefinition, noticed: Noticed | None) -> pd.DataFrame:
    images = definition.features.image
    readable = readable_images(rows, images)
    if noticed is not None:
        noticed.see(rows)
        for name in images:
            noticed.lose(name, int((rows[name].notna() & readable[name].isna()).sum()))
    return readable


def version_intervals(version: Version, definition: ModelDefinition) -> Intervals | None:
    """The intervals that a version answers, where the definition asks for them and the version has them."""
    return read_intervals(version.tag("interval"), definition.serving.interval)


def score_rows(pipeline: Any, definition: ModelDefinition, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The scores to answer, and the raw ones before a recalibration's map (the same where there is none)."""
    features = feature_frame(rows, definition.features)
    raw = raw_score(pipeline, features, definition)
    if not isinstance(pipeline, Recalibrated):
        return raw, raw
    return apply_map(raw, pipeline.method, pipeline.parameters, definition.task), raw


def raw_score(pipeline: Any, features: pd.DataFrame, definition: ModelDefinition) -> np.ndarray:
    """The pipeline's own score, before a recalibration's map."""
    inner = pipeline.pipeline if isinstance(pipeline, Recalibrated) else pipeline
    return predict_score(inner, features, definition.task)


def log_predictions(
    store: Store, model: str, rows: pd.DataFrame, score: np.ndarray, *, raw: np.ndarray, version: int,
    as_of: datetime, origin: str, intervals: Intervals | None = None, serving: Serving | None = None,
) -> None:  # fmt: skip
    """Append what was predicted: one row an id, with the score, the raw one, the version, the moment, the interval.

    Args:
        serving: Of predictions that somebody acts on: which rows are of the control group is logged, too.
    """
    count = len(rows)
    if not count:
        return
    at = pa.scalar(as_of, type=pa.timestamp("us", tz="UTC"))
    # Straight to Arrow: pandas would make a Python object of every time and every constant.
    table = pa.table(
        {
            "id": pa.array(rows[ROW_ID], type=pa.string(), from_pandas=True),
            "time": pa.array(rows[ROW_TIME], type=at.type, from_pandas=True),
            "score": score_arrow(score),
            "version": pa.repeat(version, count),
            "predicted_at": pa.repeat(at, count),
            "origin": pa.repeat(origin, count),
            "raw_score": score_arrow(raw),
        }
    )
    if intervals is not None:
        for name, values in zip(("lower", "upper"), intervals.bounds(score), strict=True):
            table = table.append_column(name, pa.array(values))
    control = None if serving is None else left_alone(rows[ROW_ID], serving, model)
    if serving is not None and control is not None:
        share = serving.control_group
        table = table.append_column("group", pa.array([CONTROL if alone else TREATED for alone in control]))
        table = table.append_column("propensity", pa.array([share if alone else 1.0 - share for alone in control]))
    # A commit whose answer was lost is tried again: only with a key it happens once.
    store.append(model, "predictions", table, key=f"score:{uuid.uuid4().hex}")


def predictions_between(
    store: Store, model: str, *, start: datetime | None, end: datetime, known_at: datetime
) -> pd.DataFrame:
    """The log's rows with start ≤ time < end made by `known_at`; of an id predicted twice, the first counts."""
    where = between("time", start, end) & (pc.field("predicted_at") <= known_at)
    frame = store.frame(model, "predictions", where=where)
    return frame.sort_values("predicted_at", kind="stable").drop_duplicates("id", ignore_index=True)


def score_file(
    pipeline: Any, definition: ModelDefinition, source: Path, target: Path, *, version: int,
    classes: Sequence[str] = (), record: Record = lambda *_: None, intervals: Intervals | None = None,
) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:  # fmt: skip
    """Score a file into another, chunk by chunk: id, scores and version; yields each chunk's rows, scores, raw scores.

    The target appears only when it is complete.

    Args:
        classes: Of the version, in order; without them scores of two classes or values are written.
        intervals: Of the version; their ends are written as lower and upper.
        record: Called with what is yielded, in a thread beside the scoring; what it raises ends the scoring.

    Raises:
        DataError: A file can't be read or written, or lacks columns.
    """
    require_target(target)
    staged = target.with_name(f".{target.name}.part")
    writer = _Writer(staged, csv=target.suffix.lower() == ".csv")
    # The last chunk is written while the next one is scored: scikit-learn's trees hold no lock.
    with ThreadPoolExecutor(1) as writing:
        try:
            written: Future[None] | None = None
            for rows, score, raw in score_chunks(pipeline, definition, _normal_chunks(source, definition)):
                made = _answers(definition, rows[ROW_ID], score, version, classes, intervals)
                if written is not None:
                    written.result()
                written = writing.submit(_keep, writer, made, partial(record, rows, score, raw))
                yield rows, score, raw
            if written is not None:
                written.result()
            else:
                writer.write(_answers(definition, pd.Series(dtype="str"), np.empty(0), version, classes, intervals))
            writer.close()
            staged.replace(target)
        finally:
            writing.submit(writer.close).result()
            staged.unlink(missing_ok=True)


def require_target(target: Path) -> None:
    """Refuse a file that can't be written.

    Raises:
        DataError: It has another ending, or its folder does not exist.
    """
    if target.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{target} is no file that can be written", "End it in .parquet or .csv")
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} does not exist", "Make it first")


def _answers(
    definition: ModelDefinition, ids: pd.Series[Any], score: np.ndarray, version: int, classes: Sequence[str],
    intervals: Intervals | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What is written of a chunk: the id's columns under their own names, then score, interval, version and control.

    Control is true of rows that the application must leave alone; only where there is a control group. Of many classes
    the label in the user's words and a column for the probability of each, `score_WORD`, in place of score. Ours get an
    underscore where an id has their name.
    """
    columns, control = definition.data.id_columns, left_alone(ids, definition.serving, definition.name)
    ours: dict[str, Any] = {"score": score}
    if intervals is not None:
        ours |= dict(zip(("lower", "upper"), intervals.bounds(score), strict=True))
    if len(classes) > 2:
        given = score if is_many(score) else np.empty((0, len(classes)))
        labels = np.array(classes, dtype=object)[likeliest(given).astype(np.int64)]
        ours = {"label": pd.array(labels, dtype="str")}
        ours |= {f"score_{name}": given[:, code] for code, name in enumerate(classes)}
    ours |= {"version": np.full(len(score), version, dtype=np.int64)}
    if control is not None:
        ours |= {"control": np.array(control, dtype=np.bool_)}
    named = {f"_{name}" if name in columns else name: values for name, values in ours.items()}
    return pd.DataFrame({**id_parts(ids.reset_index(drop=True), definition), **named})


def _keep(writer: _Writer, made: pd.DataFrame, record: Callable[[], None]) -> None:
    writer.write(made)
    record()


Scored = tuple[pd.DataFrame, np.ndarray, np.ndarray]


def score_chunks(pipeline: Any, definition: ModelDefinition, chunks: Iterator[pd.DataFrame]) -> Iterator[Scored]:
    """Each chunk's rows, scores and raw scores, in order; more than one chunk goes to the definition's cluster."""
    first = list(islice(chunks, 2))
    chunks = chain(first, chunks)
    with open_cluster(definition) if len(first) > 1 else nullcontext() as cluster:
        if cluster is None:
            yield from _scored_here(pipeline, definition, chunks)
        else:
            with cluster.share((pipeline, definition)) as shared:
                yield from _scored_there(shared, definition, chunks)


def _scored_here(pipeline: Any, definition: ModelDefinition, chunks: Iterator[pd.DataFrame]) -> Iterator[Scored]:
    """The next chunk is read while this one is scored."""
    with ThreadPoolExecutor(1) as reading:
        ahead = reading.submit(next, chunks, None)
        while (rows := ahead.result()) is not None:
            ahead = reading.submit(next, chunks, None)
            yield rows, *_score_part((pipeline, definition), rows)


def _scored_there(shared: Shared, definition: ModelDefinition, chunks: Iterator[pd.DataFrame]) -> Iterator[Scored]:
    """The features of each chunk travel, and its scores; the file itself need not be where the workers are."""
    out: deque[pd.DataFrame] = deque()

    def features() -> Iterator[pd.DataFrame]:
        for rows in chunks:
            out.append(rows)
            yield rows[list(definition.features.columns)]

    for score, raw in shared.map(_score_part, features(), bulky=True):
        yield out.popleft(), score, raw


def _score_part(model: tuple[Any, ModelDefinition], rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    with _counted_from(int(rows.index[0]) if len(rows) else 0):
        return score_rows(*model, rows)


class _Writer:
    """Appends scored chunks to a parquet or CSV file."""

    def __init__(self, path: Path, *, csv: bool) -> None:
        self._path, self._csv, self._started = path, csv, False
        self._parquet: pq.ParquetWriter | None = None

    def write(self, made: pd.DataFrame) -> None:
        if self._csv:
            made.to_csv(self._path, mode="a" if self._started else "w", header=not self._started, index=False)
        else:
            table = pa.Table.from_pandas(made, preserve_index=False)
            # Ids and scores hardly repeat: a dictionary of them costs time and saves no space.
            self._parquet = self._parquet or pq.ParquetWriter(self._path, table.schema, use_dictionary=["version"])
            self._parquet.write_table(table)
        self._started = True

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None


def _normal_chunks(source: Path, definition: ModelDefinition) -> Iterator[pd.DataFrame]:
    """The file's chunks in the normal form, their index counting through the file."""
    start = 0
    for chunk in read_in_chunks(source, definition, _CHUNK_ROWS):
        with _counted_from(start):
            rows = normalise(chunk, definition)
        rows.index = pd.RangeIndex(start, start + len(rows))
        yield rows
        start += len(rows)


@contextmanager
def _counted_from(start: int) -> Iterator[None]:
    """A refusal names rows as the chunk counts them: so say where the chunk starts."""
    try:
        yield
    except DataError as error:
        if not start:
            raise
        raise DataError(f"in the rows from {start:,} on (counted anew): {error.problem}", error.remedy) from error
