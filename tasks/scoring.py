"""Scoring rows with a registered version, and the log of what was predicted. It judges nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perennial.artifacts import load_model
from perennial.calibrated import Recalibrated, apply_map
from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.features import feature_frame
from perennial.registry import Registry, Version
from perennial.store import ROW_ID, ROW_TIME, Store, between
from tasks.data import is_known, normalise, read_file, window_rows
from tasks.training import predict_score

_CHUNK_ROWS = 100_000


def require_champion(registry: Registry, model: str, *, as_of: datetime | None = None) -> Version:
    """The champion, or the error that says how to get one."""
    champion = registry.champion(model, as_of=as_of)
    if champion is None:
        raise NotFoundError(f"{model} has no champion yet", f"Train one: `perennial retrain {model}`")
    return champion


def load_version(registry: Registry, version: Version, definition: ModelDefinition) -> Any:
    """The fitted pipeline of a version, digest-checked; kept in memory for the process's life."""
    training = definition.training
    return _load(str(registry.artifacts(version)), version.digest, training.trusted_types, training.allow_pickle)


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


def score_unscored(store: Store, definition: ModelDefinition, pipeline: Any, *, version: int, as_of: datetime) -> int:
    """Score and log the ingested rows that nobody predicted; their number.

    The first time, rows older than the monitor's window are left alone: they are history, not traffic.
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
    scores, raw = score_rows(pipeline, definition, rows)
    log_predictions(store, definition.name, rows, scores, raw=raw, version=version, as_of=as_of, origin="batch")
    return len(rows)


def score_rows(pipeline: Any, definition: ModelDefinition, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The scores to answer, and the raw ones before a recalibration's map (the same where there is none)."""
    features = feature_frame(rows, definition.features)
    if not isinstance(pipeline, Recalibrated) or not len(features):
        score = predict_score(pipeline, features, definition.task)
        return score, score
    raw = predict_score(pipeline.pipeline, features, definition.task)
    return apply_map(raw, pipeline.method, pipeline.parameters, definition.task), raw


def log_predictions(
    store: Store, model: str, rows: pd.DataFrame, score: np.ndarray, *, raw: np.ndarray, version: int,
    as_of: datetime, origin: str,
) -> None:  # fmt: skip
    """Append what was predicted: one row an id, with the score, the raw one, the version and the moment."""
    frame = pd.DataFrame(
        {
            "id": rows[ROW_ID].to_numpy(),
            "time": rows[ROW_TIME].to_numpy(),
            "score": score,
            "version": version,
            "predicted_at": pd.Timestamp(as_of),
            "origin": origin,
            "raw_score": raw,
        }
    )
    if len(frame):
        frame["time"] = pd.to_datetime(frame["time"], utc=True)
        store.append(model, "predictions", frame)


def predictions_between(
    store: Store, model: str, *, start: datetime | None, end: datetime, known_at: datetime
) -> pd.DataFrame:
    """The log's rows with start ≤ time < end made by `known_at`; of an id predicted twice, the first counts."""
    where = between("time", start, end) & (pc.field("predicted_at") <= known_at)
    frame = store.frame(model, "predictions", where=where)
    return frame.sort_values("predicted_at", kind="stable").drop_duplicates("id", ignore_index=True)


def score_file(
    pipeline: Any, definition: ModelDefinition, source: Path, target: Path, *, version: int
) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
    """Score a file into another, chunk by chunk: id, score and version; yields each chunk's rows, scores, raw scores.

    The target appears only when it is complete.

    Raises:
        DataError: A file can't be read or written, or lacks columns.
    """
    if target.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{target} is no file that can be written", "End it in .parquet or .csv")
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} does not exist", "Make it first")
    staged = target.with_name(f".{target.name}.part")
    writer: pq.ParquetWriter | None = None
    try:
        for index, chunk in enumerate(_chunks(source)):
            rows = normalise(chunk, definition)
            score, raw = score_rows(pipeline, definition, rows)
            made = pd.DataFrame({definition.data.id: rows[ROW_ID], "score": score, "version": np.int64(version)})
            if target.suffix.lower() == ".csv":
                made.to_csv(staged, mode="a" if index else "w", header=not index, index=False)
            else:
                table = pa.Table.from_pandas(made, preserve_index=False)
                writer = writer or pq.ParquetWriter(staged, table.schema)
                writer.write_table(table)
            yield rows, score, raw
        if writer:
            writer.close()
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _chunks(source: Path) -> Iterator[pd.DataFrame]:
    if source.suffix.lower() != ".parquet":
        yield read_file(source)
        return
    try:
        with pq.ParquetFile(source) as file:
            for batch in file.iter_batches(_CHUNK_ROWS):
                yield batch.to_pandas()
    except FileNotFoundError:
        raise DataError(f"{source} does not exist", "Check the path") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{source} can't be read: {error}", "Check the file") from error
