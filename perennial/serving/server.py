"""The serving processes: one that holds the socket and watches, and workers that answer. No route is here.

The watcher binds the address, starts the workers on that one socket and restarts those that die: what waits in the
socket's queue is answered by another. It loads no model, so that it can't die of one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from perennial.errors import ServiceError
from perennial.serving.settings import ServingSettings, Tokens, check_exposure, load_serving_settings
from perennial.settings import PROJECT_ROOT, Settings, load_settings

LOG = logging.getLogger("perennial.serving")
READY_TEXT = "perennial api ready"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_BACKLOG = 2048
_SOCKET, _METRICS, _PARENT = "PERENNIAL_SERVING_SOCKET", "PROMETHEUS_MULTIPROC_DIR", "PERENNIAL_SERVING_PARENT"


def serve(host: str, port: int, settings: Settings, serving: ServingSettings) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then drain, flush and return.

    Raises:
        DefinitionError: The address needs tokens and there are none.
        ServiceError: The address can't be bound.
    """
    check_exposure(host, Tokens(serving.tokens))
    log_as_json()
    listener = _bind(host, port)
    metrics = settings.home_path / "serving" / "metrics" / str(listener.getsockname()[1])
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    watcher = _Watcher(listener, metrics, settings, serving)
    watcher.run()


class _Watcher:
    """Keeps the workers alive."""

    def __init__(self, listener: socket.socket, metrics: Path, settings: Settings, serving: ServingSettings) -> None:
        self._listener, self._metrics, self._settings, self._serving = listener, metrics, settings, serving
        self._workers: list[subprocess.Popen[bytes] | None] = [None] * serving.workers
        self._deaths = [0] * serving.workers
        self._not_before = [0.0] * serving.workers
        self._started_at = [0.0] * serving.workers
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        try:
            while not self._stopping:
                for index in range(len(self._workers)):
                    self._attend(index)
                time.sleep(0.05)
        finally:
            self._end()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _attend(self, index: int) -> None:
        worker, now = self._workers[index], time.monotonic()
        if worker is None:
            if now >= self._not_before[index]:
                self._workers[index] = self._start()
                self._started_at[index] = now
            return
        code = worker.poll()
        if code is None:
            return
        self._mark_dead(worker.pid)
        self._workers[index] = None
        # One that lived for a while starts anew at once; one that can't live must not eat the machine.
        self._deaths[index] = 1 if now - self._started_at[index] > 30 else self._deaths[index] + 1
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (self._deaths[index] - 1))
        self._not_before[index] = now + pause
        LOG.error("worker died", extra={"facts": {"pid": worker.pid, "code": code, "restart_in_seconds": pause}})

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        environment = {
            **os.environ,
            "PERENNIAL_HOME": str(self._settings.home_path),
            "OMP_NUM_THREADS": "1",  # OpenMP's spinning threads made one-row p99 a hundred times longer
            # Every thread's own pool of freed memory would double what a worker holds.
            "MALLOC_ARENA_MAX": "2",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "PYTHONPATH": os.pathsep.join(
                part for part in (str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")) if part
            ),
            _SOCKET: str(descriptor),
            _METRICS: str(self._metrics),
            _PARENT: str(os.getpid()),
        }
        command = [sys.executable, "-m", "perennial.serving.server"]
        return subprocess.Popen(command, env=environment, pass_fds=[descriptor], start_new_session=True)  # noqa: S603

    def _mark_dead(self, pid: int) -> None:
        """Its gauges end with it; its counts go on counting."""
        for path in self._metrics.glob(f"gauge_live*_{pid}.db"):
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        living = [worker for worker in self._workers if worker is not None and worker.poll() is None]
        for worker in living:
            worker.terminate()
        deadline = time.monotonic() + self._serving.drain_seconds + 15
        for worker in living:
            try:
                worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._listener.close()
        shutil.rmtree(self._metrics, ignore_errors=True)


def work() -> None:
    """One worker, on the socket that its watcher holds."""
    import sys
    import threading

    import uvicorn

    from perennial.serving.app import Api
    from perennial.serving.service import Service
    from perennial.workspace import open_workspace

    log_as_json()
    # A loading version must not keep a request waiting for Python's lock: 5 ms by default.
    sys.setswitchinterval(0.0005)
    serving = load_serving_settings()
    service = Service(open_workspace(), serving, Path(os.environ[_METRICS]))
    api = Api(service, Tokens(serving.tokens))
    config = uvicorn.Config(
        api, log_config=None, access_log=False, lifespan="on", server_header=False, date_header=False,
        timeout_graceful_shutdown=int(serving.drain_seconds), timeout_keep_alive=75, loop="uvloop", http="httptools",
        ws="none", backlog=_BACKLOG,
    )  # fmt: skip
    server = _Server(config, service)
    parent = int(os.environ[_PARENT])

    def follow_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        server.should_exit = True

    threading.Thread(target=follow_parent, daemon=True).start()
    listener = socket.socket(fileno=os.dup(int(os.environ[_SOCKET])))
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(3)


def _Server(config: Any, service: Any) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's, which says when it is ready, and tells the service when it drains."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                LOG.info(READY_TEXT, extra={"facts": {"pid": os.getpid(), "models": sorted(service.host.served)}})

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.draining = True
            await super().shutdown(sockets)

    return Server(config)


def log_as_json() -> None:
    """Log lines of JSON on stderr, each with its facts."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("perennial.serving")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(os.environ.get("PERENNIAL_SERVING_LOG_LEVEL", "INFO").upper())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": moment, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"{host}:{port} can't be bound: {error.strerror}", "Give another --port, or set PERENNIAL_API_PORT"
        ) from error
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    load_settings()
    work()
