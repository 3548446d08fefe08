"""Tests of Prefect's command whose collector freezes nothing: a busy connection's cursor freed, in a real process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import prefect
import pytest

from perennial.operate.prefect.process import Statements, collect_between
from perennial.operate.servers import prefect_service
from perennial.settings import Settings

# A cursor in a cycle, whose connection waits in its thread for a lock that this one's loop would let go soon.
FREEZE = """
import asyncio, gc, sqlite3, sys, threading
import aiosqlite, aiosqlite.core
from perennial.operate.prefect.process import Statements, collect_between

async def main(path, seconds, how):
    gc.disable()
    statements = Statements()
    aiosqlite.core._connection_worker_thread = statements.watched(aiosqlite.core._connection_worker_thread)
    async with (
        aiosqlite.connect(path, isolation_level=None) as holder,
        aiosqlite.connect(path, isolation_level=None, timeout=seconds) as waiter,
    ):
        await holder.execute("create table t (x)")
        garbage = [await waiter.execute("select 1")]
        garbage.append(garbage)
        await waiter.commit()  # the thread remembers its last result
        await holder.execute("begin immediate")
        waiting = asyncio.create_task(waiter.execute("insert into t values (1)"))
        while not statements.at_work:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        del garbage
        collecting = threading.Thread(target=collect_between, args=[statements])
        gc.collect() if how == "at once" else collecting.start()
        await asyncio.sleep(0.3)
        await holder.execute("commit")
        try:
            await waiting
            print("written")
        except sqlite3.OperationalError as error:
            print(error)
        if how == "between":
            await asyncio.to_thread(collecting.join)

asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("how", "seconds", "told"), [("at once", "3", "database is locked"), ("between", "60", "written")]
)
def test_a_collection_waits_for_connections_that_wait(tmp_path: Path, how: str, seconds: str, told: str) -> None:
    """The first is why: when a Python has that no more, the module can go."""
    done = subprocess.run(
        [sys.executable, "-c", FREEZE, str(tmp_path / "x.db"), seconds, how], capture_output=True, text=True, timeout=90
    )
    assert (done.stdout.strip(), done.stderr) == (told, "")


# What Prefect would be: it leaves a cycle behind, and looks whether that is ever collected.
LEFT_BEHIND = """
import gc, runpy, time, weakref
from perennial.operate.prefect import process

class Left:
    pass

def run(*_, **__):
    assert not gc.isenabled()
    for _ in range(2):  # before what is there to stay is known, and after
        left = Left()
        left.itself, seen = left, weakref.ref(left)
        del left
        deadline = time.monotonic() + 60
        while seen() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        print(seen())

process.START_SECONDS = process.LONGEST_SECONDS = process._LOOK_SECONDS = 0.1
runpy.run_module = run
process.main()
"""


@pytest.mark.process
def test_what_the_server_leaves_behind_is_collected() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, timeout=150)
    assert (done.stdout, done.stderr) == ("None\nNone\n", "")


def test_who_is_at_work_is_known() -> None:
    statements, queue, begun, go_on = Statements(), SimpleQueue[Any](), threading.Event(), threading.Event()

    def work(items: Any) -> None:
        while items.get():
            begun.set()
            go_on.wait(60)

    thread = threading.Thread(target=statements.watched(work), args=[queue])
    thread.start()
    queue.put(True)
    assert begun.wait(60)
    assert statements.at_work == {thread.ident}
    go_on.set()
    collect_between(statements)
    queue.put(False)
    thread.join(60)
    assert statements.at_work == set()


@pytest.mark.process
def test_the_servers_command_is_prefects(tmp_path: Path) -> None:
    service = prefect_service(Settings(home=tmp_path))
    python = service.command[: service.command.index("server")]
    done = subprocess.run([*python, "--version"], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == prefect.__version__, done.stderr
