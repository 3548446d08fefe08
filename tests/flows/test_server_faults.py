"""The servers behind a flow go away while it runs: it waits for them, ends well, and nothing is there twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import services
from small_model import add, day, define, rows

from perennial.servers import Child, free_port, prefect_service, prepare_home, use_prefect
from perennial.settings import Settings
from perennial.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture
def on_postgres(
    tmp_path: Path, postgres: services.Postgres, make_workspace: Callable[[Path], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:  # fmt: skip
    """A workspace whose registry and whose Prefect are on PostgreSQL, in this process's environment."""
    workspace = make_workspace(tmp_path)
    settings = workspace.settings
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        monkeypatch.delenv(name)
    registry, runs = postgres.database(f"r-{tmp_path.name}"), postgres.database(f"p-{tmp_path.name}")
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
    monkeypatch.setenv("PERENNIAL_TRACKING_URI", f"postgresql://{registry}")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://{runs}")
    return Workspace(Settings(), patient=True)


def kill_tree(pid: int) -> None:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)


def test_a_retraining_outlives_its_database_and_its_server(
    on_postgres: Workspace, postgres: services.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from flows.retrain import retrain
    from tasks import retraining

    workspace = on_postgres
    add(workspace, define(workspace), rows(0, 10), as_of=day(10), history=True)
    home, port = prepare_home(workspace.settings), free_port()
    service = prefect_service(workspace.settings, port)
    servers = [Child(service, home / "logs")]
    broken: list[str] = []

    def before(step: str, fault: Callable[[], None]) -> None:
        plain = getattr(retraining, step)

        def run(*arguments: Any, **more: Any) -> Any:
            broken.append(step)
            fault()
            return plain(*arguments, **more)

        run.__name__ = step
        monkeypatch.setattr(retraining, step, run)

    def stop_database() -> None:
        postgres.stop()
        timers.append(threading.Timer(4, postgres.start))
        timers[-1].start()

    def stop_server() -> None:
        kill_tree(servers[-1].pid)
        timers.append(threading.Timer(1, lambda: servers.append(Child(service, home / "logs"))))
        timers[-1].start()

    timers: list[threading.Timer] = []
    before("train", stop_database)
    before("judge_challenger", stop_server)
    try:
        servers[0].wait_until_ready()
        with use_prefect(workspace.settings, f"{service.address}/api"):
            made = retrain("digits", as_of=day(10))
            assert broken == ["train", "judge_challenger"], "nothing was broken: the test shows nothing"
            assert made["promoted"]
            with get_client(sync_client=True) as client:
                (run,) = client.read_flow_runs()
                assert run.state_name == "Completed"
                steps = {task.name.rsplit("-", 1)[0] for task in client.read_task_runs()}
        # Prefect's page may lack steps of the time that its server was away: the ledger has what counts.
        assert steps >= {"prepare", "tune"}
    finally:
        for timer in timers:
            timer.join()
        for server in servers:
            server.stop()
    registry = workspace.registry
    assert [version.number for version in registry.versions("digits")] == [1]
    assert [line.version for line in registry.history("digits")] == [1]
    assert len(registry.client.search_runs([registry.experiment_id("digits")])) == 1
    outcomes = [row for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"]
    assert [row["version"] for row in outcomes] == [1]
