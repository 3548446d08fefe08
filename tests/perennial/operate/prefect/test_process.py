"""Tests of Prefect's command with a collector that runs seldom: what a freeing of a busy connection's cursor costs."""

from __future__ import annotations

import gc
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect
import pytest

from perennial.operate.prefect import process
from perennial.operate.servers import prefect_service
from perennial.settings import Settings

# A cursor in a cycle, whose connection waits in another thread for a lock that this thread would let go soon.
FREEZE = """
import gc, sqlite3, sys, threading, time

gc.disable()
path = sys.argv[1]
holder = sqlite3.connect(path, isolation_level=None)
holder.execute("create table t (x)")
waiter = sqlite3.connect(path, isolation_level=None, timeout=float(sys.argv[2]), check_same_thread=False)
garbage = [waiter.execute("select 1")]
garbage.append(garbage)
holder.execute("begin immediate")
failed = []

def wait():
    try:
        waiter.execute("insert into t values (1)")
    except sqlite3.OperationalError as error:
        failed.append(str(error))

thread = threading.Thread(target=wait)
thread.start()
time.sleep(0.3)
del garbage
if sys.argv[3] == "collect":
    gc.collect()
holder.execute("commit")
thread.join()
print(failed)
"""


@pytest.mark.process
@pytest.mark.parametrize(("how", "told"), [("collect", "['database is locked']"), ("wait", "[]")])
def test_why_collections_are_rare(tmp_path: Path, how: str, told: str) -> None:
    """What it is for: when a Python has this no more, the module can go."""
    done = subprocess.run(
        [sys.executable, "-c", FREEZE, str(tmp_path / "x.db"), "3", how], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == (told, "")


def test_prefect_runs_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(runpy, "run_module", lambda *given, **named: found.append((given, named, gc.get_threshold())))
    monkeypatch.setattr(sys, "argv", ["x", "server", "start"])
    before = gc.get_threshold()
    try:
        process.main()
    finally:
        gc.set_threshold(*before)
    ((given, _, threshold),) = found
    assert (given, threshold[0]) == (("prefect",), process.ALLOCATIONS)
    assert sys.argv[1:] == ["server", "start"]


@pytest.mark.process
def test_the_servers_command_is_prefects(tmp_path: Path) -> None:
    service = prefect_service(Settings(home=tmp_path))
    python = service.command[: service.command.index("server")]
    done = subprocess.run([*python, "--version"], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == prefect.__version__, done.stderr
