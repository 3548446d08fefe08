"""What makes this process and all that it starts cost less, set before anything is imported. No tests.

Models of tests are small: what more threads do there is wait for each other, all the harder the busier the machine. The
collector looks seldom. And nobody is asked by https: each client would read a hundred and more authorities first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from perennial.surroundings import collect_seldom

# An authority whose key was never kept; and where the machine's own are, if it says so.
_NOBODY = str(Path(__file__).with_name("nobody.pem"))
_AUTHORITIES, _MACHINES = "SSL_CERT_FILE", "TESTS_MACHINES_SSL_CERT_FILE"

for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
if os.environ.get(_AUTHORITIES) != _NOBODY:
    os.environ[_MACHINES] = os.environ.get(_AUTHORITIES, "")
    os.environ[_AUTHORITIES] = _NOBODY

collect_seldom()


def trusting_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that fetches something by https."""
    mine = {name: value for name, value in environment.items() if name not in (_AUTHORITIES, _MACHINES)}
    machines = environment.get(_MACHINES, "")
    return mine | ({_AUTHORITIES: machines} if machines else {})
