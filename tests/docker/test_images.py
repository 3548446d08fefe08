"""The images really built and run: who they run as, what is in them and what isn't, how they start, answer and stop.

On the stand-in for the base image: Debian's Python instead of the official image's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
import httpx
import pytest
from packaging.utils import canonicalize_name

from perennial.serving.settings import new_token
from perennial.settings import PROJECT_ROOT

pytestmark = [
    pytest.mark.oci,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(engine.why_not()), reason=engine.why_not()),
    pytest.mark.usefixtures("tidy"),
]
LARGEST_MEGABYTES = {"serving": 1000, "worker": 1900, "server": 1900}
START_SECONDS = 300


@pytest.fixture(scope="module", params=engine.TARGETS)
def image(request: pytest.FixtureRequest) -> str:
    engine.build_image(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def serving() -> str:
    engine.build_image("serving")
    return "perennial-serving"


def inside(image: str, *command: str, **options: Any) -> str:
    """What a command prints in a fresh container, without a network, on a read-only root."""
    arguments = ["run", "--rm", "--interactive", "--pull=never", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
    return engine.podman(*arguments, "--cap-drop", "all", image, *command, **options)


def test_it_says_what_it_is_and_runs_as_nobody_special(image: str) -> None:
    facts = engine.inspect(f"perennial-{image}")
    labels, config = facts["Labels"], facts["Config"]
    assert labels["org.opencontainers.image.title"] == "Perennial"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"org.opencontainers.image.version", "org.opencontainers.image.revision"} <= set(labels)
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert "/var/lib/perennial" in config["Volumes"]
    assert not config.get("Entrypoint"), "a work pool sends the whole command"
    assert facts["Healthcheck"]["Test"][:2] == ["CMD", "healthcheck"]
    assert engine.megabytes(f"perennial-{image}") < LARGEST_MEGABYTES[image]
    assert inside(f"perennial-{image}", "id", "-u") == "10001"
    print(f"{image}: {engine.megabytes(f'perennial-{image}')} MB, {engine.megabytes(engine.BASE)} MB of them the base")


def test_no_compiler_no_pip_no_tests_no_secret_is_in_it(image: str) -> None:
    code = (
        "import json, os, shutil, sys; from importlib import util; found = {"
        "'tools': [name for name in ('gcc', 'cc', 'g++', 'make', 'git', 'pip', 'pip3', 'curl', 'wget') "
        "if shutil.which(name)], "
        "'modules': [name for name in ('pip', 'setuptools', 'pytest', 'mypy', 'prefect', 'great_expectations', "
        "'evidently', 'optuna', 'matplotlib', 'tasks', 'flows') if util.find_spec(name)], "
        "'files': sorted(os.listdir('/app')), "
        "'writable': [path for path in ('/app', '/opt/venv', '/etc', '/usr/local/bin') if os.access(path, os.W_OK)], "
        "'tests': os.path.exists('/opt/venv/lib/python3.11/site-packages/pandas/tests')}; print(json.dumps(found))"
    )
    found = json.loads(inside(f"perennial-{image}", "python", "-c", code).splitlines()[-1])
    assert found["tools"] == []
    assert found["writable"] == []
    assert found["tests"] is False
    if image == "serving":
        assert found["modules"] == []
        assert found["files"] == ["deployments", "perennial"]
    else:
        assert {"prefect", "great_expectations", "evidently", "tasks", "flows"} <= set(found["modules"])
        assert {"pip", "setuptools", "pytest", "mypy"} & set(found["modules"]) == set()
        assert found["files"] == [
            "deployments", "docker", "expectations", "flows", "perennial", "pyproject.toml",
            "requirements-serving.lock", "tasks",
        ]  # fmt: skip


def test_its_packages_are_the_lock_s(image: str) -> None:
    """As the image's own Python reads the lock: a package may be meant for certain versions of it only."""
    code = (
        "import json, sys; from importlib.metadata import distributions; from perennial import pins; "
        "print(json.dumps([pins.locked(sys.stdin.read()), {item.name: item.version for item in "
        "distributions(path=['/opt/venv/lib/python3.11/site-packages'])}]))"
    )
    lock = "requirements-serving.lock" if image == "serving" else "requirements-worker.lock"
    text = (PROJECT_ROOT / lock).read_text(encoding="utf-8")
    printed = inside(f"perennial-{image}", "python", "-c", code, input=text)
    wanted, found = (
        {canonicalize_name(name): version for name, version in part.items()}
        for part in json.loads(printed.splitlines()[-1])
    )
    assert len(wanted) > 30
    assert found == wanted


def test_the_command_line_works_on_a_read_only_root(image: str) -> None:
    assert inside(f"perennial-{image}", "perennial", "--version").startswith("perennial, version")
    models = json.loads(inside(f"perennial-{image}", "perennial", "models", "--json"))
    assert {"flights", "bikes"} <= {model["name"] for model in models}


class Container:
    """A running container on the host's network."""

    def __init__(self, image: str, port: int, *options: str, command: tuple[str, ...] = (), health: str = "") -> None:
        self.started = time.monotonic()
        checked = ("--health-cmd", json.dumps(["healthcheck", health])) if health else ()
        self.name = engine.podman(
            "run", "--detach", "--pull=never", "--network", "host", "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "all", "--security-opt", "no-new-privileges", *checked, *options, image, *command,
        )  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def wait_for(self, path: str, status: int = 200) -> float:
        """Until it answers so; the seconds since its start."""
        while time.monotonic() - self.started < START_SECONDS:
            try:
                if self.client.get(path).status_code == status:
                    return time.monotonic() - self.started
            except httpx.TransportError:
                pass
            assert engine.inspect(self.name)["State"]["Running"], self.logs()
            time.sleep(0.1)
        raise AssertionError(f"{path} was not {status}: {self.logs()}")

    def until_healthy(self) -> float:
        """Until its health check says so, once a second; the seconds since its start."""
        while self.health():
            assert engine.inspect(self.name)["State"]["Running"], self.logs()
            assert time.monotonic() - self.started < START_SECONDS, self.logs()
            time.sleep(1)
        return time.monotonic() - self.started

    def health(self) -> int:
        return engine.run("podman", "healthcheck", "run", self.name, check=False).returncode

    def stop(self) -> tuple[int, float]:
        """SIGTERM, as every orchestrator stops: exit code and seconds."""
        started = time.monotonic()
        engine.podman("stop", "--time", "40", self.name)
        return engine.inspect(self.name)["State"]["ExitCode"], time.monotonic() - started

    def logs(self) -> str:
        done = engine.run("podman", "logs", self.name, check=False)
        return (done.stdout + done.stderr)[-3000:]

    def remove(self) -> None:
        self.client.close()
        engine.run("podman", "rm", "--force", "--volumes", "--time", "1", self.name, check=False)


@pytest.fixture
def containers() -> Iterator[list[Container]]:
    made: list[Container] = []
    yield made
    for container in made:
        container.remove()


def test_without_tokens_the_api_refuses_to_be_reachable(serving: str) -> None:
    done = engine.run(
        "podman", "run", "--rm", "--pull=never", "--network", "none", "--read-only", "--tmpfs", "/tmp", serving,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "PERENNIAL_SERVING_TOKENS has no token" in done.stderr


def test_the_api_lives_and_stops_in_order_without_any_model(serving: str, containers: list[Container]) -> None:
    from serving_world import free_port

    port = free_port()
    _, digest = new_token()
    command = ("perennial", "serve", "--host", "0.0.0.0", "--port", str(port))
    container = Container(
        serving, port, "--env", f"PERENNIAL_SERVING_TOKENS=predict:{digest}", "--memory", "1g",
        command=command, health=f"http://127.0.0.1:{port}/ping",
    )  # fmt: skip
    containers.append(container)
    seconds = container.wait_for("/ping")
    assert container.health() == 0
    assert container.client.get("/v2/health/ready").status_code == 503  # no champion yet
    assert container.stop()[0] == 0, container.logs()
    print(f"ready after {seconds:.1f} s")


def engine_of_this_machine(folder: Path) -> None:
    """A `podman` that builds as engine.build does, without a registry; `--build` finds it first."""
    real, options = (
        shutil.which("podman"),
        " ".join(["--isolation chroot --pull=never --network host", *engine.mounts()]),
    )
    path = folder / "podman"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = build ]; then shift; exec {real} build {options} "$@"; fi\nexec {real} "$@"\n'
    )
    path.chmod(0o755)


def test_a_baked_model_answers_with_no_network_to_a_registry(tmp_path: Path, containers: list[Container]) -> None:
    from serving_world import definition_of, free_port, make_workspace, records, register, rows_of

    engine.make_base()
    workspace = make_workspace(tmp_path / "home", definition_of())
    register(workspace, "colours", "one")
    engine_of_this_machine(tmp_path)
    started = time.monotonic()
    done = engine.run(
        sys.executable, "-m", "perennial.cli", "containerize", "colours", "--build", "--json",
        "--output", str(tmp_path / "context"), seconds=engine.BUILD_SECONDS, cwd=PROJECT_ROOT,
        variables={
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PERENNIAL_HOME": str(workspace.home),
            "PERENNIAL_MODELS": str(workspace.home / "models"),
        },
    )  # fmt: skip
    seconds = time.monotonic() - started
    baked = json.loads(done.stdout)  # the build's own output is not among it
    megabytes = engine.megabytes(baked["tag"])
    shutil.rmtree(workspace.home)
    shutil.rmtree(tmp_path / "context")
    token, digest = new_token()
    port = free_port()
    command = ("perennial", "serve", "--host", "127.0.0.1", "--port", str(port))
    container = Container(
        baked["tag"], port, "--env", f"PERENNIAL_SERVING_TOKENS=predict:{digest}",
        "--env", "PERENNIAL_TRACKING_URI=http://127.0.0.1:1", command=command,
    )  # fmt: skip
    containers.append(container)
    labels = engine.inspect(baked["tag"])["Labels"]
    assert (labels["perennial.model"], labels["perennial.version"]) == ("colours", "1")
    assert (labels["perennial.digest"], labels["perennial.lock"]) == (baked["digest"], baked["lock"])
    ready = container.wait_for("/v2/health/ready")
    answer = container.client.post(
        "/models/colours/invocations",
        json={"dataframe_records": records(rows_of(3, 5), "a", "b", "empty", "colour", "code")},
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], len(answer.json()["predictions"])) == (1, 3)
    assert container.client.get("/health").json()["status"] == "ok"
    code, stopping = container.stop()
    assert code == 0, container.logs()
    container.remove()
    engine.podman("rmi", baked["tag"])
    print(f"built in {seconds:.0f} s, {megabytes} MB, ready after {ready:.1f} s, stopped after {stopping:.1f} s")


def test_the_servers_and_the_worker_live_together_and_stop_in_order(containers: list[Container]) -> None:
    """Prefect's server and MLflow's from one image, a worker that registers the models' flows and serves them."""
    from serving_world import free_port

    for target in ("server", "worker"):
        engine.build_image(target)
    ports = {"prefect": free_port(), "mlflow": free_port()}
    prefect = Container(
        "perennial-server", ports["prefect"],
        command=("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(ports["prefect"])),
        health=f"http://127.0.0.1:{ports['prefect']}/api/health",
    )  # fmt: skip
    containers.append(prefect)
    told = {"prefect": prefect.wait_for("/api/health")}
    assert prefect.client.get("/api/admin/version").status_code == 200
    assert prefect.client.get("/").status_code == 200  # its pages, written to a tmpfs
    mlflow = Container(
        "perennial-server", ports["mlflow"], "--env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
        "--env", "MLFLOW_BACKEND_STORE_URI=sqlite:////var/lib/perennial/mlflow.db",
        command=("mlflow", "server", "--host", "127.0.0.1", "--port", str(ports["mlflow"]), "--workers", "1"),
        health=f"http://127.0.0.1:{ports['mlflow']}/health",
    )  # fmt: skip
    containers.append(mlflow)
    told["mlflow"] = mlflow.wait_for("/health")
    worker = Container(
        "perennial-worker", ports["prefect"],
        "--env", f"PERENNIAL_PREFECT_API_URL=http://127.0.0.1:{ports['prefect']}/api",
        "--env", f"PERENNIAL_TRACKING_URI=http://127.0.0.1:{ports['mlflow']}",
    )  # fmt: skip
    containers.append(worker)
    assert worker.health() != 0  # nothing is served yet
    told["worker"] = worker.until_healthy()
    assert worker.client.get("/api/deployments/name/retrain/flights").status_code == 200
    for name, container in (("worker", worker), ("mlflow", mlflow), ("prefect", prefect)):
        assert container.health() == 0, name
        code, told[f"{name}'s stop"] = container.stop()
        assert code == 0, f"{name}: {code}\n{container.logs()}"
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in told.items()))
