"""Scoring a large file: rows per second and memory of what `perennial score` does, beside bare `predict_proba`.

    python benchmarks/batch_scoring.py [--rows 5000000] [--source parquet|csv] [--json FILE]

The model is the flights demo's. The rows are its year of flights, repeated under new ids; the file is read, scored and
written in chunks, and every row goes to the prediction log. The baseline calls `predict_proba` on the same rows, in
memory already and in the form that the pipeline reads, in chunks of the same size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from homes.served import make_home

CHUNK_ROWS = 100_000


def write_rows(target: Path, count: int) -> pd.DataFrame:
    """A parquet or CSV file of so many rows; one year of them."""
    from perennial.workspace import open_workspace
    from tasks.rows.source import read_source

    definition = open_workspace().definition("flights")
    year = read_source(definition, None, datetime(2014, 1, 1, tzinfo=UTC)).drop(columns=definition.data.target)
    writer: pq.ParquetWriter | None = None
    for start in range(0, count, len(year)):
        part = year.head(count - start).copy()
        part[definition.data.id] = [f"f{number}" for number in range(start, start + len(part))]
        if target.suffix == ".csv":
            part.to_csv(target, mode="a", header=not start, index=False)
            continue
        table = pa.Table.from_pandas(part, preserve_index=False)
        writer = writer or pq.ParquetWriter(target, table.schema)
        writer.write_table(table, row_group_size=CHUNK_ROWS)
    if writer:
        writer.close()
    return year


class Memory:
    """The most memory that this process held while the body ran, above what it held before."""

    def __enter__(self) -> Memory:
        self._process, self._stop = psutil.Process(), threading.Event()
        self.before_mb = self.most_mb = self._process.memory_info().rss / 1e6
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.most_mb = max(self.most_mb, self._process.memory_info().rss / 1e6)


def measure(rows: int, kind: str) -> dict[str, Any]:
    """Both, on the same rows."""
    from flows.score import _score_file
    from perennial.model.features import feature_frame
    from perennial.workspace import open_workspace
    from tasks.rows.normal_form import normalise
    from tasks.steps.score import load_version

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_home(folder / "home", versions=1)
        workspace = open_workspace()
        definition = workspace.definition("flights")
        champion = workspace.registry.champion("flights")
        assert champion
        source = folder / f"rows.{kind}"
        year = write_rows(source, rows)
        pipeline = load_version(workspace.registry, champion, definition)
        features = feature_frame(normalise(year, definition), definition.features)
        pipeline.predict_proba(features.head(1000))
        bare, done = 0.0, 0
        while done < rows:
            started = time.perf_counter()
            for start in range(0, len(features), CHUNK_ROWS):
                pipeline.predict_proba(features.iloc[start : start + CHUNK_ROWS])
            bare += time.perf_counter() - started
            done += len(features)
        bare_rate = done / bare
        del year, features
        with Memory() as memory:
            started = time.perf_counter()
            target = folder / "scored.parquet"
            scored, _ = _score_file(workspace, definition, champion, source, target, datetime.now(UTC))
            seconds = time.perf_counter() - started
        assert scored == rows == pq.ParquetFile(folder / "scored.parquet").metadata.num_rows
        logged = workspace.store.read("flights", "predictions", columns=["score"])
        assert len(logged) == rows
        assert np.isfinite(logged["score"].to_numpy()).all()
    return {
        "rows": rows,
        "source": kind,
        "rows_per_second": rows / seconds,
        "bare_rows_per_second": bare_rate,
        "ratio": rows / seconds / bare_rate,
        "memory_before_mb": memory.before_mb,
        "memory_most_mb": memory.most_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--source", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.rows, options.source)
    print(
        f"{found['rows']:,} rows of {found['source']}: "
        f"{found['rows_per_second']:,.0f} rows/s beside {found['bare_rows_per_second']:,.0f} "
        f"of bare predict_proba ({found['ratio']:.2f} ×), {found['memory_before_mb']:.0f} MB before, at most "
        f"{found['memory_most_mb']:.0f} MB"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
