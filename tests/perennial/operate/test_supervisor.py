from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from perennial.errors import ConflictError, DefinitionError, ServiceError
from perennial.operate.asking import healthy
from perennial.operate.identity import publish_prefect, running_prefect
from perennial.operate.servers import Service, free_port
from perennial.operate.supervisor import RestartPolicy, Supervisor, check_before_up, only_one, services_for
from perennial.settings import Settings

pytestmark = pytest.mark.waits
PYTHON = sys.executable
QUICK = RestartPolicy(first_seconds=0.05, longest_seconds=0.2, limit=4, within_seconds=60, start_seconds=20)


def eventually(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    """Whether it runs; a dead orphan that nobody has waited for yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def web(name: str, **options: object) -> Service:
    """A real little server on a free port."""
    port = free_port()
    command = (PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    url = f"http://127.0.0.1:{port}/"
    return Service(name, command, health_url=url, address=url, grace_seconds=5, **options)  # type: ignore[arg-type]


STAYS = "import time; print('ready', flush=True); time.sleep(600)"


def worker(name: str, code: str = STAYS, **options: object) -> Service:
    return Service(name, (PYTHON, "-c", code), ready_text="ready", grace_seconds=5, **options)  # type: ignore[arg-type]


class Run:
    """A supervisor in a thread, with what it reported."""

    def __init__(self, services: list[Service], logs: Path, policy: RestartPolicy = QUICK) -> None:
        self.reports: list[tuple[str, str]] = []
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.supervisor = Supervisor(
            services, logs, policy, lambda *item: self.reports.append(item), self.ready.set, tick_seconds=0.02
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except ServiceError as error:
            self.error = error

    def said(self, name: str, what: str) -> int:
        return sum(item[0] == name and item[1].startswith(what) for item in self.reports)

    def service_pid(self, name: str) -> int:
        guard = self.supervisor.guard_pid(name)
        assert guard
        (child,) = psutil.Process(guard).children()
        return child.pid


@contextmanager
def running(services: list[Service], logs: Path, policy: RestartPolicy = QUICK) -> Iterator[Run]:
    before = set(psutil.Process().children(recursive=True))
    run = Run(services, logs, policy)
    try:
        yield run
    finally:
        run.supervisor.request_stop()
        run.thread.join(30)
        assert not run.thread.is_alive()
    assert not set(psutil.Process().children(recursive=True)) - before


class TestSupervisor:
    @pytest.mark.process
    def test_starts_in_order_of_need_and_stops_in_reverse(self, tmp_path: Path) -> None:
        one, two = web("one"), worker("two", needs=("one",))
        with running([one, two], tmp_path) as run:
            assert run.ready.wait(20)
            assert one.health_url
            assert healthy(one.health_url)
            assert run.reports[:4] == [("one", "starting"), ("one", "ready"), ("two", "starting"), ("two", "ready")]
        assert run.reports[-2:] == [("two", "stopping"), ("one", "stopping")]
        assert run.error is None
        assert not healthy(one.health_url)

    @pytest.mark.process
    def test_restarts_what_dies_and_what_needs_it(self, tmp_path: Path) -> None:
        with running([web("one"), worker("two", needs=("one",)), worker("three")], tmp_path) as run:
            assert run.ready.wait(20)
            third, second = run.service_pid("three"), run.service_pid("two")
            os.kill(run.service_pid("one"), signal.SIGKILL)
            assert eventually(lambda: run.said("two", "ready") == 2)
            assert run.said("one", "ended with exit code 137; restarting in 0.05 s") == 1
            assert run.said("one", "ready") == 2
            assert run.service_pid("two") != second
            assert run.service_pid("three") == third

    @pytest.mark.process
    def test_a_killed_guard_is_a_death_too(self, tmp_path: Path) -> None:
        with running([web("one")], tmp_path) as run:
            assert run.ready.wait(20)
            guard, service = run.supervisor.guard_pid("one"), run.service_pid("one")
            assert guard
            os.kill(guard, signal.SIGKILL)
            assert eventually(lambda: run.said("one", "ready") == 2)
            assert not alive(service)

    @pytest.mark.process
    def test_gives_up_on_what_keeps_dying(self, tmp_path: Path) -> None:
        dying = worker("dying", "import time; print('ready', flush=True); time.sleep(0.3); print('alas'); exit(5)")
        with running([web("one"), dying], tmp_path) as run:
            run.thread.join(30)
            assert isinstance(run.error, ServiceError)
            assert "dying ended with exit code 5, death 4 within 60 s" in str(run.error)
            assert "alas" in str(run.error)
            assert run.said("one", "stopping") == 1
        assert run.said("dying", "ready") == 4

    @pytest.mark.process
    def test_what_was_never_ready_is_not_tried_again(self, tmp_path: Path) -> None:
        with running([worker("wrong", "print('bad setting'); exit(2)")], tmp_path) as run:
            run.thread.join(30)
            assert "before it was ever ready; its log ends with: bad setting" in str(run.error)
        assert run.said("wrong", "starting") == 1

    @pytest.mark.process
    def test_what_is_never_ready_in_time(self, tmp_path: Path) -> None:
        policy = RestartPolicy(start_seconds=0.5)
        with running([worker("slow", "import time; time.sleep(600)")], tmp_path, policy) as run:
            run.thread.join(30)
            assert "was not ready within 0.5 s" in str(run.error)

    @pytest.mark.process
    def test_can_be_stopped_while_starting(self, tmp_path: Path) -> None:
        with running([worker("slow", "import time; time.sleep(600)")], tmp_path) as run:
            assert eventually(lambda: run.said("slow", "starting"))
        assert run.error is None

    @pytest.mark.parametrize("services", [[worker("a"), worker("a")], [worker("a", needs=("b",))]])
    def test_refuses_names_that_do_not_fit(self, services: list[Service], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="distinct"):
            Supervisor(services, tmp_path)


def test_pauses_double_up_to_the_longest() -> None:
    policy = RestartPolicy(first_seconds=1, longest_seconds=10)
    assert [policy.pause_seconds(deaths) for deaths in (1, 2, 3, 4, 5, 50)] == [1, 2, 4, 8, 10, 10]


class TestOnlyOne:
    @pytest.mark.process
    def test_a_second_one_is_refused_with_the_first_one_s_pid(self, tmp_path: Path) -> None:
        with only_one(tmp_path):
            code = (
                "import sys\nfrom pathlib import Path\nfrom perennial.operate.supervisor import only_one\n"
                "with only_one(Path(sys.argv[1])): pass"
            )
            second = subprocess.run([PYTHON, "-c", code, str(tmp_path)], capture_output=True, text=True)
            assert second.returncode == 1
            assert f"already up for {tmp_path} (pid {os.getpid()})" in second.stderr
        with only_one(tmp_path):
            assert json.loads((tmp_path / "up.json").read_text()) == {"pid": os.getpid()}
        assert not (tmp_path / "up.json").exists()

    @pytest.mark.process
    def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom perennial.operate.supervisor import only_one\n"
            "with only_one(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
        )
        holder = subprocess.Popen([PYTHON, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert holder.stdout
        with holder.stdout:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ConflictError), only_one(tmp_path):
                pass
            holder.kill()
            holder.wait()
        with only_one(tmp_path):
            pass


TOY = """
name: toy
task: regression
data: {source: {csv: rows.csv}, id: id, time: time, target: y}
features: {numeric: [a]}
monitoring: {schedule: "0 6 * * *"}
"""


@pytest.fixture
def toy(tmp_path: Path) -> Settings:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(TOY)
    return Settings(
        home=tmp_path / "home", models=str(tmp_path / "models"), prefect_port=free_port(), mlflow_port=free_port()
    )


class TestBeforeUp:
    def test_makes_the_home(self, toy: Settings) -> None:
        check_before_up(toy)
        assert (toy.home_path / "logs").is_dir()

    def test_a_missing_parent(self, toy: Settings, tmp_path: Path) -> None:
        with pytest.raises(ServiceError, match=r"no/home: its parent folder does not exist\. Make it: mkdir -p"):
            check_before_up(toy.model_copy(update={"home": tmp_path / "no" / "home"}))

    def test_a_missing_or_empty_models_folder(self, toy: Settings, tmp_path: Path) -> None:
        with pytest.raises(DefinitionError, match="does not exist"):
            check_before_up(toy.model_copy(update={"models": str(tmp_path / "absent")}))
        (tmp_path / "empty").mkdir()
        with pytest.raises(DefinitionError, match="no model is defined in"):
            check_before_up(toy.model_copy(update={"models": str(tmp_path / "empty")}))

    def test_servers_that_are_somebody_else_s_are_not_started(self, toy: Settings) -> None:
        names = [service.name for service in services_for(toy)]
        assert names == ["prefect", "mlflow", "runner", "api", "web", *["commands"][: sys.platform == "linux"]]
        elsewhere = toy.model_copy(
            update={"prefect_api_url": "http://prefect:4200/api", "tracking_uri": "http://mlflow:5000"}
        )
        runner, api, web = services_for(elsewhere.model_copy(update={"warm_commands": False}))
        assert api.needs == web.needs == ()
        assert runner.environment["PREFECT_API_URL"] == "http://prefect:4200/api"
        assert runner.needs == ()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_up_for_real(
    toy: Settings, tmp_path: Path, migrate_home: Callable[[Path], None], mlflow_database: Path
) -> None:
    """Prefect, MLflow and the runner become healthy; a killed runner comes back; SIGTERM leaves nothing."""
    migrate_home(toy.home_path)
    shutil.copy(mlflow_database, toy.home_path / "mlflow.db")
    page_port = free_port()
    environment = {
        **os.environ,
        "PERENNIAL_HOME": str(toy.home_path),
        "PERENNIAL_MODELS": toy.models,
        "PERENNIAL_PREFECT_PORT": str(toy.prefect_port),
        "PERENNIAL_MLFLOW_PORT": str(toy.mlflow_port),
        "PERENNIAL_API_PORT": str(free_port()),
        "PERENNIAL_WEB_PORT": str(page_port),
        "PERENNIAL_WARM_COMMANDS": "false",  # nobody waits for that process: tests/perennial/test_warm.py has it
    }
    environment["HTTPS_PROXY"] = environment["HTTP_PROXY"] = f"http://127.0.0.1:{free_port()}"  # nobody is there
    here = tmp_path / "here"
    here.mkdir()
    for name in ("click", "flask", "graphene", "huey", "mlflow", "prefect"):
        (here / f"{name}.py").write_text("raise RuntimeError('a file of the current folder was imported')")
    publish_prefect(toy, "http://127.0.0.1:9/api")  # of one that was killed
    command = [PYTHON, "-P", "-m", "perennial.cli", "up"]
    output = tmp_path / "output"
    with output.open("w") as stream:
        up = subprocess.Popen(command, env=environment, cwd=here, stdout=stream, stderr=subprocess.STDOUT)
    tree: list[psutil.Process] = []
    try:
        assert eventually(lambda: "perennial is up" in output.read_text() or up.poll() is not None, 150)
        assert up.poll() is None, output.read_text()
        assert healthy(f"http://127.0.0.1:{toy.mlflow_port}/health")
        told = output.read_text()
        assert told[told.index("http://") :].startswith(f"http://127.0.0.1:{page_port}\n"), "the page is told first"
        assert running_prefect(toy) == toy.prefect_url
        second = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert second.returncode == 1
        assert f"pid {up.pid}" in second.stderr
        tree = psutil.Process(up.pid).children(recursive=True)
        (runner,) = (process for process in tree if process.cmdline()[1:] == ["-P", "-m", "deployments.runner"])
        runner.kill()
        assert eventually(lambda: output.read_text().count("runner   ready") == 2, 60), output.read_text()
        tree = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, output.read_text()
    finally:
        up.kill()
        up.wait()
    assert not [process for process in tree if alive(process.pid)]
    assert "perennial is down." in output.read_text()
    assert running_prefect(toy) is None
