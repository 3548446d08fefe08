"""Throughput and latency of the API beside `mlflow models serve`, BentoML and the bare framework; swaps; memory.

    python benchmarks/serving.py [--seconds 5] [--stacks constant,perennial,mlflow,bentoml] [--model digits]
        [--before CHECKOUT] [--connections 1,32,256] [--quick] [--json FILE]

The model is the flights demo's: HistGradientBoosting with native categoricals and missing values, fitted here on
three months; or with `--model digits` one of ten classes, 500 trees (`homes/served.py`). All stacks run with one
process each on loopback, one after another, loaded by a second process over kept-alive connections; the API's
prediction log is on. `constant` is FastAPI answering a constant, `constant_asgi` the bare server (uvicorn, as ours)
answering one.

BentoML (with adaptive batching) wants other versions of our libraries, so it lives in an environment of its own beside
the checkout's, and is left out, saying so, where there is none:

    python -m venv .venv-bentoml
    .venv-bentoml/bin/pip install bentoml scikit-learn==1.9.* pandas==3.0.* skops pillow

`--before` names another checkout of ours, which is measured as the stack `before` in the same run. `hundred_rows_v2`
are the hundred rows as binary tensors of the Open Inference Protocol, which ours alone take. `--quick` leaves out what
the log and swaps cost. Beside throughput stands the CPU that a stack's processes took for a request: on a machine that
others use too, it is that which tells two stacks apart.

`--bentoml-python` names another one. JSON: STACK.WORKLOAD.CONNECTIONS.{rps,p50_ms,p99_ms,cpu_ms,errors}; beside the
workloads, each stack's ready_seconds, largest_process_mb and all_processes_pss_mb; beside the stacks, `logging`,
`swaps` and `skipped`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from homes.served import SUBJECTS, make_home, promote

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = (1, 32, 256)
WORKLOADS = {"single_row": 1, "hundred_rows": 100}
BINARY = "hundred_rows_v2"
OURS = ("before", "perennial", "perennial_unlogged")


# The load: this file again, as a process of its own.


class _Connection(asyncio.Protocol):
    """One kept-alive connection that asks again as soon as it is answered, until the end."""

    def __init__(self, request: bytes, results: list[tuple[float, int]], end: float) -> None:
        self.request, self.results, self.end = request, results, end
        self.buffer = b""
        self.need = -1
        self.status = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.buffer, self.need = b"", -1
        self.started = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.need < 0:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lower = self.buffer[:head].lower()
            self.status = int(lower[9:12])
            at = lower.find(b"content-length:")
            self.need = head + 4 + int(lower[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < self.need:
            return
        now = time.perf_counter()
        self.results.append((now - self.started, self.status))
        if now < self.end:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None or self.end > time.perf_counter():
            self.results.append((0.0, 0))
        if not self.done.done():
            self.done.set_result(None)


def load(
    port: int, path: str, body: bytes, connections: int, seconds: float, json_bytes: int = 0
) -> dict[str, float]:  # fmt: skip
    """Keep so many connections busy; what came of it. Of a body with tensors so many bytes are JSON."""
    kind = (
        f"application/octet-stream\r\nInference-Header-Content-Length: {json_bytes}"
        if json_bytes
        else "application/json"
    )
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""])
    request = head.encode() + body
    results: list[tuple[float, int]] = []

    async def run() -> float:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        made = [
            await loop.create_connection(lambda: _Connection(request, results, started + seconds), "127.0.0.1", port)
            for _ in range(connections)
        ]
        await asyncio.wait([protocol.done for _, protocol in made], timeout=seconds + 60)
        return time.perf_counter() - started

    import uvloop

    took = uvloop.run(run())
    good = np.array([latency for latency, status in results if status == 200]) * 1000
    if not len(good):
        return {"rps": 0.0, "answered": 0, "p50_ms": float("nan"), "p99_ms": float("nan"), "errors": len(results)}
    return {
        "rps": len(good) / took,
        "answered": len(good),
        "p50_ms": float(np.quantile(good, 0.5)),
        "p99_ms": float(np.quantile(good, 0.99)),
        "errors": len(results) - len(good),
    }


def loaded(
    port: int, path: str, body: bytes, connections: int, seconds: float, json_bytes: int = 0
) -> dict[str, float]:  # fmt: skip
    """`load` in a second process."""
    command = [sys.executable, __file__, "--load", str(port), path, str(connections), str(seconds), str(json_bytes)]
    done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=seconds + 120)
    result: dict[str, float] = json.loads(done.stdout)
    return result


# The stacks


def cpu_seconds(pid: int) -> float:
    """What a process and its children have used so far."""
    root = psutil.Process(pid)
    return sum(sum(item.cpu_times()[:2]) for item in (root, *root.children(recursive=True)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], port: int, health: str, environment: dict[str, str], log: Path, root: Path = ROOT
) -> Iterator[dict[str, float]]:
    """A server while the body runs; how long it took to be ready, and its memory at the end."""
    facts: dict[str, float] = {}
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=stream, stderr=stream, start_new_session=True, cwd=root
        )
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=1) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                pass
            if process.poll() is not None or time.perf_counter() - started > 120:
                raise SystemExit(f"{command[:4]} did not start; see {log}\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        facts["ready_seconds"] = time.perf_counter() - started
        facts["pid"] = process.pid
        yield facts
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        memory = [psutil.Process(pid).memory_full_info() for pid in family]
        facts["largest_process_mb"] = max(item.rss for item in memory) / 1e6
        facts["all_processes_pss_mb"] = sum(item.pss for item in memory) / 1e6
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


CONSTANT_ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    body = b'{"predictions":[0.5]}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
CONSTANT = """
from fastapi import FastAPI, Request
app = FastAPI()
@app.post("/invocations")
async def constant(request: Request):
    await request.body()
    return {"predictions": [0.5]}
@app.get("/health")
async def health():
    return {}
"""
# Rows as a list of objects: with a DataFrame, BentoML 1.4's batching takes its shape for its size, and hangs.
BENTO = """
import os, sys
sys.path.insert(0, os.environ["ROOT"])
from typing import Any, Dict, List
import bentoml, pandas as pd, skops.io
from perennial.transformers import TRUSTED_TYPES

@bentoml.service(workers=1, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Flights:
    def __init__(self):
        self.model = skops.io.load(os.environ["MODEL"], trusted=list(TRUSTED_TYPES))

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=1000, max_latency_ms=60_000, route="/invocations")
    def invocations(self, rows: List[Dict[str, Any]]) -> List[Any]:
        frame = pd.DataFrame(rows)
        numeric = os.environ["NUMERIC"].split(",")
        frame[numeric] = frame[numeric].astype("float64")
        return self.model.predict_proba(frame).tolist()
"""


def bentoml_python(given: str | None) -> tuple[str | None, str]:
    """The Python of an environment with BentoML; else why there is none."""
    beside = ROOT / ".venv-bentoml" / "bin" / "python"
    for path in (given, str(beside) if beside.exists() else None, sys.executable):
        if path is None:
            continue
        found = subprocess.run([path, "-c", "import bentoml, skops"], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return path, ""
        if path == given:
            raise SystemExit(f"--bentoml-python {given} can't import bentoml and skops: {found.stderr[-300:]}")
    return None, f"BentoML is not installed: see {Path(__file__).name} --help for the two commands"


def command_of(
    stack: str, port: int, folder: Path, model: Path, options: argparse.Namespace
) -> tuple[list[str], str, dict[str, str]]:
    """How a stack is started: command, health path, environment."""
    quiet = {"OMP_NUM_THREADS": "1"}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if stack in OURS:
        other = {"PYTHONPATH": str(options.before)} if stack == "before" else {}
        return [sys.executable, "-m", "perennial.cli", "serve", "--port", str(port)], "/v2/health/ready", other
    if stack.startswith("constant"):
        (folder / f"{stack}.py").write_text(CONSTANT if stack == "constant" else CONSTANT_ASGI)
        return [
            sys.executable, "-m", "uvicorn", f"{stack}:app", "--app-dir", str(folder), "--port", str(port),
            "--no-access-log", "--loop", "uvloop", "--http", "httptools",
        ], "/health", quiet  # fmt: skip
    if stack == "mlflow":
        return [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port), "--env-manager",
            "local", "--workers", "1",
        ], "/health", {**quiet, "PYTHONPATH": str(ROOT), "PATH": path}  # fmt: skip
    (folder / "bento.py").write_text(BENTO)
    environment = {
        **quiet, "MODEL": str(model / "model.skops"), "ROOT": str(ROOT), "NUMERIC": ",".join(options.numeric),
        "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bentoml"),
    }  # fmt: skip
    return [
        options.bentoml_python, "-m", "bentoml", "serve", "bento:Flights", "--port", str(port), "--working-dir",
        str(folder), "--host", "127.0.0.1",
    ], "/readyz", environment  # fmt: skip


def bodies_of(stack: str, rows: Any) -> dict[str, bytes]:
    """The request bodies of a stack, by workload."""
    made = {}
    for name, count in WORKLOADS.items():
        records = json.loads(rows.head(count).to_json(orient="records"))
        form = {"rows": records} if stack == "bentoml" else {"dataframe_records": records}
        made[name] = json.dumps(form).encode()
    return made


def tensors_of(rows: Any) -> tuple[bytes, int]:
    """A v2 request of binary tensors, and how many bytes of it are JSON."""
    inputs, parts = [], []
    for name in rows.columns:
        numeric = rows[name].dtype == "float64"
        if numeric:
            data = rows[name].to_numpy().tobytes()
        else:
            texts = [text.encode() for text in rows[name].fillna("")]
            data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        parts.append(data)
        inputs.append({"name": name, "datatype": "FP64" if numeric else "BYTES", "shape": [len(rows)],
                       "parameters": {"binary_data_size": len(data)}})  # fmt: skip
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("probability", "id")]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return b"".join([head, *parts]), len(head)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All stacks, one after another."""
    from perennial.workspace import open_workspace

    results: dict[str, Any] = {}
    stacks = options.stacks.split(",")
    if "bentoml" in stacks:
        options.bentoml_python, reason = bentoml_python(options.bentoml_python)
        if reason:
            print(f"bentoml       skipped: {reason}", flush=True)
            results["skipped"] = {"bentoml": reason}
            stacks.remove("bentoml")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = make_home(folder / "home", subject=options.model)
        registry = open_workspace().registry
        options.numeric = open_workspace().definition(options.model).features.numeric
        model = registry.artifacts(registry.version(options.model, 1))
        for stack in stacks:
            port = free_port()
            command, health, environment = command_of(stack, port, folder, model, options)
            root = options.before if stack == "before" else ROOT
            with running(command, port, health, environment, folder / f"{stack}.log", root) as facts:
                asked = {name: ("/invocations", body, 0) for name, body in bodies_of(stack, rows).items()}
                if stack in OURS:
                    asked[BINARY] = (f"/v2/models/{options.model}/infer", *tensors_of(rows.head(100)))
                results[stack] = {workload: {} for workload in asked}
                for workload, (path, body, json_bytes) in asked.items():
                    loaded(port, path, body, 1, 1.0, json_bytes)
                    for connections in map(int, options.connections.split(",")):
                        before = cpu_seconds(int(facts["pid"]))
                        found = loaded(port, path, body, connections, options.seconds, json_bytes)
                        spent = cpu_seconds(int(facts["pid"])) - before
                        found["cpu_ms"] = spent * 1000 / max(1.0, found["answered"])
                        results[stack][workload][str(connections)] = found
                        print(
                            f"{stack:13} {workload:15} {connections:4} connections: {found['rps']:8.0f} requests/s, "
                            f"p50 {found['p50_ms']:8.2f} ms, p99 {found['p99_ms']:8.2f} ms, "
                            f"CPU {found['cpu_ms']:7.3f} ms, {found['errors']} errors",
                            flush=True,
                        )
            results[stack] |= facts
            print(
                f"{stack:13} ready in {facts['ready_seconds']:.1f} s, "
                f"largest process {facts['largest_process_mb']:.0f} MB, "
                f"all {facts['all_processes_pss_mb']:.0f} MB (PSS)"
            )
        if "perennial" in stacks and not options.quick:
            body = bodies_of("perennial", rows)["single_row"]
            results["logging"] = logging_cost(folder, body, options)
            results["swaps"] = swaps(folder, body, options)
    return results


def logging_cost(folder: Path, body: bytes, options: argparse.Namespace) -> dict[str, float]:
    """Requests per second with the log on and off, in turns."""
    models = folder / "unlogged"
    models.mkdir()
    SUBJECTS[options.model].files(models)
    definition = models / f"{options.model}.yaml"
    definition.write_text(definition.read_text() + "\nserving: {log_share: 0.0}\n")
    found: dict[str, list[float]] = {"on": [], "off": []}
    ports = {"on": free_port(), "off": free_port()}
    command = {name: command_of("perennial", port, folder, folder, options) for name, port in ports.items()}
    with (
        running(command["on"][0], ports["on"], "/v2/health/ready", {}, folder / "on.log"),
        running(
            command["off"][0], ports["off"], "/v2/health/ready", {"PERENNIAL_MODELS": str(models)}, folder / "off.log"
        ),
    ):
        for _ in range(4):
            for name, port in ports.items():
                found[name].append(loaded(port, "/invocations", body, 32, max(1.0, options.seconds / 2))["rps"])
    on, off = float(np.median(found["on"])), float(np.median(found["off"]))
    print(f"logging on {on:.0f}, off {off:.0f} requests/s: it costs {1 - on / off:.1%}")
    return {"on_rps": on, "off_rps": off, "cost": 1 - on / off}


def swaps(folder: Path, body: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """32 connections without and with a promotion every second, three versions in turn."""
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    manifests = []
    for number in (2, 3, 1):
        promote(workspace, options.model, number)
        manifests.append((workspace.home / "live" / f"{options.model}.json").read_text())
    live = workspace.home / "live" / f"{options.model}.json"
    port = free_port()
    command, health, environment = command_of("perennial", port, folder, folder, options)
    seconds = max(6.0, options.seconds)
    with running(command, port, health, environment, folder / "swaps.log"):
        calm = loaded(port, "/invocations", body, 32, seconds)
        arguments = [sys.executable, __file__, "--load", str(port), "/invocations", "32", str(seconds)]
        client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdin
        client.stdin.write(body)
        client.stdin.close()
        count = 0
        while client.poll() is None:
            # What a promotion writes for the API, without its other work, which is another process's.
            staged = live.with_suffix(".tmp")
            staged.write_text(manifests[count % 3])
            staged.replace(live)
            count += 1
            time.sleep(1)
        assert client.stdout
        swapping = json.loads(client.stdout.read())
    print(
        f"swap every second ({count}): p99 {swapping['p99_ms']:.2f} ms beside {calm['p99_ms']:.2f} ms calm, "
        f"{swapping['errors']} errors, {swapping['rps']:.0f} beside {calm['rps']:.0f} requests/s"
    )
    return {"calm": calm, "swapping": swapping, "swaps": count, "p99_ratio": swapping["p99_ms"] / calm["p99_ms"]}


def report(results: dict[str, Any]) -> None:
    """The ratios that matter."""
    for workload, name in (("single_row", "single rows"), ("hundred_rows", "a hundred rows"), (BINARY, "as tensors")):
        ours = results.get("perennial", {}).get(workload, {}).get("32")
        if not ours:
            continue
        for stack in ("before", "mlflow", "bentoml", "constant", "constant_asgi"):
            found = results.get(stack, {})
            other = found.get(workload, found.get("hundred_rows", {})).get("32")
            if other and other["rps"]:
                print(
                    f"{name}, 32 connections: {ours['rps'] / other['rps']:.2f} × {stack}'s throughput, "
                    f"p99 {ours['p99_ms']:.1f} ms beside {other['p99_ms']:.1f} ms, "
                    f"{other['cpu_ms'] / ours['cpu_ms']:.2f} × as much CPU there"
                )


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--load":
        port, path, connections, seconds, *more = sys.argv[2:]
        body = sys.stdin.buffer.read()
        print(json.dumps(load(int(port), path, body, int(connections), float(seconds), *map(int, more))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="Of load for each figure.")
    parser.add_argument("--model", choices=list(SUBJECTS), default="flights")
    parser.add_argument("--stacks", default="constant_asgi,constant,perennial,mlflow,bentoml")
    parser.add_argument("--bentoml-python", help="Of an environment with bentoml; default: .venv-bentoml/bin/python.")
    parser.add_argument("--before", type=Path, help="Another checkout of ours to measure as well.")
    parser.add_argument("--connections", default=",".join(map(str, CONNECTIONS)))
    parser.add_argument("--quick", action="store_true", help="Without what the log and swaps cost.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.before:
        options.before = options.before.resolve()
        options.stacks = f"before,{options.stacks}"
    results = measure(options)
    report(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
