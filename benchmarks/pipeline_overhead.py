"""One full retrain flow beside a bare script that does the same fits and scores: what the flow costs on top.

    python benchmarks/pipeline_overhead.py [--rows 300000] [--trials 20] [--json FILE]

The baseline `bare` reads the same rows from parquet, evaluates the same trials two at a time, fits, scores the holdout
and refits, with scikit-learn alone: no tables, search, gate, registry, figures or Prefect. It runs in a process of its
own, without the environment that Perennial sets. Both have their libraries imported and the servers and databases are
there before the clock starts. Printed are both times, their ratio, and where the rest goes by step. What the flow costs
on top is nearly the same for any number of trials; 20 is a definition's default.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

AS_OF = datetime(2014, 1, 20, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.bare)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.rows, arguments.trials)
    print(f"bare script   {result['bare_seconds']:7.1f} s wall, {result['bare_cpu_seconds']:7.1f} s CPU")
    print(f"retrain flow  {result['flow_seconds']:7.1f} s wall, {result['flow_cpu_seconds']:7.1f} s CPU")
    print(f"ratio         {result['ratio']:7.2f} wall,   {result['cpu_ratio']:7.2f} CPU   (target: 1.15 or less)")
    print(f"importing what the flow needs, once for each process: {result['import_seconds']:.1f} s, not in the above")
    print("\nthe flow's steps, in seconds (the first model's twin is fitted, `refit`, beside `train`):")
    for name, seconds in result["steps"].items():
        print(f"  {name:10} {seconds:7.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def measure(folder: Path, rows: int, trials: int) -> dict[str, Any]:
    """Prepare a home with the rows ingested, then time the flow and the bare script."""
    models = folder / "models"
    models.mkdir()
    outside = dict(os.environ)
    _definition(models, trials)
    os.environ |= {"PERENNIAL_HOME": str(folder / "home"), "PERENNIAL_MODELS": str(models)}
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    from perennial.operate.servers import prefect_server
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition("flights")
    _ingest(workspace, definition, rows)
    workspace.registry.experiment_id("flights")
    with prefect_server(workspace.settings):
        importing, retrain = _timed(_import_flow)
        flow, outcome = _timed(lambda: retrain("flights", as_of=AS_OF))
    version = workspace.registry.version("flights", outcome["version"])
    tried = _trials(workspace, version)
    _prepare_bare(workspace, definition, folder, tried, json.loads(version.tag("parameters")))
    command = [sys.executable, __file__, "--bare", str(folder)]
    bare = json.loads(subprocess.run(command, env=outside, stdout=subprocess.PIPE, check=True).stdout)
    return {
        "rows": rows,
        "trials": len(tried),
        "bare_seconds": bare[0],
        "flow_seconds": flow[0],
        "ratio": flow[0] / bare[0],
        "bare_cpu_seconds": bare[1],
        "flow_cpu_seconds": flow[1],
        "cpu_ratio": flow[1] / bare[1],
        "import_seconds": importing[0],
        "gate": outcome["gate"],
        "steps": _steps(workspace, version),
    }


def _import_flow() -> Any:
    """The flow, with what its steps import when they are first called."""
    import skops.io  # noqa: F401

    from flows.retrain import retrain

    return retrain


def _definition(models: Path, trials: int) -> None:
    from perennial.settings import PROJECT_ROOT

    source = PROJECT_ROOT / "deployments"
    usual = "trials: 4, seconds: 30"
    text = (source / "flights.yaml").read_text()
    if usual not in text:
        raise SystemExit(f"deployments/flights.yaml has no {usual!r} to replace by the benchmark's own budget")
    text = text.replace(usual, f"trials: {trials}, seconds: 3600")
    (models / "flights.yaml").write_text(text)
    (models / "flights_source.py").write_text((source / "flights_source.py").read_text())


def _ingest(workspace: Any, definition: Any, rows: int) -> None:
    from tasks.rows.source import read_source
    from tasks.steps.ingest import ingest_batch
    from tasks.validation.suites import find_suite, load_suite

    suite = load_suite(find_suite("flights", workspace.settings.expectation_folders))
    frame = read_source(definition, None, AS_OF).tail(rows).reset_index(drop=True)
    receipt, _ = ingest_batch(workspace.store, definition, frame, suite, source="benchmark", as_of=AS_OF, history=True)
    if receipt.verdict != "accepted":
        raise SystemExit(f"the flights were refused: {receipt.reasons}")


def _prepare_bare(
    workspace: Any, definition: Any, folder: Path, trials: list[dict[str, Any]], best: dict[str, Any]
) -> None:
    """Write what the bare script starts from: the rows, the split, the parameters, the unfitted pipelines."""
    from perennial.state.tables import ROW_TIME, ROW_TRUTH
    from tasks.learning.estimators import build_pipeline
    from tasks.rows.frames import labelled_rows
    from tasks.rows.split import split_by_time

    frame = labelled_rows(workspace.store, definition, as_of=AS_OF).frame
    frame = frame.rename(columns={ROW_TIME: definition.data.time, ROW_TRUTH: definition.data.target})
    frame.to_parquet(folder / "rows.parquet")
    split = split_by_time(frame, definition, AS_OF)
    given = {
        "target": definition.data.target,
        "features": list(definition.features.columns),
        "workers": definition.training.tuning.workers,
        "fold": (split.folds[0].train, split.folds[0].validation),
        "learning": split.learning,
        "holdout": split.holdout,
        "trials": [build_pipeline(definition, parameters, 0) for parameters in trials],
        "best": build_pipeline(definition, best, 0),
    }
    (folder / "bare.pickle").write_bytes(pickle.dumps(given))


def run_bare(folder: Path) -> None:
    """What a careful person's script does: read, preprocess once, two trials at a time, fit, score, fit again."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import pandas as pd
    from sklearn.base import clone
    from sklearn.metrics import log_loss
    from threadpoolctl import threadpool_limits

    given = pickle.loads((folder / "bare.pickle").read_bytes())

    def script() -> None:
        frame = pd.read_parquet(folder / "rows.parquet")
        target = frame[given["target"]].to_numpy(dtype=np.int64)
        features = frame[given["features"]]
        learned, judged = given["fold"]
        preprocess = clone(given["best"].named_steps["preprocess"]).fit(features.iloc[learned])
        train, validation = (preprocess.transform(features.iloc[index]) for index in (learned, judged))

        def trial(pipeline: Any) -> float:
            with threadpool_limits(1):
                model = pipeline.named_steps["estimator"].fit(train, target[learned])
                return float(log_loss(target[judged], model.predict_proba(validation)[:, 1]))

        with ThreadPoolExecutor(given["workers"]) as pool:
            list(pool.map(trial, given["trials"]))
        learning, holdout = given["learning"], given["holdout"]
        model = clone(given["best"]).fit(features.iloc[learning], target[learning])
        log_loss(target[holdout], model.predict_proba(features.iloc[holdout])[:, 1])
        clone(given["best"]).fit(features, target)

    seconds, _ = _timed(script)
    print(json.dumps(seconds))


def _timed(action: Any) -> tuple[tuple[float, float], Any]:
    started, cpu = time.perf_counter(), time.process_time()
    result = action()
    return (time.perf_counter() - started, time.process_time() - cpu), result


def _trials(workspace: Any, version: Any) -> list[dict[str, Any]]:
    import pandas as pd

    from tasks.learning.estimators import default_parameters

    table = pd.read_json(workspace.registry.run_artifact(version, "tuning.json"), orient="split")
    names = list(default_parameters(workspace.definition("flights")))
    return [{name: value for name, value in row.items() if name in names} for row in table.to_dict("records")]


def _steps(workspace: Any, version: Any) -> dict[str, float]:
    metrics = workspace.registry.client.get_run(version.run_id).data.metrics
    return {name.removeprefix("seconds/"): value for name, value in metrics.items() if name.startswith("seconds/")}


if __name__ == "__main__":
    main()
