"""CPU seconds of our validation beside plain Great Expectations, same data and suite. No other step belongs here.

    python benchmarks/validation.py [--rows 1000000] [--json FILE]

The frame has 20 columns, the suite 15 expectations; both are clean, which is the usual case, and the reports'
verdicts are compared before anything is printed. `ratio` is ours over plain Great Expectations.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tasks.validation.judging import validate
from tasks.validation.suites import Suite, load_suite

COLUMNS = 20


def make_frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """14 numeric columns (one in ten values missing in half of them), 4 categorical, an id and a time."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {"id": pd.Series(np.arange(rows)).astype("str")}
    columns["time"] = pd.date_range("2020-01-01", periods=rows, freq="s", tz="UTC", unit="us")
    for index in range(14):
        values = rng.normal(10, 2, rows)
        columns[f"x{index}"] = np.where(rng.random(rows) < 0.1, np.nan, values) if index % 2 else values
    for index in range(4):
        columns[f"c{index}"] = pd.Series(rng.choice(["red", "green", "blue"], rows), dtype="str")
    return pd.DataFrame(columns)


def make_suite(folder: Path) -> Suite:
    """15 expectations of the kinds that suites are made of: missing values, ranges, sets, patterns, means."""

    def one(name: str, column: str, **kwargs: Any) -> dict[str, Any]:
        kwargs = {"column": column, **kwargs}
        return {"type": f"expect_column_{name}", "kwargs": kwargs, "severity": "critical"}

    entries = [
        one("values_to_not_be_null", "id"),
        one("values_to_be_unique", "id"),
        one("values_to_not_be_null", "time"),
        one("values_to_not_be_null", "x0"),
        one("values_to_be_between", "x0", min_value=-100, max_value=100),
        one("values_to_not_be_null", "x1", mostly=0.8),
        one("values_to_be_between", "x1", min_value=-100, max_value=100),
        one("values_to_not_be_null", "x2"),
        one("mean_to_be_between", "x2", min_value=5, max_value=15),
        one("proportion_of_non_null_values_to_be_between", "x3", min_value=0.8),
        one("stdev_to_be_between", "x3", min_value=1, max_value=3),
        one("values_to_be_in_set", "c0", value_set=["red", "green", "blue"]),
        one("values_to_be_in_set", "c1", value_set=["red", "green", "blue"]),
        one("values_to_match_regex", "c2", regex="^[a-z]+$"),
        one("unique_value_count_to_be_between", "c3", min_value=2, max_value=5),
    ]
    path = folder / "benchmark.json"
    path.write_text(json.dumps({"name": path.stem, "expectations": entries}), encoding="utf-8")
    return load_suite(path)


def plain(frame: pd.DataFrame, suite: Suite, result_format: Literal["BOOLEAN_ONLY", "SUMMARY"]) -> bool:
    """Great Expectations as its manual has it."""
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    entries = [{"type": e.type, "kwargs": e.kwargs, "severity": e.severity} for e in suite.expectations]
    expectations = gx.ExpectationSuite(name=suite.name, expectations=entries)
    batch = context.data_sources.pandas_default.read_dataframe(frame)
    return bool(batch.validate(expectations, result_format=result_format).success)


def cpu_seconds(work: Callable[[], bool], repeats: int) -> float:
    """The least CPU time of some runs, in seconds; the work must say that the batch passed."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        passed = work()
        taken.append(time.process_time() - start)
        if not passed:
            raise SystemExit("the clean batch was refused: the figures would mean nothing")
    return min(taken)


def measure(rows: int, repeats: int = 3) -> dict[str, float]:
    """The figures; the import of Great Expectations is paid before the clock starts."""
    frame = make_frame(rows)
    assert frame.shape == (rows, COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        suite = make_suite(Path(folder))
    small = frame.head(100)
    validate(small, suite)
    plain(small, suite, "SUMMARY")
    ours = cpu_seconds(lambda: validate(frame, suite).verdict == "passed", repeats)
    boolean = cpu_seconds(lambda: plain(frame, suite, "BOOLEAN_ONLY"), repeats)
    summary = cpu_seconds(lambda: plain(frame, suite, "SUMMARY"), repeats)
    return {
        "rows": rows,
        "columns": COLUMNS,
        "expectations": len(suite.expectations),
        "ours_cpu_seconds": round(ours, 4),
        "plain_boolean_cpu_seconds": round(boolean, 4),
        "plain_summary_cpu_seconds": round(summary, 4),
        "ratio_to_boolean": round(ours / boolean, 4),
        "ratio_to_summary": round(ours / summary, 4),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args(arguments)
    figures = measure(options.rows)
    print(f"{figures['rows']:,} rows x {COLUMNS} columns, {figures['expectations']} expectations, CPU seconds:")
    print(f"  ours                             {figures['ours_cpu_seconds']:8.3f}")
    for name in ("boolean", "summary"):
        label = f"plain, {'BOOLEAN_ONLY' if name == 'boolean' else 'SUMMARY'}"
        seconds, ratio = figures[f"plain_{name}_cpu_seconds"], figures[f"ratio_to_{name}"]
        print(f"  {label:32} {seconds:8.3f}   ours is {ratio:.3f} x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
