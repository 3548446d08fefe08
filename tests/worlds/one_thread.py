"""One thread for each process's sums, set before the libraries that read it are imported. No tests.

Models of tests are small: what more threads do there is wait for each other, all the harder the busier the machine.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
