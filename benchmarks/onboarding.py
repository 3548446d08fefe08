"""From a file to a served champion, without an editor: init, ingest, retrain and serve on three public tables.

    python benchmarks/onboarding.py [--wheels FOLDER]

Each command is a process of its own, as a person runs it; wall and CPU seconds of each, its children's included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from known.packages import Shelf

# Table, and what a person would say of it: no id and no time; a time and no id; many rows of a regression.
TABLES = {
    "penguins": ("palmerpenguins/penguins", ["--target", "sex"]),
    "emails": ("openintro/email", ["--target", "spam", "--label-delay", "1d"]),
    "diamonds": ("ggplot2/diamonds", ["--target", "price"]),
}
PROGRAM = [sys.executable, "-m", "perennial.cli"]


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def served(model: str) -> float:
    """Seconds from `perennial serve` to the first answer of the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    server = subprocess.Popen(
        [*PROGRAM, "serve", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - started < 120:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/models/{model}", timeout=5) as answer:
                    if json.loads(answer.read()):
                        return time.perf_counter() - started
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"{model} was not served within two minutes")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def main() -> None:
    """Run all three and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, default=Path.home() / ".cache" / "perennial-wheels")
    shelf = Shelf(parser.parse_args().wheels)
    print(f"{'table':10}{'rows':>8}{'init':>8}{'ingest':>8}{'retrain':>9}{'serve':>7}{'wall s':>8}{'CPU s':>7}")
    for name, (table, said) in TABLES.items():
        with tempfile.TemporaryDirectory(prefix="perennial-onboarding-") as place:
            folder = Path(place)
            for part in ("home", "models", "expectations"):
                (folder / part).mkdir()
                os.environ[f"PERENNIAL_{part.upper()}"] = str(folder / part)
            frame = shelf.table(table)
            frame.to_csv(folder / f"{name}.csv", index=False)
            steps = [["init", name, str(folder / f"{name}.csv"), *said, "--yes"], ["ingest", name], ["retrain", name]]
            found = [timed(step) for step in steps]
            answer = served(name)
            wall, cpu = sum(each[0] for each in found) + answer, sum(each[1] for each in found)
            seconds = "".join(f"{each[0]:{width}.0f}" for each, width in zip(found, (8, 8, 9), strict=True))
            print(f"{name:10}{len(frame):8,}{seconds}{answer:7.0f}{wall:8.0f}{cpu:7.0f}", flush=True)


if __name__ == "__main__":
    main()
