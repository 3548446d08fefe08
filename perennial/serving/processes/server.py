"""The serving processes: one that holds the socket and watches, workers that answer, one that ships. No route is here.

The watcher binds the address, starts the workers on that one socket and restarts those that die: what waits in the
socket's queue is answered by another. It loads no model, so that it can't die of one. At a stop it lets go of the
socket first, for the workers to close it (`draining`); the shipper ends last.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from perennial.errors import PerennialError, ServiceError, StorageError
from perennial.serving.processes.logs import log_as_json
from perennial.serving.settings import (
    METRICS_VARIABLE,
    PARENT_VARIABLE,
    SOCKET_VARIABLE,
    ServingSettings,
    Tokens,
    check_exposure,
)
from perennial.settings import Settings
from perennial.state.layout import require
from perennial.state.storage import is_remote
from perennial.surroundings import child_environment, python_command

LOG = logging.getLogger("perennial.serving")
READY_TEXT = "perennial api ready"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
_LAYOUT_SECONDS = 5.0
NOT_STARTED = 3  # a worker's exit code
STOP_SIGNAL = signal.SIGUSR1  # to a worker: all of them stop
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is ours alone, and made anew
_WORKER, _SHIPPER = "perennial.serving.processes.worker", "perennial.serving.processes.shipping"


def serve(host: str, port: int, settings: Settings, serving: ServingSettings) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then drain, flush and return.

    Raises:
        DefinitionError: The address needs tokens and there are none.
        ServiceError: The address can't be bound, or the home can't be written.
        ConflictError: Home or tables have another layout than this program's.
    """
    check_exposure(host, Tokens(serving.tokens))
    log_as_json(serving.log_level)
    _require_home(settings.home_path)
    _require_layout(settings)
    listener = _bind(host, port)
    metrics = _metrics_folder(settings.home_path, listener.getsockname()[1])
    watcher = _Watcher(listener, metrics, settings, serving)
    watcher.run()


def _require_home(home: Path) -> None:
    """Refuse a home that can never be written; one that is full at present may have room later."""
    try:
        (home / "serving").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home / "serving"):
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ServiceError(
                f"{home} can't be written: {error.strerror}", "Set PERENNIAL_HOME to a writable folder"
            ) from error


def _require_layout(settings: Settings) -> None:
    """Refuse another layout. Shared tables that are away keep nobody from answering: who ships will check them."""
    require(settings, tables=not is_remote(settings.tables_root))
    if not is_remote(settings.tables_root):
        return
    found: list[Exception] = []

    def look() -> None:
        try:
            require(settings)
        except PerennialError as error:
            found.append(error)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_LAYOUT_SECONDS)
    if looking.is_alive():
        found.append(StorageError(f"{settings.tables_root} did not answer within {_LAYOUT_SECONDS:g} s"))
    for error in found:
        if not isinstance(error, StorageError):
            raise error
        LOG.warning("the tables do not answer; serving without them", extra={"facts": {"reason": str(error)}})


def _metrics_folder(home: Path, port: int) -> Path:
    """An empty folder for the processes' numbers: in memory where there is such a file system.

    They are written through memory maps, and a worker that touches a new page of one on a full disk is killed.
    """
    name = f"perennial-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}-{port}"
    for folder in (_SHARED_MEMORY / name, home / "serving" / "metrics" / str(port)):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=folder.is_relative_to(home), mode=0o700)
        except OSError:
            continue
        return folder
    raise ServiceError(f"no folder for metrics can be made in {home}", "Set PERENNIAL_HOME to a writable folder")


class _Watcher:
    """Keeps the workers and the shipper alive."""

    def __init__(self, listener: socket.socket, metrics: Path, settings: Settings, serving: ServingSettings) -> None:
        self._listener, self._metrics, self._settings, self._serving = listener, metrics, settings, serving
        self._modules = [_WORKER] * serving.workers + [_SHIPPER]
        count = len(self._modules)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._deaths = [0] * count
        self._not_before = [0.0] * count
        self._started_at = [0.0] * count
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            while not self._stopping:
                for index in range(len(self._processes)):
                    self._attend(index)
                time.sleep(0.05)
        finally:
            self._end()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _attend(self, index: int) -> None:
        process, now = self._processes[index], time.monotonic()
        if process is None:
            if now >= self._not_before[index]:
                self._processes[index] = self._start(self._modules[index])
                self._started_at[index] = now
            return
        code = process.poll()
        if code is None:
            return
        self._mark_dead(process.pid)
        self._processes[index] = None
        if code == NOT_STARTED and self._serving.baked is not None:
            raise ServiceError(
                f"the versions in {self._serving.baked} can't be served; the log above says why",
                "Build the image anew: `perennial containerize`",
            )
        # One that lived for a while starts anew at once; one that can't live must not eat the machine.
        self._deaths[index] = 1 if now - self._started_at[index] > 30 else self._deaths[index] + 1
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self._deaths[index] - 1))
        self._not_before[index] = now + pause
        facts = {"process": self._modules[index], "pid": process.pid, "code": code, "restart_in_seconds": pause}
        LOG.error("a process died", extra={"facts": facts})

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        variables = {
            "PERENNIAL_HOME": str(self._settings.home_path),
            "OMP_NUM_THREADS": "1",  # OpenMP's spinning threads made one-row p99 a hundred times longer
            # Every thread's own pool of freed memory would double what a worker holds.
            "MALLOC_ARENA_MAX": "2",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            SOCKET_VARIABLE: str(descriptor),
            METRICS_VARIABLE: str(self._metrics),
            PARENT_VARIABLE: str(os.getpid()),
        }
        kept = [descriptor] if module == _WORKER else []
        return subprocess.Popen(  # noqa: S603
            python_command(module), env=child_environment(variables), pass_fds=kept, start_new_session=True
        )

    def _mark_dead(self, pid: int) -> None:
        """Its gauges end with it; its counts go on counting."""
        for path in self._metrics.glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        self._listener.close()
        patience_seconds = self._serving.linger_seconds + self._serving.drain_seconds + 15
        # The last worker's log is the shipper's last work.
        for module, number in ((_WORKER, STOP_SIGNAL), (_SHIPPER, signal.SIGTERM)):
            _stop_all(
                [process for process, runs in zip(self._processes, self._modules, strict=True)
                 if process is not None and runs == module and process.poll() is None],
                number, patience_seconds,
            )  # fmt: skip
        shutil.rmtree(self._metrics, ignore_errors=True)


def _stop_all(processes: list[subprocess.Popen[bytes]], number: int, patience_seconds: float) -> None:
    for process in processes:
        process.send_signal(number)
    deadline = time.monotonic() + patience_seconds
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # An answer that a client does not take must not be held for ever; connections inherit this.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, KEEP_ALIVE_SECONDS * 1000)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"{host}:{port} can't be bound: {error.strerror}", "Give another --port, or set PERENNIAL_API_PORT"
        ) from error
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener
