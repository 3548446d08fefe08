"""The servers as child processes: their commands, environments, health and end. No restarting; no Prefect import.

A child runs under `perennial.operate.guard`, so that it and all it starts end with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.errors import ServiceError
from perennial.operate.asking import healthy
from perennial.operate.identity import prefect_claim
from perennial.operate.prefect.senders import send_what_is_queued
from perennial.settings import PROJECT_ROOT, Settings
from perennial.surroundings import child_environment, python_command, spare_loopback

if TYPE_CHECKING:
    import psutil

START_SECONDS = 180.0
LARGEST_LOG_BYTES = 20_000_000


@dataclass(frozen=True)
class Service:
    """A server or worker that runs as a child process, and how to see that it is ready.

    Attributes:
        name: Its name, also its log's.
        command: What to run.
        environment: Variables on top of this process's own.
        health_url: Answers 2xx when it is ready; None when only the log tells.
        ready_text: A text that its log shows when it is ready; None when only the URL tells.
        address: What a person opens in a browser; empty when there is nothing to see.
        needs: Services that must be ready before it starts; it restarts when one of them did.
        port: The port that it takes, with the setting that changes it.
        grace_seconds: How long it may take to end.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None
    ready_text: str | None = None
    address: str = ""
    needs: tuple[str, ...] = ()
    port: tuple[str, int, str] | None = None
    grace_seconds: float = 10.0


class Child:
    """A running service, its guard and its log."""

    def __init__(self, service: Service, logs: Path) -> None:
        """Start it.

        Raises:
            ServiceError: Its port is taken, or its log can't be written.
        """
        if service.port:
            require_free_port(*service.port)
        self.service = service
        self.log = logs / f"{service.name}.log"
        try:
            logs.mkdir(parents=True, exist_ok=True)
            rotate_log(self.log)
            with self.log.open("ab") as stream:
                self._log_start = stream.tell()
                self._guard = subprocess.Popen(  # noqa: S603
                    [*python_command("perennial.operate.guard", str(service.grace_seconds)), *service.command],
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=child_environment({**service.environment, "PYTHONUNBUFFERED": "1"}),
                    start_new_session=True,
                )
        except OSError as error:
            raise ServiceError(f"{self.log}: {error.strerror}", "Make PERENNIAL_HOME writable") from error

    @property
    def pid(self) -> int:
        """The guard's process id: ending it ends the service."""
        return self._guard.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._guard.poll()

    def ready(self) -> bool:
        """Whether it says that it works, by its URL and its log's text."""
        if self.service.ready_text and self.service.ready_text not in self._fresh_log():
            return False
        return self.service.health_url is None or (healthy(self.service.health_url) and self._listens())

    def _listens(self) -> bool:
        """Whether it is this child that holds the port: another one's server would look as healthy."""
        import psutil

        if self.service.port is None:
            return True
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(self.service.port[1] in _listened_ports(process) for process in _family(self.pid))
        return False

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Block until it is ready.

        Raises:
            ServiceError: It ended or took too long; it is stopped, and the log's end is in the message.
        """
        deadline = time.monotonic() + seconds
        while not self.ready():
            if self.exit_code() is not None:
                raise self.failure(f"ended with exit code {self.exit_code()} while starting")
            if time.monotonic() > deadline:
                self.stop()
                raise self.failure(f"was not ready within {seconds:g} s")
            time.sleep(0.1)

    def failure(self, what: str) -> ServiceError:
        """The error that names what happened, with the end of the log."""
        lines = [line.strip() for line in self._fresh_log().splitlines() if line.strip()]
        tail = " | ".join(lines[-4:])[-800:] or "(empty)"
        return ServiceError(f"{self.service.name} {what}; its log ends with: {tail}", f"Read {self.log}")

    def stop(self, patience_seconds: float | None = None) -> None:
        """End it and everything that it started; returns when all of it is gone.

        Args:
            patience_seconds: How long it may take, where that is less than its grace.
        """
        if self._guard.stdin:
            self._guard.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._guard.terminate()
        try:
            self._guard.wait(self.service.grace_seconds + 15 if patience_seconds is None else patience_seconds)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        if self._guard.returncode == -signal.SIGKILL:  # it could not end its tree, but its session tells who is in it
            _end_session(self._guard.pid)

    def _fresh_log(self) -> str:
        with self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(min(size, max(self._log_start if size >= self._log_start else 0, size - 200_000)))
            return stream.read().decode("utf-8", "replace")


def _family(pid: int) -> list[psutil.Process]:
    import psutil

    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def _listened_ports(process: psutil.Process) -> set[int]:
    import psutil

    try:
        found = process.net_connections(kind="tcp")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return set()
    return {item.laddr.port for item in found if item.status == psutil.CONN_LISTEN and item.laddr}


def _end_session(leader: int) -> None:
    import psutil

    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def rotate_log(log: Path, largest_bytes: int = LARGEST_LOG_BYTES) -> None:
    """Move a long log aside to NAME.1, emptying it in place: its writers append, so they go on undisturbed."""
    if log.exists() and log.stat().st_size > largest_bytes:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def port_holder(host: str, port: int) -> str | None:
    """Who listens there: None when nobody does, else as much of name and pid as this user may know."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return "the system, which keeps it for its administrator"
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ServiceError(f"{host}:{port}: {error.strerror}", "Correct PERENNIAL_HOST") from error
        else:
            return None
    return _listener(port)


def _listener(port: int) -> str:
    import psutil

    try:
        pids = [
            item.pid
            for item in psutil.net_connections(kind="tcp")
            if item.status == psutil.CONN_LISTEN and item.laddr and item.laddr.port == port and item.pid
        ]
        return f"{psutil.Process(pids[0]).name()} (pid {pids[0]})" if pids else "another process"
    except psutil.Error:
        return "another process"


def require_free_port(host: str, port: int, setting: str) -> None:
    """Refuse a taken port.

    Raises:
        ServiceError: It names the port, its holder and the setting to change.
    """
    if holder := port_holder(host, port):
        raise ServiceError(
            f"port {port} on {host} is used by {holder}", f"End that process, or set {setting} to a free port"
        )


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def prefect_environment(settings: Settings, url: str | None = None) -> dict[str, str]:
    """What every process that speaks to Prefect, its server included, needs in its environment.

    The server's database is prefect.db in PREFECT_HOME, unless PREFECT_SERVER_DATABASE_CONNECTION_URL names another.

    Args:
        url: The server's /api address, when it is not the settings' own.
    """
    folder = settings.home_path / "prefect"
    return {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_API_URL": url or settings.prefect_url,
        "PREFECT_HOME": str(folder),
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        # A server whose database is away answers 500 or 503, one that restarts not at all: asked again for a minute.
        "PREFECT_CLIENT_MAX_RETRIES": "6",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A forgotten server address must fail, not start a server without schedules or triggers.
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        # In memory, a slot that is taken while the server restarts would never be free again.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_CLI_PROMPT": "false",
    }


def prefect_service(settings: Settings, port: int | None = None, setting: str = "PERENNIAL_PREFECT_PORT") -> Service:
    """Prefect's server and UI on the settings' host."""
    port = port or settings.prefect_port
    base = f"http://{settings.host}:{port}"
    environment = prefect_environment(settings, f"{base}/api")
    environment |= {"PREFECT_SERVER_API_HOST": settings.host, "PREFECT_SERVER_API_PORT": str(port)}
    # Its own default removes events only, and no flow run ever.
    environment |= {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"{settings.flow_run_days * 86400:.0f}",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{settings.event_days * 86400:.0f}S",
    }
    return Service(
        name="prefect",
        command=python_command(
            "perennial.operate.prefect.process", "server", "start", "--host", settings.host, "--port", str(port)
        ),
        environment=environment,
        health_url=f"{base}/api/health",
        address=base,
        port=(settings.host, port, setting),
    )


def mlflow_service(settings: Settings, port: int | None = None) -> Service:
    """MLflow's server and UI over the settings' registry and artifacts."""
    port = port or settings.mlflow_port
    base = f"http://{settings.host}:{port}"
    return Service(
        name="mlflow",
        command=python_command(
            *("mlflow", "server", "--host", settings.host, "--port", str(port)),
            *("--workers", "1", "--artifacts-destination", settings.artifacts_root),
            # By default uvicorn imports from the current folder first.
            *("--uvicorn-opts", f"--app-dir {shlex.quote(str(PROJECT_ROOT))}"),
        ),
        environment={
            # Not among the arguments, which everybody on the machine can see: it may hold a password.
            "MLFLOW_BACKEND_STORE_URI": settings.mlflow_uri,
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        health_url=f"{base}/health",
        address=base,
        port=(settings.host, port, "PERENNIAL_MLFLOW_PORT"),
    )


def prepare_home(settings: Settings) -> Path:
    """Make the home's folders.

    Raises:
        ServiceError: They can't be made.
    """
    home = settings.home_path
    try:
        for folder in (home, home / "logs", home / "prefect"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(f"PERENNIAL_HOME = {home}: {error.strerror}", "Set it to a writable folder") from error
    return home


@contextlib.contextmanager
def use_prefect(settings: Settings, url: str) -> Iterator[None]:
    """Point this process, and what it starts, at a Prefect server; afterwards all is as before.

    What Prefect's client has queued for this server by the end of the block is sent before it: a client goes on
    talking to the server that it began with.
    """
    prepare_home(settings)
    environment = prefect_environment(settings, url)
    unproxied = dict(os.environ)
    spare_loopback(unproxied)
    environment |= {name: unproxied[name] for name in ("no_proxy", "NO_PROXY") if name in unproxied}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with _settings_read_again():
            try:
                yield
            finally:
                send_what_is_queued(url)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _settings_read_again() -> contextlib.AbstractContextManager[Any]:
    """A context in which Prefect, where it is loaded and has read its settings, goes by the environment as it is."""
    if "prefect" not in sys.modules:
        return contextlib.nullcontext()
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import Settings as PrefectSettings

    return SettingsContext(profile=get_settings_context().profile, settings=PrefectSettings())


@contextlib.contextmanager
def prefect_server(settings: Settings, port: int | None = None, scheduler: bool = False) -> Iterator[str]:
    """A Prefect server for this home: the running one, else a temporary one that ends with the block.

    Args:
        port: For the temporary server; default: a free one.
        scheduler: Whether a temporary server creates the deployments' scheduled runs, which nobody may be
            there to execute.

    Yields:
        Its /api address, which this process uses within the block.

    Raises:
        ServiceError: No server could be started, the given one (PERENNIAL_PREFECT_API_URL) can't be reached, or this
            home's own one listens and does not answer.
    """
    claim = prefect_claim(settings)
    if claim.url and not claim.refuted:
        with use_prefect(settings, claim.url):
            yield claim.url
        return
    if settings.prefect_api_url:
        raise ServiceError(
            f"PERENNIAL_PREFECT_API_URL: no healthy Prefect server: {claim.refuted}",
            "Start it, or unset PERENNIAL_PREFECT_API_URL",
        )
    if claim.busy:
        # Two servers on one database would keep each other from writing.
        raise ServiceError(
            f"{claim.refuted}: it is busy, or hangs",
            "Wait and try again; if it stays so, end `perennial up` and start it again",
        )
    home = prepare_home(settings)
    service = prefect_service(settings, port or free_port(settings.host))
    switches = {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": str(scheduler).lower()}
    service = replace(service, name="prefect-temporary", environment={**service.environment, **switches})
    child = _start_one_by_one(service, home)
    try:
        with use_prefect(settings, f"{service.address}/api"):
            yield f"{service.address}/api"
    finally:
        child.stop()


def _start_one_by_one(service: Service, home: Path) -> Child:
    """Two servers that create one database's tables at once would fail: the second waits for the first."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(home / "prefect" / "start.lock", timeout=START_SECONDS):
            child = Child(service, home / "logs")
            try:
                child.wait_until_ready()
            except BaseException:
                child.stop()
                raise
            return child
    except Timeout as error:
        raise ServiceError(
            f"another process has been starting a Prefect server in {home} for {START_SECONDS:g} s", "End it; try again"
        ) from error
