"""One full retrain flow beside a bare script that does the same fits and scores: what the flow costs on top.

    python benchmarks/pipeline_overhead.py [--rows 300000] [--trials 8] [--json FILE]

The baseline `bare` reads the same rows from parquet, evaluates the same trials two at a time, fits, scores the holdout
and refits, with scikit-learn alone: no tables, search, gate, registry, figures or Prefect. The server is up before the
flow starts. Printed are both times, their ratio, and where the rest goes by step.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import perennial  # noqa: F401 - sets how OpenMP waits, before scikit-learn is imported

AS_OF = datetime(2014, 1, 20, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.rows, arguments.trials)
    print(f"bare script   {result['bare_seconds']:7.1f} s wall, {result['bare_cpu_seconds']:7.1f} s CPU")
    print(f"retrain flow  {result['flow_seconds']:7.1f} s wall, {result['flow_cpu_seconds']:7.1f} s CPU")
    print(f"ratio         {result['ratio']:7.2f} wall,   {result['cpu_ratio']:7.2f} CPU   (target: 1.15 or less)")
    print("\nthe flow's steps, in seconds:")
    for name, seconds in result["steps"].items():
        print(f"  {name:10} {seconds:7.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


def measure(folder: Path, rows: int, trials: int) -> dict[str, Any]:
    """Prepare a home with the rows ingested, then time the bare script and the flow."""
    models = folder / "models"
    models.mkdir()
    _definition(models, trials)
    os.environ |= {"PERENNIAL_HOME": str(folder / "home"), "PERENNIAL_MODELS": str(models)}
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    from perennial.servers import prefect_server
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition("flights")
    _ingest(workspace, definition, rows)
    with prefect_server(workspace.settings):
        from flows.retrain import retrain

        flow, outcome = _timed(lambda: retrain("flights", as_of=AS_OF))
    version = workspace.registry.version("flights", outcome["version"])
    trials = _trials(workspace, version)
    best = json.loads(version.tag("parameters"))
    split, path = _prepared(workspace, definition, folder)
    bare, _ = _timed(lambda: _bare(path, definition, split, trials, best))
    return {
        "rows": rows,
        "trials": len(trials),
        "bare_seconds": bare[0],
        "flow_seconds": flow[0],
        "ratio": flow[0] / bare[0],
        "bare_cpu_seconds": bare[1],
        "flow_cpu_seconds": flow[1],
        "cpu_ratio": flow[1] / bare[1],
        "gate": outcome["gate"],
        "steps": _steps(workspace, version),
    }


def _definition(models: Path, trials: int) -> None:
    from perennial.settings import PROJECT_ROOT

    source = PROJECT_ROOT / "deployments"
    usual = "trials: 6, seconds: 30"
    text = (source / "flights.yaml").read_text()
    if usual not in text:
        raise SystemExit(f"deployments/flights.yaml has no {usual!r} to replace by the benchmark's own budget")
    text = text.replace(usual, f"trials: {trials}, seconds: 3600")
    (models / "flights.yaml").write_text(text)
    (models / "flights_source.py").write_text((source / "flights_source.py").read_text())


def _ingest(workspace: Any, definition: Any, rows: int) -> None:
    from tasks.data import read_source
    from tasks.ingestion import ingest_batch
    from tasks.validation import find_suite, load_suite

    suite = load_suite(find_suite("flights", workspace.settings.expectation_folders))
    frame = read_source(definition, None, AS_OF).tail(rows).reset_index(drop=True)
    receipt, _ = ingest_batch(workspace.store, definition, frame, suite, source="benchmark", as_of=AS_OF, history=True)
    if receipt.verdict != "accepted":
        raise SystemExit(f"the flights were refused: {receipt.reasons}")


def _bare(rows: Path, definition: Any, split: Any, trials: list[dict[str, Any]], best: dict[str, Any]) -> None:
    """What a careful person's script does: read, preprocess once, two trials at a time, fit, score, fit again."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import pandas as pd
    from sklearn.metrics import log_loss
    from threadpoolctl import threadpool_limits

    from tasks.estimators import build_pipeline

    frame = pd.read_parquet(rows)
    target = frame[definition.data.target].to_numpy(dtype=np.int64)
    features = frame[list(definition.features.columns)]
    fold = split.folds[0]
    preprocess = build_pipeline(definition, {}, 0).named_steps["preprocess"].fit(features.iloc[fold.train])
    train, validation = (preprocess.transform(features.iloc[index]) for index in (fold.train, fold.validation))

    def trial(parameters: dict[str, Any]) -> float:
        with threadpool_limits(1):
            model = build_pipeline(definition, parameters, 0).named_steps["estimator"].fit(train, target[fold.train])
            return float(log_loss(target[fold.validation], model.predict_proba(validation)[:, 1]))

    with ThreadPoolExecutor(definition.training.tuning.workers) as pool:
        list(pool.map(trial, trials))
    learning = np.concatenate([split.train, split.validation])
    model = build_pipeline(definition, best, 0).fit(features.iloc[learning], target[learning])
    log_loss(target[split.holdout], model.predict_proba(features.iloc[split.holdout])[:, 1])
    build_pipeline(definition, best, 0).fit(features, target)


def _timed(action: Any) -> tuple[tuple[float, float], Any]:
    started, cpu = time.perf_counter(), time.process_time()
    result = action()
    return (time.perf_counter() - started, time.process_time() - cpu), result


def _prepared(workspace: Any, definition: Any, folder: Path) -> tuple[Any, Path]:
    from perennial.store import ROW_TIME, ROW_TRUTH
    from tasks.data import labelled_rows
    from tasks.split import split_by_time

    frame = labelled_rows(workspace.store, definition, as_of=AS_OF).frame
    frame = frame.rename(columns={ROW_TIME: definition.data.time, ROW_TRUTH: definition.data.target})
    path = folder / "rows.parquet"
    frame.to_parquet(path)
    return split_by_time(frame, definition, AS_OF), path


def _trials(workspace: Any, version: Any) -> list[dict[str, Any]]:
    import pandas as pd

    from tasks.estimators import default_parameters

    table = pd.read_json(workspace.registry.run_artifact(version, "tuning.json"), orient="split")
    names = list(default_parameters(workspace.definition("flights")))
    return [{name: value for name, value in row.items() if name in names} for row in table.to_dict("records")]


def _steps(workspace: Any, version: Any) -> dict[str, float]:
    metrics = workspace.registry.client.get_run(version.run_id).data.metrics
    return {name.removeprefix("seconds/"): value for name, value in metrics.items() if name.startswith("seconds/")}


if __name__ == "__main__":
    main()
