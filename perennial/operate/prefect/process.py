"""`python -m perennial.operate.prefect.process ARGUMENT…`: Prefect's command, with a collector that freezes nothing.

On SQLite, the threads of Prefect's server wait for the database's lock up to 60 s, each with its connection's mutex. A
collection that frees a cursor of such a connection waits for the mutex, and keeps the interpreter from the rest of the
server meanwhile, the transaction included that has the lock. So garbage is collected between statements only.
"""

from __future__ import annotations

import gc
import runpy
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from perennial.surroundings import end_uncollected

# What the server has imported and made by then is there to stay: no later collection looks at it again.
START_SECONDS = 30.0
LONGEST_SECONDS = 30.0
_LOOK_SECONDS, _SOON_SECONDS = 1.0, 0.005
_MANY_ALLOCATIONS = 50_000


class Statements:
    """Which of aiosqlite's threads are at work, by what they take from their queues."""

    def __init__(self) -> None:
        self.at_work: set[int] = set()

    def watched(self, work: Callable[[Any], None]) -> Callable[[Any], None]:
        """The body of aiosqlite's threads, as its own, from a queue that tells when it is asked and when it answers."""

        def watched_work(queue: Any) -> None:
            try:
                work(_Telling(queue, self.at_work, threading.get_ident()))
            finally:
                self.at_work.discard(threading.get_ident())

        return watched_work


class _Telling:
    def __init__(self, queue: Any, at_work: set[int], thread: int) -> None:
        self._queue, self._at_work, self._thread = queue, at_work, thread

    def get(self) -> Any:
        self._at_work.discard(self._thread)
        found = self._queue.get()
        self._at_work.add(self._thread)
        return found


def collect_between(statements: Statements) -> None:
    """Collect once, at a moment when no connection is at work.

    None begins while this thread has the interpreter: it would have to be taken from it right between the two lines.
    """
    while statements.at_work:
        time.sleep(_SOON_SECONDS)
    gc.collect()


def _keep_collecting(statements: Statements) -> None:
    time.sleep(START_SECONDS)
    collect_between(statements)
    gc.freeze()
    last = time.monotonic()
    while True:
        time.sleep(_LOOK_SECONDS)
        if gc.get_count()[0] > _MANY_ALLOCATIONS or time.monotonic() - last > LONGEST_SECONDS:
            collect_between(statements)
            last = time.monotonic()


def main() -> None:
    """Run Prefect's command in this process."""
    import aiosqlite.core

    gc.disable()
    end_uncollected()
    statements = Statements()
    aiosqlite.core._connection_worker_thread = statements.watched(aiosqlite.core._connection_worker_thread)  # type: ignore[assignment]
    threading.Thread(target=_keep_collecting, args=[statements], name="collector", daemon=True).start()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
