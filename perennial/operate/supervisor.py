"""`perennial up`: starts the services, watches them, restarts what dies, ends all. Their commands are in servers.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from perennial.definition import load_definitions
from perennial.errors import ConflictError, DefinitionError, PerennialError, ServiceError
from perennial.operate.handover import environment_stamp
from perennial.operate.identity import publish_prefect, withdraw_prefect
from perennial.operate.prefect.runs import Trouble, look, troubles
from perennial.operate.servers import (
    START_SECONDS,
    Child,
    Service,
    mlflow_service,
    prefect_environment,
    prefect_service,
    prepare_home,
    require_free_port,
    rotate_log,
)
from perennial.settings import Settings
from perennial.state.layout import require
from perennial.surroundings import python_command

# What has lost a service that it needs can't end in good order (a runner can't cancel its runs without a server).
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 60.0
Reporter = Callable[[str, str], None]


@dataclass(frozen=True)
class RestartPolicy:
    """How patiently what dies is restarted.

    Attributes:
        first_seconds: The pause before the first restart; each further one doubles it.
        longest_seconds: The longest pause.
        limit: So many deaths within `within_seconds` end everything.
        within_seconds: How long a death is remembered.
        start_seconds: How long a service may take to become ready.
    """

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    limit: int = 5
    within_seconds: float = 300.0
    start_seconds: float = START_SECONDS

    def pause_seconds(self, deaths: int) -> float:
        """The pause after the so-many-th remembered death (1 is the first)."""
        return float(min(self.longest_seconds, self.first_seconds * 2 ** (deaths - 1)))


@dataclass
class _State:
    service: Service
    child: Child | None = None
    ready: bool = False
    was_ready: bool = False
    deadline: float = 0.0
    not_before: float = 0.0
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Runs services until told to stop; one thread, one loop."""

    def __init__(
        self,
        services: Sequence[Service],
        logs: Path,
        policy: RestartPolicy | None = None,
        report: Reporter = lambda _name, _what: None,
        on_ready: Callable[[], None] = lambda: None,
        tick_seconds: float = 0.25,
    ) -> None:
        """Nothing starts yet.

        Args:
            services: In the order of starting; they end in reverse.
            report: Called with a service's name and what happened to it.
            on_ready: Called once, when all are ready.
        """
        names = [service.name for service in services]
        unknown = {need for service in services for need in service.needs} - set(names)
        if unknown or len(set(names)) != len(names):
            raise ValueError(f"services {names}: names must be distinct, and needs known; unknown: {sorted(unknown)}")
        self._states = {service.name: _State(service) for service in services}
        self._logs = logs
        self._policy = policy or RestartPolicy()
        self._report = report
        self._on_ready = on_ready
        self._tick_seconds = tick_seconds
        self._stop = threading.Event()

    def request_stop(self) -> None:
        """Let `run` end all and return; from any thread or signal handler."""
        self._stop.set()

    def guard_pid(self, name: str) -> int | None:
        """The process id of a running service's guard."""
        child = self._states[name].child
        return child.pid if child else None

    def run(self) -> None:
        """Start all and keep them running until `request_stop`; all are gone when it returns or raises.

        Raises:
            ServiceError: A service never became ready, or died too often; its log's end is in the message.
        """
        announced = False
        try:
            while not self._stop.is_set():
                for state in self._states.values():
                    self._attend(state)
                if not announced and all(state.ready for state in self._states.values()):
                    announced = True
                    self._on_ready()
                self._stop.wait(self._tick_seconds if announced else 0.1)
        finally:
            self._end_all()

    def _attend(self, state: _State) -> None:
        if state.child is None:
            needed = [self._states[name] for name in state.service.needs]
            if time.monotonic() >= state.not_before and all(other.ready for other in needed):
                state.child = Child(state.service, self._logs)
                state.deadline = time.monotonic() + self._policy.start_seconds
                self._report(state.service.name, "starting")
            return
        code = state.child.exit_code()
        if code is not None:
            self._bury(state, f"ended with exit code {code}")
        elif not state.ready:
            if state.child.ready():
                state.ready = state.was_ready = True
                self._report(state.service.name, "ready")
            elif time.monotonic() > state.deadline:
                self._bury(state, f"was not ready within {self._policy.start_seconds:g} s")
        else:
            rotate_log(state.child.log)

    def _bury(self, state: _State, what: str) -> None:
        """Take note of a death; plan the restart of the service and of those that need it, or give up."""
        assert state.child
        now = time.monotonic()
        state.deaths.append(now)
        while now - state.deaths[0] > self._policy.within_seconds:
            state.deaths.popleft()
        deaths = len(state.deaths)
        state.child.stop()
        if not state.was_ready:
            raise state.child.failure(f"{what}, before it was ever ready")
        if deaths >= self._policy.limit:
            raise state.child.failure(f"{what}, death {deaths} within {self._policy.within_seconds:g} s")
        pause = self._policy.pause_seconds(deaths)
        self._report(state.service.name, f"{what}; restarting in {pause:g} s (log: {state.child.log})")
        state.child, state.ready, state.not_before = None, False, now + pause
        for other in self._states.values():
            if state.service.name in other.service.needs and other.child:
                self._report(other.service.name, f"restarts with {state.service.name}")
                other.child.stop(_PATIENCE_SECONDS)
                other.child, other.ready = None, False

    def _end_all(self) -> None:
        for state in reversed(self._states.values()):
            if state.child:
                self._report(state.service.name, "stopping")
                state.child.stop()
                state.child, state.ready = None, False


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock: one `up` per home. The system frees it however this process ends.

    Raises:
        ConflictError: Another one holds it; its process id is named.
    """
    from filelock import FileLock, Timeout

    note = home / "up.json"
    lock = FileLock(home / "up.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        try:
            pid = json.loads(note.read_text(encoding="utf-8"))["pid"]
        except (OSError, ValueError, KeyError):
            pid = "unknown"
        raise ConflictError(
            f"perennial is already up for {home} (pid {pid})",
            f"Use it, or end it with: kill {pid}; or set PERENNIAL_HOME to another folder",
        ) from error
    try:
        note.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on Ctrl-C, SIGTERM and SIGHUP instead of dying; afterwards the handlers are as before.

    A second Ctrl-C interrupts the stopping: the guards then end what is left.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def services_for(settings: Settings) -> list[Service]:
    """What `perennial up` runs: Prefect's and MLflow's servers where they are ours, the runner, the API, the page."""
    services: list[Service] = []
    if settings.prefect_api_url is None:
        services.append(prefect_service(settings))
    if not (settings.tracking_uri or "").startswith(("http://", "https://")):
        services.append(mlflow_service(settings))
    services.append(
        Service(
            name="runner",
            command=python_command("deployments.runner"),
            environment={**prefect_environment(settings), "PERENNIAL_HOME": str(settings.home_path)},
            ready_text="perennial runner ready",
            needs=("prefect",) if settings.prefect_api_url is None else (),
            grace_seconds=45.0,
        )
    )
    services.append(api_service(settings))
    services.append(web_service(settings))
    if settings.warm_commands and sys.platform == "linux":  # elsewhere a process that has imported all can't fork
        services.append(commands_service(settings))
    return services


def commands_service(settings: Settings) -> Service:
    """The warm process that short commands are handed to; nobody waits for it, they run by themselves until it is."""
    return Service(
        name="commands",
        command=python_command("perennial.warm", str(settings.home_path), environment_stamp(os.environ)),
        environment={**prefect_environment(settings), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"},
    )


def api_service(settings: Settings) -> Service:
    """The serving API; it starts without a champion, and serves each model from its first promotion on."""
    return Service(
        name="api",
        command=python_command("perennial.cli", "serve", "--host", settings.host, "--port", str(settings.api_port)),
        environment={"PERENNIAL_HOME": str(settings.home_path)},
        health_url=f"http://{settings.host}:{settings.api_port}/v2/health/live",
        address=f"http://{settings.host}:{settings.api_port}/docs",
        port=(settings.host, settings.api_port, "PERENNIAL_API_PORT"),
        grace_seconds=45.0,
    )


def web_service(settings: Settings) -> Service:
    """The page; it works with whoever of the others is there."""
    base = f"http://{settings.host}:{settings.web_port}"
    return Service(
        name="web",
        command=python_command(
            "perennial.cli", "web", "--host", settings.host, "--port", str(settings.web_port)
        ),
        environment=api_service(settings).environment,
        health_url=f"{base}/health",
        address=base,
        port=(settings.host, settings.web_port, "PERENNIAL_WEB_PORT"),
    )  # fmt: skip


def check_before_up(settings: Settings) -> list[str]:
    """Refuse what would fail later with a worse message; the models' names.

    Raises:
        ServiceError: The home's parent is missing, or the home can't be made.
        DefinitionError: A folder of models is missing or empty, or a definition is wrong.
        ConflictError: Home or tables have another layout than this program's.
    """
    home = settings.home_path
    if not home.parent.is_dir():
        raise ServiceError(
            f"PERENNIAL_HOME = {home}: its parent folder does not exist", f"Make it: mkdir -p {home.parent}"
        )
    models = list(load_definitions(settings.model_folders))
    if not models:
        folders = ", ".join(str(folder) for folder in settings.model_folders) or "(none)"
        raise DefinitionError(f"no model is defined in {folders}", "Write a NAME.yaml there, or set PERENNIAL_MODELS")
    require(settings)
    prepare_home(settings)
    return models


def _tell_of_troubles(settings: Settings, report: Reporter, ended: threading.Event) -> None:
    """Say of runs that are late, stuck or no longer scheduled, once each, as long as the services run."""
    told: set[str] = set()
    while not ended.wait(_LOOK_SECONDS):
        now = datetime.now(UTC)
        try:
            found = troubles(look(settings.prefect_url, now), list(load_definitions(settings.model_folders)), now)
        except PerennialError as error:  # a broken definition, or a server that restarts
            found = [] if isinstance(error, ServiceError) else [Trouble(error.problem, error.remedy)]
        for trouble in found:
            if trouble.remedy not in told:
                report("runs", f"{trouble.detail}. {trouble.remedy}")
        told = {trouble.remedy for trouble in found}


def up(settings: Settings, policy: RestartPolicy | None = None, plain: bool = False) -> None:
    """Run everything until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        plain: Report lines without colour, for logs.

    Raises:
        PerennialError: Something is missing, taken or dead beyond repair.
    """
    from rich.console import Console

    models = check_before_up(settings)
    console = Console(highlight=False, no_color=plain or None, soft_wrap=True)
    services = services_for(settings)

    def report(name: str, what: str) -> None:
        colour = (
            "green"
            if what == "ready"
            else "yellow"
            if "ended" in what or "not ready" in what or name == "runs"
            else "dim"
        )
        console.print(f"{time.strftime('%H:%M:%S')}  [bold]{name:8}[/bold] [{colour}]{what}[/{colour}]")

    ended = threading.Event()
    watch = threading.Thread(target=_tell_of_troubles, args=(settings, report, ended), daemon=True)

    def announce() -> None:
        watch.start()
        if settings.prefect_api_url is None:
            publish_prefect(settings, settings.prefect_url)
        for service in sorted(services, key=lambda service: service.name != "web"):
            if service.address:
                console.print(f"  {service.name:8} {service.address}")
        console.print(f"  {'models':8} {', '.join(models)}")
        console.print(f"  {'logs':8} {settings.home_path / 'logs'}\nperennial is up; Ctrl-C stops it.")

    with only_one(settings.home_path):
        withdraw_prefect(settings)  # of one that was killed
        for service in services:
            if service.port:
                require_free_port(*service.port)
        supervisor = Supervisor(services, settings.home_path / "logs", policy, report, announce)
        try:
            with stop_on_signals(supervisor.request_stop):
                supervisor.run()
        finally:
            ended.set()
            withdraw_prefect(settings)
    console.print("perennial is down.")
