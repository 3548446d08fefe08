"""Ingestion beside bare reading and writing: rows a second, memory, and what an ingestion of nothing new costs.

    python benchmarks/ingestion.py [--rows 1000000] [--columns 20] [--repetitions 3] [--nothing-new]

A file of so many rows and columns (id, time, truth, numbers, categories) is ingested from CSV and from parquet,
validated by a suite and stored; beside it, in the same run, `pandas.read_csv` or `read_parquet` with `write_deltalake`.
Each in a process of its own, for its peak memory, in turns; the ratio of their medians is what counts. With
--nothing-new the whole command `perennial ingest MODEL` is timed on a source whose rows are known, on PERENNIAL_HOME's
server or on none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

START = "2020-01-01"
AS_OF = datetime(2030, 1, 1, tzinfo=UTC)


def make_rows(rows: int, columns: int, seed: int = 0) -> pd.DataFrame:
    """Rows of id, time, truth, three categories and numbers."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": [f"r{number:09}" for number in range(rows)]})
    frame["time"] = pd.date_range(START, periods=rows, freq="min", tz="UTC").as_unit("us")
    frame["truth"] = random.integers(0, 2, rows)
    for number, size in enumerate((4, 60, 2000)):
        frame[f"c{number}"] = np.array([f"name {code}" for code in range(size)])[random.integers(0, size, rows)]
    for number in range(columns - frame.shape[1]):
        values = random.normal(size=rows).round(6)
        values[random.random(rows) < 0.02] = np.nan
        frame[f"x{number}"] = values
    return frame


def write_definition(folder: Path, frame: pd.DataFrame) -> None:
    """A definition of these columns and a suite of ranges, sets and missing values."""
    numeric = [name for name in frame if name.startswith("x")]
    categorical = [name for name in frame if name.startswith("c")]
    definition = {
        "name": "big", "task": "classification",
        "data": {"source": {"parquet": "rows.parquet"}, "id": "id", "time": "time", "target": "truth"},
        "features": {"numeric": numeric, "categorical": categorical},
    }  # fmt: skip
    items: list[tuple[str, dict[str, Any]]] = [("expect_table_row_count_to_be_between", {"min_value": 1})]
    for name in numeric:
        items.append(("expect_column_proportion_of_non_null_values_to_be_between", {"column": name, "min_value": 0.9}))
        items.append(("expect_column_values_to_be_between", {"column": name, "min_value": -50, "max_value": 50}))
    for name in ("id", *categorical):
        items.append(("expect_column_values_to_not_be_null", {"column": name}))
    suite = {
        "name": "big",
        "expectations": [{"type": kind, "kwargs": kwargs, "severity": "critical"} for kind, kwargs in items],
    }
    for name in ("models", "expectations"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "models" / "big.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    (folder / "expectations" / "big.json").write_text(json.dumps(suite))


def bare(path: Path, folder: Path) -> int:
    """Read and write, nothing else."""
    from deltalake import write_deltalake

    frame = pd.read_csv(path, parse_dates=["time"]) if path.suffix == ".csv" else pd.read_parquet(path)
    write_deltalake(str(folder / "bare"), frame)
    return len(frame)


def ingested(path: Path, folder: Path) -> int:
    """The step that the flow and the command run."""
    from perennial.definition import load_definition
    from perennial.state.store import Store
    from tasks.rows.files import read_parts
    from tasks.steps.ingest import PART_ROWS, ingest_batch
    from tasks.validation.suites import load_suite

    definition = load_definition(folder / "models" / "big.yaml")
    suite = load_suite(folder / "expectations" / "big.json")
    parts = partial(read_parts, path, definition, PART_ROWS)
    store = Store(str(folder / "tables"))
    receipt, _ = ingest_batch(store, definition, parts, suite, source=path.name, as_of=AS_OF)
    if (receipt.verdict, receipt.quarantined) != ("accepted", 0) or receipt.labels != receipt.rows:
        raise SystemExit(f"the batch was not taken whole: {receipt}")
    return receipt.kept


def peak_megabytes() -> float:
    """The most memory that this process has held; `getrusage` would tell that of the process which started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def measure(what: str, path: Path, folder: Path) -> dict[str, Any]:
    """One of the two in this process: seconds without imports, and the peak of its memory above what imports take."""
    from deltalake import write_deltalake  # noqa: F401

    from tasks.validation.library import great_expectations

    if what == "ingested":
        import tasks.steps.ingest  # noqa: F401

        great_expectations()
    before = peak_megabytes()
    cpu, started = time.process_time(), time.perf_counter()
    rows = {"bare": bare, "ingested": ingested}[what](path, folder)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds, "megabytes": peak_megabytes() - before}


def in_its_own_process(what: str, path: Path) -> dict[str, Any]:
    """`measure` in a new process and a new folder."""
    with tempfile.TemporaryDirectory() as name:
        write_definition(Path(name), pd.read_parquet(path.with_suffix(".parquet")).head(0))
        command = [sys.executable, __file__, "--measure", what, str(path), name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return measured


def median(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result whose seconds are the median; of an even number of them the longer one of the middle."""
    return sorted(results, key=lambda result: result["seconds"])[len(results) // 2]


def compare(folder: Path, rows: int, columns: int, repetitions: int) -> list[dict[str, Any]]:
    """CSV and parquet, each bare and ingested, in turns."""
    frame = make_rows(rows, columns)
    frame.to_parquet(folder / "rows.parquet", row_group_size=100_000)
    frame.to_csv(folder / "rows.csv", index=False)
    del frame
    found = []
    for kind in ("csv", "parquet"):
        path = folder / f"rows.{kind}"
        turns = [(in_its_own_process("bare", path), in_its_own_process("ingested", path)) for _ in range(repetitions)]
        one, other = median([bare for bare, _ in turns]), median([ingested for _, ingested in turns])
        found.append({"kind": kind, "bare": one, "ingested": other, "ratio": other["seconds"] / one["seconds"],
                      "cpu_ratio": other["cpu_seconds"] / one["cpu_seconds"]})  # fmt: skip
        for name, result in (("bare", one), ("ingested", other)):
            speed = result["rows"] / result["seconds"]
            print(
                f"{kind:<8}{name:<9}{result['seconds']:7.1f} s  {speed:10,.0f} rows/s  "
                f"CPU {result['cpu_seconds']:6.1f} s  "
                f"peak {result['megabytes']:6.0f} MB", flush=True,
            )  # fmt: skip
        each = ", ".join(f"{second['seconds'] / first['seconds']:.2f}" for first, second in turns)
        print(
            f"{kind:<8}ratio    {found[-1]['ratio']:7.2f} x of the time, {found[-1]['cpu_ratio']:.2f} x of the CPU "
            f"(turn by turn {each})", flush=True,
        )  # fmt: skip
    return found


def nothing_new(folder: Path, repetitions: int = 5) -> list[float]:
    """Seconds of the whole command, its start included, on a source of 20,000 rows that are known."""
    frame = make_rows(20_000, 20)
    write_definition(folder, frame)
    frame.to_parquet(folder / "models" / "rows.parquet")
    home = os.environ.get("PERENNIAL_HOME", str(folder / "home"))
    environment = os.environ | {
        "PERENNIAL_HOME": home, "PERENNIAL_MODELS": str(folder / "models"),
        "PERENNIAL_EXPECTATIONS": str(folder / "expectations"),
    }  # fmt: skip
    command = [sys.executable, "-m", "perennial.cli", "ingest", "big"]
    print(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout, end="")
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
        if not done.stdout.startswith("0 rows"):
            raise SystemExit(done.stdout)
    print(f"nothing new: {', '.join(f'{value:.1f}' for value in seconds)} s")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--nothing-new", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, path, folder = arguments.measure
        print(json.dumps(measure(what, Path(path), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as name:
        if arguments.nothing_new:
            nothing_new(Path(name))
        else:
            compare(Path(name), arguments.rows, arguments.columns, arguments.repetitions)


if __name__ == "__main__":
    main()
