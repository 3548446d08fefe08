"""What surrounds us: loopback is never proxied, no file of the current folder is taken for a library, and the rest."""

from __future__ import annotations

import ast
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from stand_in import served_by

from perennial.cli import main
from perennial.operate import doctor
from perennial.operate.asking import ask, ask_json, healthy, is_proxied
from perennial.operate.servers import mlflow_service, prefect_service, use_prefect
from perennial.operate.supervisor import services_for
from perennial.settings import PROJECT_ROOT, Settings
from perennial.surroundings import child_environment, python_command, spare_loopback

pytestmark = pytest.mark.waits
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that refuses everything, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(403)

        do_GET = do_POST = do_CONNECT = refuse

        def log_message(self, *_: object) -> None:
            pass

    with served_by(Handler) as address:
        yield address, asked


class TestSpareLoopback:
    def test_without_a_proxy_nothing_is_set(self) -> None:
        environment = {"PATH": "/bin", "NO_PROXY": "example.org", "HTTP_PROXY": ""}
        spare_loopback(environment)
        assert environment == {"PATH": "/bin", "NO_PROXY": "example.org", "HTTP_PROXY": ""}

    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "wss_proxy"])
    def test_what_was_left_out_before_stays_left_out(self, name: str) -> None:
        environment = {name: "http://proxy:3128", "NO_PROXY": "example.org, .inner", "PERENNIAL_HOST": "10.0.0.7"}
        spare_loopback(environment)
        assert environment["NO_PROXY"] == environment["no_proxy"]
        names = environment["NO_PROXY"].split(",")
        assert {"example.org", ".inner", "127.0.0.1", "localhost", "::1", "10.0.0.7"} <= set(names)
        before = dict(environment)
        spare_loopback(environment)
        assert environment == before

    def test_both_spellings_are_heeded_and_a_star_stays(self) -> None:
        environment = {"HTTP_PROXY": "http://proxy", "no_proxy": "a", "NO_PROXY": "b"}
        spare_loopback(environment)
        assert {"a", "b"} <= set(environment["no_proxy"].split(","))
        environment = {"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}
        spare_loopback(environment)
        assert environment["no_proxy"] == "*"

    @pytest.mark.process
    def test_every_process_begins_with_it(self) -> None:
        code = "import os, perennial; print(os.environ['NO_PROXY'])"
        environment = {**os.environ, "HTTPS_PROXY": "http://proxy:3128"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert "127.0.0.1" in done.stdout


@pytest.mark.process
def test_our_own_questions_pass_a_proxy_by(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, asked = proxy
    monkeypatch.setenv("http_proxy", address)
    assert not is_proxied(f"{address}/api")
    assert not healthy(f"{address}/health")  # it refuses, but was asked itself
    assert asked == ["GET /health"]
    with pytest.raises(Exception, match="answers HTTP Error 403"):
        ask("http://mlflow.example/version")
    assert asked[1:] == ["GET http://mlflow.example/version"]
    remote = Settings(home=tmp_path, tracking_uri="http://mlflow.example", prefect_api_url="http://127.0.0.1:9/api")
    known, through = doctor._CHECKS["proxies"](remote)
    assert (known.status, f"http_proxy={address}" in known.detail) == ("ok", True)
    assert (through.status, "add mlflow.example to NO_PROXY" in through.remedy) == ("warning", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY"])
def test_events_arrive_whatever_proxy_is_named(
    name: str, proxy: tuple[str, list[str]], prefect_url: str, prefect_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With HTTPS_PROXY alone, Prefect's event client asked it for the way to loopback, and lost them without a word."""
    address, asked = proxy
    monkeypatch.setenv(name, address)
    mark = f"perennial.test.{name.lower()}.{time.time_ns()}"
    with use_prefect(prefect_settings, prefect_url):
        from prefect.events import emit_event

        emit_event(event=mark, resource={"prefect.resource.id": "perennial.test"})
    wanted = {"filter": {"event": {"name": [mark]}}}
    deadline = time.monotonic() + 30
    while not (found := ask_json(f"{prefect_url}/events/filter", wanted)["events"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [event["event"] for event in found] == [mark]
    assert asked == []


class TestChildren:
    @pytest.mark.process
    def test_the_current_folder_is_not_imported_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("click", "json", "perennial"):
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the current folder was imported')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/no/such/place{os.pathsep}")
        environment = child_environment()
        assert environment["PYTHONPATH"] == f"{PROJECT_ROOT}{os.pathsep}/no/such/place"
        command = python_command("perennial.cli", "--version")
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        # Nor by what a child starts itself, as MLflow's server does.
        grandchild = [sys.executable, "-m", "perennial.cli", "--version"]
        assert subprocess.run(grandchild, env=environment, capture_output=True, text=True).returncode == 0

    def test_all_servers_are_started_so(self, tmp_path: Path) -> None:
        """That they start beside files with libraries' names: test_up_for_real in operate/test_supervisor.py."""
        settings = Settings(home=tmp_path)
        services = [*services_for(settings), prefect_service(settings), mlflow_service(settings)]
        assert {service.command[:3] for service in services} == {(sys.executable, "-P", "-m")}

    def test_nobody_makes_the_command_of_a_child_himself(self) -> None:
        """A call of sys.executable outside of `surroundings` must bring the environment that is made there."""
        found = []
        for path in (path for layer in ("perennial", "tasks", "flows", "deployments") for path in _modules(layer)):
            text = path.read_text(encoding="utf-8")
            uses = [
                node for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"
            ]  # fmt: skip
            if uses and "child_environment(" not in text:
                found.append(path.relative_to(PROJECT_ROOT).as_posix())
        assert found == []


def _modules(layer: str) -> list[Path]:
    return sorted((PROJECT_ROOT / layer).rglob("*.py"))


def test_the_collector_looks_seldom_in_processes_of_our_own_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        assert main(["--version"]) == 0
        assert gc.get_threshold() == (700, 10, 10)
        monkeypatch.setattr(sys, "argv", ["perennial", "--version"])
        assert main() == 0
        assert gc.get_threshold()[0] > 10_000
    finally:
        gc.set_threshold(*before)
    assert capsys.readouterr().out.count("perennial") == 2


LEAVES = """
import gc, sys
from perennial.surroundings import collect_seldom
class Noisy:
    def __del__(self):
        print("collected")
noisy = Noisy()
noisy.itself = noisy
{asked}
del noisy
"""


@pytest.mark.process
def test_no_process_of_ours_collects_at_its_end() -> None:
    """A loop of references is what a last collection would find."""
    told = {asked: _printed(LEAVES.format(asked=asked)) for asked in ("", "collect_seldom()", "collect_seldom()\n" * 2)}
    assert told == {"": "collected\n", "collect_seldom()": "", "collect_seldom()\n" * 2: ""}


def test_each_process_that_we_start_ends_uncollected() -> None:
    starts = [path for layer in ("perennial", "tasks", "flows", "deployments") for path in _modules(layer)]
    own = {path.relative_to(PROJECT_ROOT).as_posix(): path.read_text("utf-8") for path in starts}
    processes = {name: text for name, text in own.items() if '__name__ == "__main__"' in text}
    assert len(processes) >= 10
    asked = re.compile(r"^    +(collect_seldom|end_uncollected)\(\)", re.MULTILINE)
    # The guard imports nothing that is worth it.
    assert [name for name, text in processes.items() if not asked.search(text)] == ["perennial/operate/guard.py"]


@pytest.mark.process
def test_the_process_of_a_run_is_ours() -> None:
    """Prefect starts it; whoever imports flows otherwise keeps his own collector."""
    look = "import gc; before = gc.get_threshold(); import flows; print(before == gc.get_threshold())"
    assert _printed(look, PREFECT__FLOW_RUN_ID="1") == "False\n"
    assert _printed(look) == "True\n"


def _printed(code: str, **environment: str) -> str:
    """By a process of its own."""
    mine = {name: value for name, value in os.environ.items() if name != "PREFECT__FLOW_RUN_ID"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=mine | environment, capture_output=True, text=True, check=True
    ).stdout
