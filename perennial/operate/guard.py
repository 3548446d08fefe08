"""Runs one command and ends its whole process tree when it, or its parent, goes. No knowledge of what it runs.

`python -m perennial.operate.guard GRACE_SECONDS COMMAND…`, with the parent's pipe as standard input. The pipe
closes however the parent ends, kill -9 included, and then the guard ends the tree: no thread of the
parent has to live for it, and it works on every Unix. On Linux the guard also adopts what its
descendants orphan, so that a double fork does not escape it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STRAGGLER_SECONDS = 2.0


class _Stop:
    """Whether somebody asked to end: a signal, or the closed pipe."""

    def __init__(self) -> None:
        self.requested = False
        self.read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        os.set_blocking(self.read_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._request)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

    def wait(self, seconds: float) -> None:
        """Sleep until a signal, a child's end, the parent's end or the time is up."""
        ready, _, _ = select.select([sys.stdin.fileno(), self.read_end], [], [], seconds)
        if self.read_end in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.read_end, 512)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 512):
            self.requested = True


def _linux_call() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_tree(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Ask the child, which ends its own children best; then end and at last kill what is left of the tree."""
    import psutil

    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    if child.poll() is None:
        child.kill()
        child.wait()
    seconds = _STRAGGLER_SECONDS
    while stragglers := psutil.Process().children(recursive=True):
        for process in stragglers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate() if seconds else process.kill()
        psutil.wait_procs(stragglers, timeout=seconds or _STRAGGLER_SECONDS)
        seconds = 0.0
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # where nobody adopts orphans, the group still holds them


def main(arguments: list[str]) -> int:
    """Run the command; its exit code, or 128 and the signal's number."""
    grace_seconds, command = float(arguments[0]), arguments[1:]
    stop = _Stop()
    libc = _linux_call()
    if libc:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def die_with_guard() -> None:
        if libc:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    try:
        child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_guard
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while child.poll() is None and not stop.requested:
        stop.wait(60)
    _end_tree(child, grace_seconds)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
