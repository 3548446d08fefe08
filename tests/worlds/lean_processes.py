"""What makes this process and all that it starts cost less, set before anything is imported. No tests.

Models of tests are small: what more threads do there is wait for each other, all the harder the busier the machine. The
collector looks seldom. And nobody is asked by https: each client would read a hundred and more authorities first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from perennial.surroundings import collect_seldom

# An authority whose key was never kept.
_NOBODY = Path(__file__).with_name("nobody.pem")

for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
os.environ.setdefault("SSL_CERT_FILE", str(_NOBODY))

collect_seldom()


def trusting_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that fetches something by https."""
    return {name: value for name, value in environment.items() if value != str(_NOBODY)}
