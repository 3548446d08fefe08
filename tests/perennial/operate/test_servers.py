from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
from stand_in import served_by

from perennial.errors import ServiceError
from perennial.operate.asking import healthy
from perennial.operate.identity import running_prefect
from perennial.operate.servers import (
    Child,
    Service,
    free_port,
    mlflow_service,
    port_holder,
    prefect_environment,
    prefect_server,
    prefect_service,
    prepare_home,
    require_free_port,
    rotate_log,
    use_prefect,
)
from perennial.settings import Settings

pytestmark = pytest.mark.waits
PYTHON = sys.executable


def eventually(true: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def script(name: str, code: str, **options: object) -> Service:
    return Service(name, (PYTHON, "-c", code), **{"ready_text": "ready", "grace_seconds": 1.0, **options})  # type: ignore[arg-type]


def pids(path: Path, count: int) -> list[int]:
    assert eventually(lambda: path.exists() and len(path.read_text().split()) == count)
    return [int(text) for text in path.read_text().split()]


def ended(process: psutil.Process) -> bool:
    """Whether it is gone, or dead and only waits for somebody to notice."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# A service with a child, and a grandchild that got away by a double fork into a session of its own.
FAMILY = """
import os, subprocess, sys, time
path = sys.argv[1] if len(sys.argv) > 1 else PATH
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(path + ".orphan", "w") as stream:
            stream.write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
while not (os.path.exists(path + ".orphan") and open(path + ".orphan").read()):
    time.sleep(0.01)
with open(path + ".tmp", "w") as stream:
    stream.write(f"{os.getpid()} {child.pid} {open(path + '.orphan').read()}")
os.rename(path + ".tmp", path)
print("ready", flush=True)
time.sleep(600)
"""


def family(path: Path) -> str:
    return f"PATH = {str(path)!r}\n{FAMILY}"


class TestGuard:
    @pytest.mark.process
    def test_stop_ends_children_and_orphans(self, tmp_path: Path) -> None:
        child = Child(script("family", family(tmp_path / "pids")), tmp_path / "logs")
        child.wait_until_ready(20)
        members = pids(tmp_path / "pids", 3)
        assert all(psutil.pid_exists(pid) for pid in members)
        child.stop()
        assert not any(psutil.pid_exists(pid) for pid in members)
        assert child.exit_code() is not None

    @pytest.mark.process
    def test_a_killed_parent_takes_everything_with_it(self, tmp_path: Path) -> None:
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom perennial.operate.servers import Child, Service\n"
            "c = Child(Service('family', (sys.executable, '-c', Path(sys.argv[1]).read_text()), ready_text='ready'),"
            " Path(sys.argv[2]))\ntime.sleep(600)\n"
        )
        (tmp_path / "family.py").write_text(family(tmp_path / "pids"))
        parent = subprocess.Popen([PYTHON, "-c", code, str(tmp_path / "family.py"), str(tmp_path / "logs")])
        members = pids(tmp_path / "pids", 3)
        parent.kill()
        parent.wait()
        assert eventually(lambda: not any(psutil.pid_exists(pid) for pid in members))

    @pytest.mark.process
    def test_a_dead_service_takes_its_children_with_it(self, tmp_path: Path) -> None:
        child = Child(script("family", family(tmp_path / "pids")), tmp_path / "logs")
        child.wait_until_ready(20)
        members = pids(tmp_path / "pids", 3)
        os.kill(members[0], signal.SIGKILL)
        assert eventually(lambda: child.exit_code() == 128 + signal.SIGKILL)
        assert not any(psutil.pid_exists(pid) for pid in members)
        child.stop()

    @pytest.mark.process
    def test_a_killed_guard_s_service_and_its_children_end_too(self, tmp_path: Path) -> None:
        child = Child(script("family", family(tmp_path / "pids")), tmp_path / "logs")
        child.wait_until_ready(20)
        service, helper, escaped = (psutil.Process(pid) for pid in pids(tmp_path / "pids", 3))
        os.kill(child.pid, signal.SIGKILL)
        assert eventually(lambda: ended(service))
        child.stop()
        assert eventually(lambda: ended(helper))
        escaped.kill()  # in a session of its own, and nobody is left who has adopted it

    @pytest.mark.process
    def test_what_ignores_sigterm_is_killed_after_its_grace(self, tmp_path: Path) -> None:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
        child = Child(script("stubborn", code + "while True: time.sleep(1)"), tmp_path)
        child.wait_until_ready(20)
        began = time.monotonic()
        child.stop()
        assert 1 <= time.monotonic() - began < 8
        assert child.exit_code() == 128 + signal.SIGKILL

    @pytest.mark.process
    def test_less_patience_than_grace(self, tmp_path: Path) -> None:
        code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        code += "print('ready', os.getpid(), flush=True)\n"
        child = Child(script("stubborn", code + "while True: time.sleep(1)", grace_seconds=60.0), tmp_path)
        child.wait_until_ready(20)
        service = psutil.Process(int(child.log.read_text().split()[1]))
        child.stop(patience_seconds=0.2)
        assert eventually(lambda: ended(service))

    @pytest.mark.process
    def test_the_exit_code_is_the_service_s(self, tmp_path: Path) -> None:
        child = Child(script("seven", "raise SystemExit(7)"), tmp_path)
        assert eventually(lambda: child.exit_code() == 7)
        child.stop()


class TestChild:
    @pytest.mark.process
    def test_failure_names_the_exit_code_and_the_log_s_end(self, tmp_path: Path) -> None:
        child = Child(script("bad", "print('the reason why'); raise SystemExit(3)"), tmp_path)
        with pytest.raises(ServiceError, match=r"bad ended with exit code 3 .*the reason why.*bad\.log") as error:
            child.wait_until_ready(20)
        assert "\n" not in str(error.value)
        child.stop()

    @pytest.mark.process
    def test_a_command_that_does_not_exist(self, tmp_path: Path) -> None:
        child = Child(Service("none", ("/no/such/command",), ready_text="x"), tmp_path)
        with pytest.raises(ServiceError, match=r"exit code 127 .*No such file"):
            child.wait_until_ready(20)
        child.stop()

    @pytest.mark.process
    def test_too_slow_is_stopped_and_named(self, tmp_path: Path) -> None:
        child = Child(script("slow", "import time; time.sleep(600)"), tmp_path)
        with pytest.raises(ServiceError, match=r"slow was not ready within 0\.3 s"):
            child.wait_until_ready(0.3)
        assert child.exit_code() is not None

    @pytest.mark.process
    def test_an_old_log_s_text_does_not_count_as_ready(self, tmp_path: Path) -> None:
        (tmp_path / "quiet.log").write_text("ready\n")
        child = Child(script("quiet", "import time; time.sleep(600)"), tmp_path)
        assert not child.ready()
        child.stop()

    @pytest.mark.process
    def test_a_taken_port_is_refused_before_starting(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(ServiceError) as error:
                Child(script("late", "", port=("127.0.0.1", port, "PERENNIAL_PREFECT_PORT")), tmp_path)
        for part in (str(port), f"pid {os.getpid()}", "PERENNIAL_PREFECT_PORT"):
            assert part in str(error.value)

    @pytest.mark.process
    def test_another_s_healthy_server_on_its_port_is_not_its_own(self, tmp_path: Path) -> None:
        port = free_port()
        late = script(
            "late", "import time; time.sleep(600)", ready_text=None, port=("127.0.0.1", port, "X"),
            health_url=f"http://127.0.0.1:{port}/",
        )  # fmt: skip
        child = Child(late, tmp_path)
        try:
            with answering(port):
                assert healthy(f"http://127.0.0.1:{port}/")
                assert not child.ready()
        finally:
            child.stop()
        code = f"import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
        child = Child(replace(late, command=(PYTHON, "-c", code)), tmp_path)
        try:
            assert eventually(child.ready)
        finally:
            child.stop()


class TestPorts:
    def test_free(self) -> None:
        port = free_port()
        assert port_holder("127.0.0.1", port) is None
        require_free_port("127.0.0.1", port, "X")

    def test_an_address_that_is_not_ours(self) -> None:
        with pytest.raises(ServiceError, match="PERENNIAL_HOST"):
            port_holder("203.0.113.7", 80)


def test_rotate_log_empties_in_place_for_appending_writers(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate_log(log, largest_bytes=100)
        assert not (tmp_path / "a.log.1").exists()
        rotate_log(log, largest_bytes=99)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100


@contextmanager
def answering(port: int = 0) -> Iterator[str]:
    """The address of something that answers 200 to all."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with served_by(Handler, port) as address:
        yield address


@pytest.fixture
def stand_in() -> Iterator[str]:
    """The /api address of something healthy."""
    with answering() as address:
        yield f"{address}/api"


@pytest.mark.process
class TestGivenPrefect:
    def test_the_given_address(self, tmp_path: Path, stand_in: str) -> None:
        assert running_prefect(Settings(home=tmp_path, prefect_api_url=stand_in)) == stand_in
        with prefect_server(Settings(home=tmp_path, prefect_api_url=stand_in)) as url:
            assert url == stand_in == os.environ["PREFECT_API_URL"]

    def test_the_given_address_is_dead(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, prefect_api_url=f"http://127.0.0.1:{free_port()}/api")
        with pytest.raises(ServiceError, match="PERENNIAL_PREFECT_API_URL"), prefect_server(settings):
            pass


class TestEnvironment:
    def test_everything_lies_in_the_home(self, tmp_path: Path) -> None:
        environment = prefect_environment(Settings(home=tmp_path, prefect_port=4321))
        assert environment["PREFECT_HOME"] == str(tmp_path / "prefect")
        assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"

    def test_a_server_within_another_s_block_is_not_the_other(self, tmp_path: Path) -> None:
        outer, inner = Settings(home=tmp_path / "outer"), Settings(home=tmp_path / "inner")
        with use_prefect(outer, "http://127.0.0.1:1/api"):
            assert os.environ["PREFECT_HOME"] == str(tmp_path / "outer" / "prefect")
            environment = {**os.environ, **prefect_service(inner).environment}
        texts = [value for name, value in environment.items() if name.startswith("PREFECT")]
        assert not [text for text in texts if "outer" in text or ":1/" in text]

    def test_commands_bind_to_the_host_and_port(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, mlflow_port=5555, prefect_port=4321)
        prefect, mlflow = prefect_service(settings), mlflow_service(settings)
        assert prefect.port == ("127.0.0.1", 4321, "PERENNIAL_PREFECT_PORT")
        assert mlflow.health_url == "http://127.0.0.1:5555/health"
        assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_home_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="PERENNIAL_HOME"):
        prepare_home(Settings(home=tmp_path / "file" / "home"))


@pytest.mark.slow
def test_a_real_temporary_server_ends_with_its_killed_user(
    tmp_path: Path, migrate_home: Callable[[Path], None]
) -> None:
    migrate_home(tmp_path)
    code = (
        "import time\n"
        "from perennial.operate.servers import prefect_server\nfrom perennial.settings import load_settings\n"
        "with prefect_server(load_settings()) as url:\n    print(url, flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PERENNIAL_HOME": str(tmp_path)}
    user = subprocess.Popen([PYTHON, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert user.stdout
    with user.stdout:
        url = user.stdout.readline().strip()
        tree = psutil.Process(user.pid).children(recursive=True)
        assert healthy(f"{url}/health")
        assert len(tree) >= 2
        user.kill()
        user.wait()
    assert eventually(lambda: not any(process.is_running() for process in tree), 20)
    assert not healthy(f"{url}/health")


BROKEN_OFF = """
import signal, time
from prefect import flow
from perennial.cli import main
from perennial.errors import DataError
from perennial.operate.servers import prefect_server
from perennial.settings import load_settings

@flow
def refused():
    raise DataError("no good")

# A shell lets what it runs in the background ignore this signal, and the suite would hand that on.
signal.signal(signal.SIGINT, signal.default_int_handler)

@flow
def interrupted():
    signal.raise_signal(signal.SIGINT)
    time.sleep(600)

try:
    with prefect_server(load_settings()):
        try:
            refused()
        except DataError as error:
            print(error, flush=True)
        interrupted()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
def test_a_failed_and_an_interrupted_run_leave_nothing_to_wait_for(
    tmp_path: Path, migrate_home: Callable[[Path], None]
) -> None:
    """Prefect's client would try for minutes to send its last logs to a server that is gone, and complain."""
    migrate_home(tmp_path)
    environment = {**os.environ, "PERENNIAL_HOME": str(tmp_path), "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    with subprocess.Popen(
        [PYTHON, "-c", BROKEN_OFF], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout
        assert user.stderr
        told = [user.stdout.readline().strip() for _ in range(2)]
        assert told == ["no good.", "interrupted"], user.stderr.read()
        assert eventually(lambda: user.poll() is not None, 30), "it waits for the server that is gone"
        assert "Error logging to API" not in (complaints := user.stderr.read())
        assert "attempts failed" not in complaints


@pytest.mark.slow
def test_the_session_s_server_is_this_process_s(prefect_url: str, prefect_settings: Settings) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        assert str(client.api_url).rstrip("/") == prefect_url
        assert client.hello().status_code == 200
    database = prefect_settings.home_path / "prefect" / "prefect.db"
    assert database.exists()


@pytest.mark.process
def test_prefect_forgets_runs_and_events_after_the_settings_ages(tmp_path: Path) -> None:
    """The server's own settings, as the installed Prefect reads them from the environment that it is given."""
    settings = Settings(home=tmp_path, flow_run_days=10, event_days=2.5)
    code = (
        "from prefect.settings import get_current_settings as now; s = now().server; v = s.services.db_vacuum; "
        "print(sorted(v.enabled_vacuum_types), v.retention_period.days, s.events.retention_period.total_seconds())"
    )
    environment = {**os.environ, **prefect_service(settings).environment}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['events', 'flow_runs', 'orphans'] 10 216000.0"
