"""What short commands cost while `perennial up` runs, beside `python -c "import prefect"` in the same run.

    python benchmarks/commands.py [--weeks 16] [--times 3] [--home FOLDER] [--json FILE]

A home is made with weekly batches of the flights and a champion (benchmarks/history.py), and brought up on free ports.
Each command is a process of its own, as a person calls it; where `up` hands it to its warm process, what that process's
child used is added. Printed are CPU seconds (user and system, the median), their ratio to importing Prefect, and wall
seconds, which say little on a busy machine. `cold` is the same command with PYTHONNOUSERSITE set, which the warm
process refuses: it runs in its own process, as without it. What Prefect's and MLflow's servers use is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

WARM_LIMITS = {  # issue 13, in seconds
    "status": 1.0, "ledger": 1.0, "history": 1.0, "models": 1.0, "label": 2.5, "ingest, nothing new": 2.0,
    "score, two rows": 2.5, "check": 4.0,
}  # fmt: skip
COMMAND = [sys.executable, "-m", "perennial.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=16)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.home or Path(folder) / "home", Path(folder), options)
    print(f"{'':24} {'CPU s':>8} {'ratio':>8} {'wall s':>8} {'target':>8} {'cold CPU s':>11}")
    for name, row in found["commands"].items():
        target = f"{WARM_LIMITS[name]:8.1f}" if name in WARM_LIMITS else f"{'':8}"
        cold = f"{row['cold_cpu']:11.2f}" if "cold_cpu" in row else ""
        print(f"{name:24} {row['cpu']:8.2f} {row['ratio']:8.2f} {row['wall']:8.2f} {target} {cold}")
    print(f"memory of the warm process: {found['resident_mb']:.0f} MB resident, {found['unique_mb']:.0f} MB its own")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(home: Path, work: Path, options: Any) -> dict[str, Any]:
    """Make the home, bring it up, and time each command in it."""
    import history

    home.mkdir(parents=True, exist_ok=True)
    os.environ["PERENNIAL_HOME"] = str(home)
    from perennial.operate.servers import free_port
    from perennial.workspace import open_workspace

    for name in ("PREFECT", "MLFLOW", "API"):
        os.environ[f"PERENNIAL_{name}_PORT"] = str(free_port())
    workspace = open_workspace()
    definition = workspace.definition("flights")
    history.make_history(workspace, definition, options.weeks)
    as_of = history.START + options.weeks * history.WEEK
    if workspace.store.version("flights", "decisions") is None:
        history.make_ledger(workspace, definition, 100, as_of)
    rows = workspace.store.frame("flights", "batches").tail(2)
    scored, labelled = work / "two.csv", work / "labels.csv"
    columns = {"_id": definition.data.id, "_time": definition.data.time}
    rows.rename(columns=columns)[[*columns.values(), *definition.features.columns]].to_csv(scored, index=False)
    labels = workspace.store.frame("flights", "labels").tail(2)
    labels.rename(columns={"id": definition.data.id, "truth": definition.data.target})[
        [definition.data.id, definition.data.target]
    ].to_csv(labelled, index=False)
    moment = as_of.isoformat()
    commands = {
        "status": ["status"], "ledger": ["ledger", "flights"], "history": ["history", "flights"], "models": ["models"],
        "label": ["label", "flights", str(labelled), "--as-of", moment],
        "ingest, nothing new": ["ingest", "flights", "--as-of", (history.START + timedelta(hours=1)).isoformat()],
        "score, two rows": ["score", "flights", str(scored), str(work / "out.csv"), "--as-of", moment],
        "check": ["check", "flights", "--as-of", moment],
    }  # fmt: skip
    log = (work / "up.log").open("w")
    up = subprocess.Popen([*COMMAND, "up"], stdout=log, stderr=log)
    try:
        warm = _wait_until_warm(home, work / "up.log", up)
        baseline = _median([sys.executable, "-c", "import prefect"], None, options.times)
        found = {"import prefect": baseline | {"ratio": 1.0}}
        for name, arguments in commands.items():
            done = _median([*COMMAND, *arguments], warm, options.times)
            cold = _median([*COMMAND, *arguments], warm, 1, cold=True)
            found[name] = done | {"ratio": done["cpu"] / baseline["cpu"], "cold_cpu": cold["cpu"]}
        memory = warm.memory_full_info()
        return {"commands": found, "resident_mb": memory.rss / 2**20, "unique_mb": memory.uss / 2**20}
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()


def _wait_until_warm(home: Path, log: Path, up: subprocess.Popen[bytes]) -> psutil.Process:
    """The warm process, once all that `up` runs is ready."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if up.poll() is not None:
            raise SystemExit(f"perennial up ended: {log.read_text()}")
        if "perennial is up" in log.read_text() and (home / "commands.sock").exists():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(home / "commands.sock"))
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return psutil.Process(struct.unpack("3i", credentials)[0])
        time.sleep(0.5)
    raise SystemExit(f"perennial up was not ready in time: {log.read_text()}")


def _median(command: list[str], warm: psutil.Process | None, times: int, *, cold: bool = False) -> dict[str, float]:
    """Wall and CPU seconds of a command, its own and its child's of the warm process; the first run warms the files."""
    environment = os.environ | ({"PYTHONNOUSERSITE": "1"} if cold else {})
    walls, cpus = [], []
    for _ in range(times + 1):
        before, started = _cpu(warm), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
        walls.append(time.perf_counter() - started)
        cpus.append(_cpu(warm) - before)
    return {"cpu": statistics.median(cpus[1:]), "wall": statistics.median(walls[1:])}


def _cpu(warm: psutil.Process | None) -> float:
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own.ru_utime + own.ru_stime
    if warm is not None:
        times = warm.cpu_times()
        used += times.user + times.system + times.children_user + times.children_system
    return used


if __name__ == "__main__":
    main()
