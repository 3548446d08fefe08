"""One thread for each process's sums, and a collector that looks seldom: set before anything is imported. No tests.

Models of tests are small: what more threads do there is wait for each other, all the harder the busier the machine.
"""

from __future__ import annotations

import os

from perennial.surroundings import collect_seldom

for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

collect_seldom()
