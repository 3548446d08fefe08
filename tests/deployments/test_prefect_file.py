"""`prefect deploy --all` with the made file means what `perennial deploy --pool` means; a real worker executes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_world import TINY_FLOWS, by_name, definition, eventually

from deployments.pools import Pool
from deployments.prefect_file import render
from deployments.register import register, registered
from perennial.definition import load_definitions
from perennial.errors import ServiceError
from perennial.operate.servers import Child, Service
from perennial.settings import PROJECT_ROOT, Settings


def test_the_committed_file_is_what_the_definitions_say() -> None:
    committed = (PROJECT_ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8")
    assert committed == render(load_definitions([PROJECT_ROOT / "deployments"])), (
        "run: perennial deploy --prefect-file deployments/prefect.yaml"
    )


def test_pool_and_image_can_be_named_in_the_file(tiny_folder: Path) -> None:
    document = yaml.safe_load(render(by_name(definition("toy")), TINY_FLOWS, pool="here", image="worker:1"))
    assert len(document["deployments"]) == len(TINY_FLOWS)
    for entry in document["deployments"]:
        assert entry["work_pool"]["name"] == "here"
        assert entry["work_pool"]["job_variables"]["image"] == "worker:1"


@pytest.mark.slow
def test_both_ways_mean_the_same_and_a_worker_runs_it(
    client: Any, prefect_url: str, prefect_settings: Settings, tiny_folder: Path, tmp_path: Path
) -> None:
    toy = by_name(definition("toy", monitoring={"schedule": "0 6 * * *"}))
    pool = Pool("processes", "process")
    with pytest.raises(ServiceError, match=r"no work pool 'processes'.*deploy --pool processes --pool-type process\|"):
        register(toy, TINY_FLOWS, pool=Pool("processes"))
    dry = register({}, TINY_FLOWS, pool=pool, dry_run=True)
    assert dry[0].line() == "+ work pool processes"
    register({}, TINY_FLOWS, pool=pool)
    try:
        (tmp_path / "prefect.yaml").write_text(render(toy, TINY_FLOWS))
        environment = {**os.environ, "PYTHONPATH": str(tiny_folder), "PERENNIAL_POOL": "processes"}
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
        deployed = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        assert sorted(registered(client)) == sorted(f"{kind}/toy" for kind in TINY_FLOWS)
        before = {name: (item.id, item.updated) for name, item in registered(client).items()}
        changes = register(toy, TINY_FLOWS, pool=Pool("processes"))
        assert {change.line() for change in changes if change.action != "unchanged"} == set()
        assert {name: (item.id, item.updated) for name, item in registered(client).items()} == before
        _run_by_a_worker(client, environment, tmp_path)
        (moved, *_) = [item for item in register(toy, TINY_FLOWS, dry_run=True) if item.name == "monitor/toy"]
        assert moved.differences["work_pool"] == ("processes", None)
    finally:
        client.delete_work_pool("processes")


def _run_by_a_worker(client: Any, environment: dict[str, str], folder: Path) -> None:
    run = client.create_flow_run_from_deployment(registered(client)["monitor/toy"].id)
    worker = Service(
        "worker",
        (sys.executable, "-m", "prefect", "worker", "start", "--pool", "processes", "--run-once"),
        environment,
        grace_seconds=20,
    )
    child = Child(worker, folder)
    try:
        assert eventually(lambda: client.read_flow_run(run.id).state.is_final(), 120), child.failure("ran nothing")
        assert client.read_flow_run(run.id).state.is_completed(), client.read_flow_run(run.id).state
    finally:
        child.stop()
