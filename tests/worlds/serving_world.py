"""What the API's tests share: small homes with real registered champions, servers on them, requests to them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import uvicorn
import yaml
from PIL import Image

from perennial.definition import ModelDefinition
from perennial.model.calibrated import Recalibrated
from perennial.model.features import feature_frame
from perennial.serving.processes.worker import configured
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings
from perennial.settings import Settings
from perennial.state.addresses import bring_home
from perennial.workspace import Workspace
from tasks.learning.fitting import fit, predict_score
from tasks.steps.register import GOLDEN_FILE, TrainingRecord, register_training

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(count: int, seed: int = 0, task: str = "classification", wide: bool = False) -> pd.DataFrame:
    """Rows with numbers, categories, gaps, an empty column and a rare category; `wide` adds text and images."""
    generator = np.random.default_rng(seed)
    level = generator.normal(size=count)
    frame = pd.DataFrame(
        {
            "row": [f"r{seed}-{number}" for number in range(count)],
            "at": pd.date_range("2025-01-01", periods=count, freq="min", tz="UTC"),
            "a": level,
            "b": np.where(generator.random(count) < 0.2, np.nan, generator.normal(size=count)),
            "empty": np.nan,
            "colour": pd.Series(generator.choice(["red", "green", "blue"], count), dtype="str"),
            "code": pd.Series(generator.integers(0, 30, count).astype("str"), dtype="str"),
        }
    )
    frame.loc[frame.index % 11 == 0, "colour"] = None
    if wide:
        words = np.array(["late", "fine", "broken", "quick", "slow", "kind"])
        frame["note"] = pd.Series([" ".join(generator.choice(words, 5)) for _ in range(count)], dtype="str")
        frame["picture"] = [picture(int(value)) for value in generator.integers(0, 255, count)]
    signal_ = level + 0.5 * np.nan_to_num(frame["b"]) + (frame["colour"] == "red") + generator.normal(size=count)
    frame["y"] = (signal_ > 0.3).astype("float64") if task == "classification" else signal_ * 3 + 10
    return frame


def picture(brightness: int) -> bytes:
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


def definition_of(
    name: str = "colours", task: str = "classification", estimator: str = "hist_gradient_boosting", *,
    wide: bool = False, **sections: Any,
) -> dict[str, Any]:  # fmt: skip
    """A definition as its YAML has it."""
    features: dict[str, list[str]] = {"numeric": ["a", "b", "empty"], "categorical": ["colour", "code"]}
    if wide:
        features |= {"text": ["note"], "image": ["picture"]}
    return {
        "name": name,
        "task": task,
        "data": {"source": {"parquet": "none.parquet"}, "id": "row", "time": "at", "target": "y"},
        "features": features,
        "training": {"estimator": estimator},
        **sections,
    }


PARAMETERS: dict[str, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 30, "min_samples_leaf": 10},
    "random_forest": {"n_estimators": 20, "min_samples_leaf": 3},
    "linear": {},
}


def make_workspace(home: Path, *definitions: dict[str, Any]) -> Workspace:
    """A home and its models' folder."""
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    for definition in definitions:
        (models / f"{definition['name']}.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    return Workspace(Settings(home=home, models=str(models)))


def register(workspace: Workspace, name: str, key: str, *, seed: int = 0, promote: bool = True, **changes: Any) -> int:
    """Fit, register and (by default) promote a version; its number."""
    definition = workspace.definition(name)
    frame = rows_of(400, seed, definition.task, bool(definition.features.text))
    fitted = fit(definition, frame, {**PARAMETERS[definition.training.estimator], **changes}, seed)
    return register_pipeline(workspace, definition, fitted.pipeline, frame, key, promote=promote)


def register_pipeline(
    workspace: Workspace, definition: ModelDefinition, pipeline: Any, frame: pd.DataFrame, key: str, *,
    promote: bool = True, calibration: list[float] | None = None, golden_offset: float = 0.0,
) -> int:  # fmt: skip
    """Register a fitted pipeline as training does."""
    if calibration is not None:
        pipeline = Recalibrated(pipeline, "platt", calibration, definition.task)
    rows = feature_frame(frame.tail(40), definition.features)
    record = TrainingRecord(
        key=key, definition=definition, pipeline=pipeline,
        golden=(rows, predict_score(pipeline, rows, definition.task)), sample=rows,
        lineage={"trained_until": AT.isoformat(), "gate.verdict": "promote"}, parameters={}, metrics={},
        dataset={"digest": "d"},
    )  # fmt: skip
    version = register_training(workspace.registry, record)
    if golden_offset:  # somebody changes what it must answer; a version that answers otherwise is not registered
        (path,) = workspace.home.rglob(f"{version.run_id}/**/{GOLDEN_FILE}")
        golden = pd.read_parquet(path)
        golden.assign(_score=golden["_score"] + golden_offset).to_parquet(path)
    if promote:
        promote_version(workspace, definition.name, version.number)
    return version.number


def promote_version(workspace: Workspace, name: str, number: int) -> None:
    version = workspace.registry.version(name, number)
    now = datetime.now(UTC)
    workspace.registry.promote(version, action="promote", at=now, recorded_at=now, by="test", reason="it was better")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    workspace: Workspace, workers: int = 1, arguments: tuple[str, ...] = (), port: int | None = None, **environment: str
) -> Iterator[Any]:
    """`perennial serve` as a process: a client, with `.process` and `.port`."""
    port = port or free_port()
    settings = {
        "PERENNIAL_HOME": str(workspace.home), "PERENNIAL_MODELS": workspace.settings.models,
        "PERENNIAL_SERVING_SHIP_SECONDS": "1", "PERENNIAL_SERVING_REGISTRY_SECONDS": "1", **environment,
    }  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "perennial.cli",
        "serve",
        "--port",
        str(port),
        "--workers",
        str(workers),
        *arguments,
    ]
    log = workspace.home / "serve.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env={**os.environ, **settings}, cwd=ROOT, stdout=stream, stderr=stream)
    client: Any = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    client.process, client.port = process, port
    try:
        for _ in range(600):
            try:
                if client.get("/v2/health/live").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.05)
        yield client
    finally:
        client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the server did not stop: {log.read_text()[-3000:]}") from None


@contextmanager
def answering(workspace: Workspace, **settings: Any) -> Iterator[Any]:
    """The API in a thread of this process, on the wire as a worker serves it: a client, with `.port`.

    For what clients see; a worker takes two seconds of processor time to start. Settings are ServingSettings' fields.
    """
    service = Service(workspace, ServingSettings(**{"ship_seconds": 0.3, "poll_seconds": 0.05, **settings}))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(configured(service, most_connections=1000))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                client.get("/v2/health/live").raise_for_status()  # the socket's queue keeps it until the start is done
                made: Any = client
                made.port = port
                yield made
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server did not stop"


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until it is true; how long that may take is for a slow machine."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.05)


def counted(client: httpx.Client, name: str) -> float:
    """The sum of a metric's samples."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def worker_pids(process: subprocess.Popen[bytes]) -> list[int]:
    return _pids(process, "perennial.serving.processes.worker")


def shipper_pids(process: subprocess.Popen[bytes]) -> list[int]:
    return _pids(process, "perennial.serving.processes.shipping")


def shipper_pid(process: subprocess.Popen[bytes]) -> int:
    (pid,) = shipper_pids(process)
    return pid


def _pids(process: subprocess.Popen[bytes], module: str) -> list[int]:
    import psutil

    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if module in child.cmdline():
                found.append(child.pid)
    return found


def records(frame: pd.DataFrame, *columns: str) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    made: list[dict[str, Any]] = json.loads(frame[list(columns)].to_json(orient="records"))
    return made


def copy_home(source: Path, target: Path) -> Workspace:
    """A home of one's own with the same versions; manifests lead to the first one's artifacts."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("serving", "serve.log"))
    settings = Settings(home=target, models=str(target / "models"))
    bring_home(settings)
    return Workspace(settings)


class LocalClient:
    """The application in this process, behind httpx, with its lifespan; blocking calls.

    Use as a context manager; `service` and `app` are what runs.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.service = app.service

    def __enter__(self) -> LocalClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.service.start()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.service.stop()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._run(self._client.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._run(self._client.post(path, **options))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)
