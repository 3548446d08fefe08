"""A lock holds off other processes, and dies with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.errors import ConflictError
from perennial.settings import PROJECT_ROOT
from perennial.state.files import exclusive

HOLD = """
import sys, time
from pathlib import Path
from perennial.state.files import exclusive
with exclusive(Path(sys.argv[1]), "m", wait_seconds=5, busy="busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.process
def test_a_lock_excludes_and_dies_with_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConflictError, match=r"m is being retrained. Wait for it to end, then try again"),
            exclusive(folder, "m", wait_seconds=0.1, busy="m is being retrained"),
        ):
            pass
        with exclusive(folder, "other", wait_seconds=0.1, busy="busy"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        with exclusive(folder, "m", wait_seconds=10, busy="busy"):
            pass


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive(tmp_path, "m", wait_seconds=0, busy="busy"):
            _ = 1 / 0
