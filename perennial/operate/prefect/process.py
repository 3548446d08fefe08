"""`python -m perennial.operate.prefect.process ARGUMENT…`: Prefect's own command, whose garbage is collected seldom.

On SQLite, Prefect's server shares connections between the thread of its loop and threads that wait for a lock, up to
60 s each. A collection in the loop's thread that frees a cursor of such a connection waits for that thread, and the
whole server with it, the transaction included that holds the lock. The rarer a collection, the rarer this is.
"""

from __future__ import annotations

import gc
import runpy
import sys

# Python's own is 700: a server that works collects several times a second.
ALLOCATIONS = 100_000


def main() -> None:
    gc.set_threshold(ALLOCATIONS)
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
