"""What many models cost where nothing happens to them: definitions read, manifests watched, deployments registered.

    python benchmarks/fleet.py [--models 1000] [--deployed 20] [--minutes 1] [--json FILE]

The models are the flights demo's under other names. Printed are CPU milliseconds: for reading all definitions; for one
look of the serving API at all manifests when none changed; for registering one model on a Prefect server the first
time and again, in this process and in the server; and the server's CPU share with those models' schedules and nobody
asking, beside its share before.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--deployed", type=int, default=20, help="0 leaves Prefect out")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    for name, value in found.items():
        print(f"{name:52} {value:12,.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(folder: Path, options: Any) -> dict[str, float]:
    """All of it."""
    models = folder / "models"
    models.mkdir()
    _write(models, options.models)
    os.environ |= {"PERENNIAL_HOME": str(folder / "home"), "PERENNIAL_MODELS": str(models)}
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    (definitions, reading) = _cpu(workspace.definitions)
    found = {
        "models": float(options.models),
        "read all definitions, CPU ms": reading,
        "look at all manifests, CPU ms": _watching(workspace, definitions),
    }
    return found | (_deploying(workspace, definitions, options) if options.deployed else {})


def _write(models: Path, count: int) -> None:
    from perennial.settings import PROJECT_ROOT

    source = PROJECT_ROOT / "deployments"
    text = (source / "flights.yaml").read_text()
    for number in range(count):
        (models / f"flights-{number:05}.yaml").write_text(text.replace("name: flights", f"name: flights-{number:05}"))
    (models / "flights_source.py").write_text((source / "flights_source.py").read_text())


def _cpu(action: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = action()
    return result, (time.process_time() - started) * 1000


def _watching(workspace: Any, definitions: Any) -> float:
    """One look at manifests that were all followed before; the models' own loading is left out."""
    from perennial.serving.versions import host

    live = workspace.home / "live"
    live.mkdir(parents=True)
    for name in definitions:
        (live / f"{name}.json").write_text(json.dumps({"model": name, "version": 1, "digest": "x"}))

    class Watching(host.Host):
        def _follow(self, model: str, manifest: Any, watch: Any) -> None:
            """Nothing is loaded."""

    watching = Watching(workspace)
    watching.look()
    return min(_cpu(watching.look)[1] for _ in range(5))


def _deploying(workspace: Any, definitions: Any, options: Any) -> dict[str, float]:
    from perennial.operate.servers import prefect_server

    some = dict(list(definitions.items())[: options.deployed])
    with prefect_server(workspace.settings, scheduler=True):
        from deployments.register import register

        register({})
        idle = _server_share(options.minutes)
        first, again = (_registering(lambda: register(some), len(some)) for _ in range(2))
        busy = _server_share(options.minutes)
    return {
        "models deployed": float(len(some)),
        "deploy one model, CPU ms here": first[0],
        "deploy one model, CPU ms in the server": first[1],
        "deploy one unchanged model, CPU ms here": again[0],
        "deploy one unchanged model, CPU ms in the server": again[1],
        "server without models, % of a core": idle,
        "server with them, % of a core": busy,
    }


def _registering(action: Callable[[], Any], models: int) -> tuple[float, float]:
    before = _server_cpu()
    _, here = _cpu(action)
    return here / models, (_server_cpu() - before) * 1000 / models


def _server_share(minutes: float) -> float:
    started, before = time.monotonic(), _server_cpu()
    time.sleep(60 * minutes)
    return 100 * (_server_cpu() - before) / (time.monotonic() - started)


def _server_cpu() -> float:
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(item.user + item.system for item in times)


if __name__ == "__main__":
    main()
