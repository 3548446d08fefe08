"""What the steps that read history cost when there is much of it: one model after years of weekly batches.

    python benchmarks/history.py [--weeks 156] [--ledger-rows 10000] [--home FOLDER] [--json FILE]

The rows are the flights of 2013, repeated under new ids and times. Batches, receipts, labels and predictions are
appended week by week and compacted as the flow `ingest` does it; the champion was trained on the first thirteen weeks.
The ledger holds the decision of a real check, repeated. Printed are wall and CPU milliseconds of each step, the median
of some runs, in a process that has done it once. With `--home` the tables are kept, and found again the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import perennial  # noqa: F401 - sets how OpenMP waits, before scikit-learn is imported

START = datetime(2013, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
FIRST_WEEKS = 13
KEYS_A_COMMIT = 100
LEAST_FILES = 12  # as flows.ingest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=156)
    parser.add_argument("--ledger-rows", type=int, default=10_000)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.home or Path(folder), options.weeks, options.ledger_rows)
    print(f"{found['rows']:,} rows, {found['labels']:,} labels, {found['predictions']:,} predictions, "
          f"{found['ledger_rows']:,} ledger rows")  # fmt: skip
    for name, (wall, cpu) in found["milliseconds"].items():
        print(f"{name:34} {wall:9.1f} ms wall {cpu:9.1f} ms CPU")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(home: Path, weeks: int, ledger_rows: int) -> dict[str, Any]:
    """Make the tables where they are not there yet, and time the steps."""
    os.environ["PERENNIAL_HOME"] = str(home)
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition("flights")
    as_of = START + weeks * WEEK
    make_history(workspace, definition, weeks)
    if workspace.store.version("flights", "decisions") is None:
        make_ledger(workspace, definition, ledger_rows, as_of)
    store = workspace.store
    return {
        "weeks": weeks,
        **{name: len(store.read("flights", table, columns=[column])) for name, table, column in (
            ("rows", "batches", "_id"), ("labels", "labels", "id"), ("predictions", "predictions", "id"),
            ("ledger_rows", "decisions", "kind"),
        )},
        "milliseconds": {name: timed(step) for name, step in steps(workspace, definition, as_of).items()},
    }  # fmt: skip


def make_history(workspace: Any, definition: Any, weeks: int) -> None:
    """A champion of the first weeks, then every week's rows, labels and predictions; what is there already stays."""
    from perennial.state.tables import LAYOUT
    from tasks.rows.source import read_source
    from tasks.steps.ingest import ingest_batch
    from tasks.validation.suites import find_suite, load_suite

    year, end = read_source(definition, START, START + timedelta(days=364)), START + FIRST_WEEKS * WEEK
    if workspace.registry.reign("flights") is None:
        suite = load_suite(find_suite("flights", workspace.settings.expectation_folders))
        first = year[year[definition.data.time] < pd.Timestamp(end)].reset_index(drop=True)
        ingest_batch(workspace.store, definition, first, suite, source="past", as_of=end, history=True)
        train(workspace, definition, end)
    for number in range(FIRST_WEEKS, weeks):
        if workspace.store.committed("flights", "labels", f"labels:week-{number}"):
            continue
        append_week(workspace, definition, year, number)
        for table in LAYOUT:
            workspace.store.compact("flights", table, least_files=LEAST_FILES)


def train(workspace: Any, definition: Any, as_of: datetime) -> None:
    """The steps of the retrain flow, without a search."""
    from tasks.steps import retrain as retraining
    from tasks.steps.describe import describe, with_twin
    from tasks.steps.register import register_training

    tuning = definition.training.tuning.model_copy(update={"trials": 0})
    definition = definition.model_copy(update={"training": definition.training.model_copy(update={"tuning": tuning})})
    prepared = retraining.prepare(workspace, definition, as_of=as_of)
    found = retraining.search(workspace, prepared)
    challenger = retraining.train(prepared, found)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    record = describe(prepared, found, challenger, judged, seconds={}, decision_id=None)
    version = register_training(workspace.registry, with_twin(record, retraining.refit(prepared, found)))
    retraining.promote(workspace, prepared, version, judged.report, by="benchmark", decision_id=None)


def append_week(workspace: Any, definition: Any, year: pd.DataFrame, number: int) -> None:
    """One week: its rows as a batch with a receipt, predictions for them, and the labels of the week before."""
    from perennial.state.tables import ROW_BATCH, ROW_ID, ROW_INGESTED_AT, ROW_TIME
    from tasks.rows.normal_form import normalise
    from tasks.steps.score import log_predictions

    store, data = workspace.store, definition.data
    rows = normalise(_week(definition, year, number), definition)
    known_at, batch = pd.Timestamp(START + (number + 1) * WEEK), f"week-{number}"
    stored = rows.drop(columns=data.target).assign(**{ROW_BATCH: batch, ROW_INGESTED_AT: known_at})
    store.append("flights", "batches", stored, key=f"batch:{batch}")
    receipt = {
        "batch_id": batch, "ingested_at": known_at, "source": "benchmark", "verdict": "accepted", "rows": len(rows),
        "kept": len(rows), "quarantined": 0, "duplicates": 0, "labels": 0, "time_from": rows[ROW_TIME].min(),
        "time_until": rows[ROW_TIME].max(), "report": "x" * 4000,
    }  # fmt: skip
    store.append("flights", "receipts", pd.DataFrame([receipt]), key=f"receipt:{batch}")
    score = np.random.default_rng(number).beta(1, 4, len(rows))
    log_predictions(
        store, "flights", rows, score, raw=score, version=1, as_of=known_at.to_pydatetime(), origin="batch"
    )  # fmt: skip
    before = normalise(_week(definition, year, number - 1), definition)
    truth = pd.DataFrame(
        {"id": before[ROW_ID], "truth": before[data.target].astype(float), "labelled_at": known_at, "author": "source"}
    ).dropna(subset="truth")
    store.append("flights", "labels", truth, key=f"labels:{batch}")


def _week(definition: Any, year: pd.DataFrame, number: int) -> pd.DataFrame:
    """The week's rows: those of 2013 again, so many years later."""
    data, (turn, week) = definition.data, divmod(number, 52)
    start = START + week * WEEK
    inside = (year[data.time] >= pd.Timestamp(start)) & (year[data.time] < pd.Timestamp(start + WEEK))
    part = year[inside].reset_index(drop=True)
    return part.assign(**{
        data.id: part[data.id].astype("str") + f"-{turn}", data.time: part[data.time] + turn * timedelta(days=364)
    })  # fmt: skip


def make_ledger(workspace: Any, definition: Any, rows: int, as_of: datetime) -> None:
    """So many decisions, evenly over the time; a hundred share a commit, each with a transaction of its own."""
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

    from perennial.state.ledger import Ledger
    from tasks.steps.monitor import run_check

    decision = run_check(workspace, definition, as_of=as_of).to_dict()
    store, ledger = workspace.store, Ledger(workspace.store, "flights")
    moments = [START + FIRST_WEEKS * WEEK + (as_of - START - FIRST_WEEKS * WEEK) * i / rows for i in range(rows)]
    bodies = [decision | {"decision_id": f"d{i}", "as_of": moment.isoformat()} for i, moment in enumerate(moments)]
    ledger.record(bodies[0], recorded_at=moments[0])
    place = store.location("flights", "decisions")
    for first in range(1, rows, KEYS_A_COMMIT):
        part = range(first, min(first + KEYS_A_COMMIT, rows))
        frame = pd.DataFrame({
            "kind": "decision", "decision_id": [f"d{i}" for i in part], "as_of": [moments[i] for i in part],
            "recorded_at": [moments[i] for i in part], "by": None, "body": [json.dumps(bodies[i]) for i in part],
        })  # fmt: skip
        table = pa.Table.from_pandas(frame, preserve_index=False)
        keys = CommitProperties(app_transactions=[Transaction(f"decision:d{i}", 1) for i in part])
        write_deltalake(
            DeltaTable(place), table.cast(DeltaTable(place).to_pyarrow_dataset().schema), mode="append",
            commit_properties=keys,
        )  # fmt: skip
        store.compact("flights", "decisions", least_files=LEAST_FILES)


def steps(workspace: Any, definition: Any, as_of: datetime) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    from tasks.check.decision import check
    from tasks.rows.frames import known_labels, labelled_rows
    from tasks.rows.labels import add_labels
    from tasks.steps.monitor import freshness, gather_inputs, open_decisions, record_decision, run_check
    from tasks.steps.score import require_champion, score_unscored
    from tasks.steps.source import read_new
    from tasks.steps.trial.probation import check_newcomer

    store, ledger = workspace.store, workspace.ledger("flights")
    champion = require_champion(workspace.registry, "flights")
    inputs = gather_inputs(workspace, definition, champion, as_of=as_of)
    decision = run_check(workspace, definition, as_of=as_of)
    newest = store.frame("flights", "labels", columns=["id", "truth"]).tail(6000)
    counter = iter(range(10**9))

    def record() -> None:
        name = f"probe-{time.time_ns()}-{next(counter)}"
        record_decision(workspace, replace(decision, decision_id=name))

    return {
        "known_labels": lambda: known_labels(store, "flights", as_of=as_of),
        "freshness": lambda: freshness(store, "flights", start=as_of - WEEK, as_of=as_of),
        "gather_inputs": lambda: gather_inputs(workspace, definition, champion, as_of=as_of),
        "check (pure)": lambda: check(inputs, definition.monitoring, as_of=as_of),
        "run_check": lambda: run_check(workspace, definition, as_of=as_of),
        "check_newcomer": lambda: check_newcomer(workspace, definition, as_of=as_of),
        "ledger.rows": lambda: ledger.rows(as_of=as_of),
        "ledger.entries": lambda: ledger.entries(as_of=as_of),
        "open_decisions": lambda: open_decisions(workspace, "flights", as_of=as_of, is_alive=str.isdigit),
        "registry.history": lambda: workspace.registry.history("flights"),
        "score_unscored, nothing new": lambda: score_unscored(store, definition, None, version=1, as_of=as_of),
        "read_new": lambda: read_new(store, definition, as_of=START + FIRST_WEEKS * WEEK),
        "add_labels, 6000 known ones": lambda: add_labels(
            store, definition, newest["id"], newest["truth"].to_numpy(), labelled_at=as_of, author="probe"
        ),
        "labelled_rows": lambda: labelled_rows(store, definition, as_of=as_of),
        "record_decision": record,
    }  # fmt: skip


def timed(step: Callable[[], Any], repeats: int = 5) -> tuple[float, float]:
    """Milliseconds, wall and CPU; the median of some runs after one."""
    step()
    taken = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*taken, strict=True)
    return statistics.median(walls) * 1000, statistics.median(cpus) * 1000


if __name__ == "__main__":
    main()
