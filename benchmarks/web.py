"""How quickly the page answers, and what it holds: 100 models with two years of weekly checks, on one small machine.

    python benchmarks/web.py [--models 100] [--checks 104] [--browser]

Prints first byte, whole answer and size of each page, the server's memory, and how long it reads at its start. With
--browser the same history of one model is also opened in a real browser beside MLflow's page and Evidently's, in the
same run: until nothing is loaded any more, and with how many bytes. The ledger's rows are made up, in the shape and
size of a real check's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import yaml

from perennial.operate.servers import free_port
from perennial.settings import PROJECT_ROOT, Settings
from perennial.workspace import Workspace

START = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
COLUMNS = [f"column_{number:02}" for number in range(20)]
REPEATS = 15
COMMITS = 8


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=int, default=100)
    arguments.add_argument("--checks", type=int, default=104)
    arguments.add_argument("--browser", action="store_true", help="Beside MLflow's and Evidently's page.")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-web-") as folder:
        workspace = Workspace(_settings(Path(folder)))
        began = time.perf_counter()
        for number in range(given.models):
            write_model(workspace, f"model-{number:03}", given.checks, seed=number)
        print(f"made {given.models} models with {given.checks} checks in {time.perf_counter() - began:.0f} s")
        with served(workspace) as (client, process):
            _measure(client, process, given.models)
            if given.browser:
                _beside(str(client.base_url), given.checks, Path(folder))


def write_model(workspace: Workspace, name: str, checks: int, *, seed: int) -> None:
    """A definition and tables of a model that was checked weekly, in the sizes of a real one."""
    raw = {
        "name": name, "description": f"Model {name} of a benchmark", "task": "classification",
        "data": {"source": {"parquet": "rows.parquet"}, "id": "id", "time": "time", "target": "truth",
                 "label_delay": "7d"},
        "features": {"numeric": COLUMNS}, "monitoring": {"schedule": "0 6 * * 1"},
    }  # fmt: skip
    (workspace.settings.model_folders[0] / f"{name}.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    chance, store = random.Random(seed), workspace.store
    moments = [START + WEEK * number for number in range(1, checks + 1)]
    decisions = [_decision(name, moment, chance) for moment in moments]
    rows = pd.DataFrame(
        {
            "kind": "decision", "decision_id": [item["decision_id"] for item in decisions],
            "as_of": pd.to_datetime(moments), "recorded_at": pd.to_datetime(moments), "by": None,
            "body": [json.dumps(item) for item in decisions],
        }
    )  # fmt: skip
    figures = pd.DataFrame(
        [
            {"decision_id": item["decision_id"], "as_of": moment, "start": moment - 2 * WEEK, "end": moment - WEEK,
             "kind": kind, "part": part, "version": 1, "loss": "log_loss", "rows": 6000,
             "value": 0.5 + chance.gauss(0, 0.05), "low": 0.4, "high": 0.6}
            for item, moment in zip(decisions, moments, strict=True)
            for kind, part in [("live", ""), ("first", ""), *(("slice", f"region = {n}") for n in range(8))]
        ]
    )  # fmt: skip
    statistics_rows = pd.DataFrame(
        [
            {"decision_id": item["decision_id"], "start": moment - WEEK, "end": moment, "version": 1, "column": column,
             "kind": "numeric", "rows": 6500, "missing": 65, "unseen": 0, "finite": 6435, "mean": quantiles[2],
             "deviation": 1.0, "low": quantiles[0] - 1, "high": quantiles[-1] + 1, "quantiles": quantiles,
             "distinct": 6435, "top": "{}", "points": sorted(chance.gauss(0, 1) for _ in range(65)),
             "hashes": chance.randbytes(1024)}
            for item, moment in zip(decisions, moments, strict=True)
            for column, (_, _, _, quantiles) in item["evidence"]["window"]["columns"].items()
        ]
    )  # fmt: skip
    for table, frame in (("decisions", rows), ("figures", figures), ("column_statistics", statistics_rows)):
        for part in np.array_split(np.arange(len(frame)), COMMITS):
            store.append(name, table, frame.iloc[part].reset_index(drop=True))
    reigns = moments[::12]
    history = pd.DataFrame(
        {
            "sequence": range(1, len(reigns) + 1), "version": range(1, len(reigns) + 1),
            "previous": pd.array([None, *range(1, len(reigns))], dtype="Int64"), "action": "promote",
            "at": pd.to_datetime(reigns), "recorded_at": pd.to_datetime(reigns), "by": str(uuid.uuid4()),
            "reason": "log_loss is 0.493, the champion's 0.4967, on the same 34,736 rows", "decision_id": None,
        }
    )  # fmt: skip
    store.append(name, "history", history)


def _decision(model: str, moment: datetime, chance: random.Random) -> dict[str, Any]:
    verdict = chance.choices(["hold", "recalibrate", "retrain", "repair"], [12, 4, 2, 1])[0]
    loss = 0.5 + chance.gauss(0, 0.05)
    window = {name: [0.01, 0.0, 0.0, sorted(chance.gauss(0, 1) for _ in range(5))] for name in COLUMNS}
    source = "windows of the training data, each against the rest of it"
    signals = [
        _signal("loss", "quality", loss, 0.6, "2.5 standard errors above the loss at promotion"),
        _signal("drift", "drift", chance.random() * 1.4, 1.0, f"{source}; 1.00% false alarms for all columns together"),
        *(_signal(f"drift of {name}", "drift", chance.random() / 2, 0.5, source) for name in COLUMNS[:10]),
        _signal("growth", "growth", 1.1, 1.4, "monitoring.growth"),
        _signal("recalibration", "recalibration", chance.random() * 2, 1.0, "standard errors of the gain"),
    ]
    return {
        "kind": "decision", "decision_id": str(uuid.uuid4()), "model": model, "as_of": moment.isoformat(),
        "champion_version": "1", "policy": "6963da49b5d1ec9d", "verdict": verdict,
        "reasons": [signal["detail"] for signal in signals[:4]], "signals": signals,
        "would_change": ["retrain, if loss were above 0.6179 (it is 0.4919) in 2 of 3 checks"],
        "evidence": {
            "rows": 6500, "window": {"rows": 6500, "duplicates": 0.0, "columns": window, "hours": [270] * 24},
            "window_start": (moment - WEEK).isoformat(), "mature_predictions": 6494, "mature_labels": 6342,
            "coverage": 0.97, "coverage_by_age": [[12.25, 1567, 1555], [10.5, 1585, 1509]], "judged": True,
            "blind": False, "complaints": [],
            "loss": {"name": "log_loss", "mean": loss, "interval": [loss - 0.05, loss + 0.05], "rows": 6342,
                     "at_promotion": 0.52},
        },
        "next_step": "Nothing: the champion goes on answering; the next check looks again.",
    }  # fmt: skip


def _signal(name: str, kind: str, value: float, limit: float, source: str) -> dict[str, Any]:
    detail = f"{name} is {value:.4g} on 6342 mature rows, within the limit of {limit:.4g}; at promotion it was 0.5261"
    return {
        "name": name, "kind": kind, "value": value, "threshold": limit, "threshold_source": source,
        "fired": value > limit, "persistent": False, "detail": detail,
    }  # fmt: skip


@contextmanager
def served(workspace: Workspace) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """`perennial web` as users start it."""
    port = free_port()
    settings = workspace.settings
    environment = {
        **os.environ, "PERENNIAL_HOME": str(settings.home), "PERENNIAL_MODELS": settings.models,
        "PERENNIAL_EXPECTATIONS": settings.expectations, "PYTHONPATH": str(PROJECT_ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "perennial.cli", "web", "--port", str(port)]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            yield client, psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(20)


def _measure(client: httpx.Client, process: psutil.Process, models: int) -> None:
    began = time.perf_counter()
    _until(lambda: client.get("/health").status_code == 200)
    print(f"answers after {time.perf_counter() - began:.1f} s")
    _until(lambda: client.get("/").text.count('<th scope="row">') == models)
    print(f"has read {models} models after {time.perf_counter() - began:.1f} s")
    decision = client.get("/models/model-007/checks").text.split("/decisions/")[1].split('"')[0]
    pages = {
        "overview": "/", "model": "/models/model-007", "decision": f"/models/model-007/decisions/{decision}",
        "checks": "/models/model-007/checks", "column": "/models/model-007/columns/column_03",
    }  # fmt: skip
    print(f"{'page':10} {'first byte ms':>14} {'whole ms':>10} {'KB':>8}")
    for name, path in pages.items():
        timed = [_timed(client, path) for _ in range(REPEATS)]
        first, whole = (statistics.median(item[place] for item in timed) for place in (0, 1))
        print(f"{name:10} {1000 * first:14.0f} {1000 * whole:10.0f} {timed[0][2] / 1000:8.0f}")
    print(f"memory: {process.memory_info().rss / 2**20:.0f} MB after {REPEATS * len(pages)} pages")


def _timed(client: httpx.Client, path: str) -> tuple[float, float, int]:
    began = time.perf_counter()
    with client.stream("GET", path) as answer:
        answer.raise_for_status()
        parts = answer.iter_bytes()
        size = len(next(parts))
        first = time.perf_counter() - began
        size += sum(len(part) for part in parts)
    return first, time.perf_counter() - began, size


def _beside(ours: str, checks: int, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("no Chromium here: pages are not compared")
        return
    with (
        _mlflow(checks, folder) as theirs,
        _evidently(checks, folder) as others,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = {"ours": f"{ours}/models/model-007", "MLflow": theirs, "Evidently": others}
        print(f"{'in a browser':12} {'until idle s':>13} {'KB':>8} {'× ours':>8}")
        base = 0.0
        for name, address in shown.items():
            timed = [_opened(browser, address) for _ in range(5)]
            seconds = statistics.median(item[0] for item in timed)
            base = base or seconds
            print(f"{name:12} {seconds:13.2f} {timed[0][1] / 1000:8.0f} {seconds / base:8.1f}")
        browser.close()


def _opened(browser: Any, address: str) -> tuple[float, int]:
    """Seconds until the last answer has come in a fresh profile, and the bytes of all answers."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab, size, last = context.new_page(), [0], [0.0]

    def count(answer: Any) -> None:
        if answer.request.resource_type == "eventsource":
            return
        try:
            size[0] += len(answer.body())
        except Exception:  # noqa: BLE001 - a redirect has no body
            return
        last[0] = time.perf_counter()

    tab.on("response", count)
    began = time.perf_counter()
    tab.goto(address, wait_until="load")
    while time.perf_counter() - max(last[0], began) < 1.0:
        tab.wait_for_timeout(100)
    context.close()
    return last[0] - began, size[0]


@contextmanager
def _mlflow(checks: int, folder: Path) -> Iterator[str]:
    """MLflow's page of an experiment with a run for each check."""
    import mlflow

    uri, port = f"sqlite:///{folder / 'other.db'}", free_port()
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("model-007")
    for number in range(checks):
        run = client.create_run(experiment, run_name=f"check {number}").info.run_id
        for metric in ("log_loss", "brier", "roc_auc", "drift", "coverage"):
            client.log_metric(run, metric, 0.5 + number / 1000)
        client.set_terminated(run)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port),
               "--workers", "1"]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs"


@contextmanager
def _evidently(checks: int, folder: Path) -> Iterator[str]:
    """Evidently's page of a project with a report for each check."""
    from evidently import Dataset, Report
    from evidently.metrics import MeanValue, RowCount
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel
    from evidently.ui.workspace import Workspace as Shelf

    place, port = folder / "evidently", free_port()
    shelf = Shelf.create(str(place))
    project = shelf.create_project("model-007")
    project.dashboard.add_panel(
        line_plot_panel(title="mean", values=[PanelMetric(metric="MeanValue", legend="mean")], size="full")
    )
    project.save()
    report = Report([RowCount(), *(MeanValue(column=name) for name in COLUMNS[:5])])
    generator = np.random.default_rng(0)
    for number in range(checks):
        frame = pd.DataFrame(generator.normal(size=(200, 5)), columns=COLUMNS[:5])
        run = report.run(Dataset.from_pandas(frame), None, timestamp=START + WEEK * number)
        shelf.add_run(project.id, run, include_data=False)
    command = [Path(sys.executable).with_name("evidently").as_posix(), "ui", "--workspace", str(place), "--port",
               str(port)]  # fmt: skip
    with _running(command, f"http://127.0.0.1:{port}/"):
        yield f"http://127.0.0.1:{port}/projects/{project.id}"


@contextmanager
def _running(command: list[str], address: str) -> Iterator[None]:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _until(lambda: httpx.get(address, trust_env=False).status_code == 200, seconds=120)
        yield
    finally:
        for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
            process.terminate()
        child.wait(20)


def _until(true: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError


def _settings(folder: Path) -> Settings:
    for name in ("models", "expectations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Settings(home=folder / "home", models=str(folder / "models"), expectations=str(folder / "expectations"))


if __name__ == "__main__":
    main()
