"""A real Kubernetes worker drives a Job through a fake API that checks it by the strict schema, with our template.

The API is ../shared/oci/fake_kubernetes_api.py. In place of podman it calls a stand-in that runs the pod's command with
the pod's environment and nothing else; that the image itself works is another test's part.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.changes import Change
from deployments.pools import TEMPLATES, Pool
from deployments.register import register, registered
from perennial.definition import ModelDefinition
from perennial.operate.servers import Child, Service, free_port
from perennial.settings import PROJECT_ROOT, Settings

API = PROJECT_ROOT.parent / "shared" / "oci" / "fake_kubernetes_api.py"
pytestmark = [
    pytest.mark.k8s,
    pytest.mark.slow,
    pytest.mark.skipif(not API.exists(), reason="../shared/oci has the fake Kubernetes API"),
]
MODULE = "perennial_pod_flows"
FLOWS = """
from prefect import flow

@flow
def monitor(model: str, fail: bool = False) -> str:
    if fail:
        raise RuntimeError("as asked")
    return model
"""
PODMAN = """#!{python}
import json, os, sys
from pathlib import Path

arguments = sys.argv[1:]
if arguments[0] == "rm":
    sys.exit(0)
environment, rest = {{}}, []
while arguments:
    item = arguments.pop(0)
    if item == "-e":
        name, _, value = arguments.pop(0).partition("=")
        environment[name] = value
    else:
        rest.append(item)
image = rest.index("{image}")
with Path("{note}").open("a") as note:
    note.write(json.dumps({{"flags": rest[:image], "command": rest[image + 1:], "environment": environment}}) + "\\n")
environment |= {{"PATH": "{path}", "PYTHONPATH": "{flows}", "PREFECT_HOME": "{home}", "HOME": "{flows}"}}
if not environment.get("PREFECT_API_AUTH_STRING"):  # the fake API has no Secrets
    environment.pop("PREFECT_API_AUTH_STRING", None)
os.chdir("{flows}")  # the run copies its working folder, as in the image's /app: never a checkout with its packages
os.execvpe(rest[image + 1], rest[image + 1:], environment)
"""
IMAGE = "perennial-worker:test"
AUTH = "perennial:planted-secret"


def toy() -> dict[str, ModelDefinition]:
    raw = {
        "name": "toy", "task": "regression", "features": {"numeric": ["a"]},
        "data": {"source": {"csv": "rows.csv"}, "id": "id", "time": "time", "target": "y"},
    }  # fmt: skip
    return {"toy": ModelDefinition.model_validate(raw)}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    """The fake API's address, with a stand-in for podman that notes what it is asked to run."""
    (tmp_path / f"{MODULE}.py").write_text(FLOWS)
    (tmp_path / "bin").mkdir()
    podman = tmp_path / "bin" / "podman"
    venv = Path(sys.executable).parent
    podman.write_text(
        PODMAN.format(
            python=sys.executable, image=IMAGE, note=tmp_path / "pods.jsonl", flows=tmp_path, home=tmp_path / "pod",
            path=f"{venv}:/usr/bin:/bin",
        )
    )  # fmt: skip
    podman.chmod(podman.stat().st_mode | stat.S_IXUSR)
    port = free_port()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    address = f"http://127.0.0.1:{port}"
    service = Service(
        "kubernetes", (sys.executable, str(API), str(port)), environment,
        health_url=f"{address}/apis/batch/v1/namespaces/perennial/jobs",
    )  # fmt: skip
    child = Child(service, tmp_path)
    child.wait_until_ready(60)
    yield address
    child.stop()


@pytest.fixture
def worker(api: str, prefect_url: str, tmp_path: Path) -> Iterator[Child]:
    cluster = {
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": api}}], "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(cluster))
    environment = {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "PREFECT_API_URL": prefect_url,
        "PREFECT_HOME": str(tmp_path / "worker"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED": "false",
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME": "perennial-secrets",
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY": "PREFECT_API_AUTH_STRING",
    }
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "cluster", "--type", "kubernetes")
    child = Child(Service("worker", command, environment, grace_seconds=30), tmp_path)
    yield child
    child.stop()


@pytest.mark.timeout(600)
def test_a_run_becomes_a_job_that_ends_as_the_flow_does(
    prefect_url: str, prefect_settings: Settings, worker: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.syspath_prepend(str(tmp_path))
    flows = {"monitor": f"{MODULE}:monitor"}
    pool = Pool("cluster", "kubernetes", IMAGE)
    with get_client(sync_client=True) as client:
        register(toy(), flows, pool=pool)
        try:
            again: list[Change] = register(toy(), flows, pool=pool)
            assert {change.action for change in again} == {"unchanged"}
            deployment = registered(client)["monitor/toy"]
            good = client.create_flow_run_from_deployment(deployment.id)
            bad = client.create_flow_run_from_deployment(deployment.id, parameters={"model": "toy", "fail": True})
            ended = [_wait(client, run, worker) for run in (good, bad)]
        finally:
            register({}, flows)
            client.delete_work_pool("cluster")
    assert [state.type.value for state in ended] == ["COMPLETED", "FAILED"], ended
    assert "as asked" in ended[1].message
    asked = [json.loads(line) for line in (tmp_path / "pods.jsonl").read_text().splitlines()]
    assert len(asked) == 2
    for pod in asked:
        assert pod["command"][:3] == ["prefect", "flow-run", "execute"]
        flags = " ".join(pod["flags"])
        assert "-u 10001" in flags
        assert "--read-only" in flags
        assert "--memory 4g" in flags
        environment = pod["environment"]
        # The worker's own home is a folder of its machine: the pool's must count.
        assert environment["PREFECT_HOME"] == "/tmp/prefect"
        assert environment["PREFECT_API_URL"] == prefect_url
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert "planted-secret" not in (tmp_path / "pods.jsonl").read_text()
    assert "planted-secret" not in (tmp_path / "kubernetes.log").read_text()


def _wait(client: Any, run: Any, worker: Child, seconds: float = 240) -> Any:
    import time

    deadline = time.monotonic() + seconds
    while not (state := client.read_flow_run(run.id).state).is_final():
        assert time.monotonic() < deadline, worker.failure(f"left the run {state}")
        time.sleep(0.25)
    return state


def test_the_template_differs_from_prefects_where_it_must() -> None:
    from prefect_kubernetes.worker import KubernetesWorker

    ours = json.loads(TEMPLATES["kubernetes"].read_text())
    theirs = KubernetesWorker.get_default_base_job_template()
    missing = set(theirs["variables"]["properties"]) - set(ours["variables"]["properties"])
    assert missing == set(), "a newer Prefect has variables that the template lacks"
    changed = dict(ours["job_configuration"])
    assert {name: value for name, value in changed.items() if name != "job_manifest"} == {
        name: value for name, value in theirs["job_configuration"].items() if name != "job_manifest"
    }
    pod = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert {"completions", "parallelism"} & set(pod) == set()


def test_the_docker_template_confines_the_container(prefect_url: str) -> None:
    import asyncio

    from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

    template = json.loads(TEMPLATES["docker"].read_text())
    theirs = DockerWorker.get_default_base_job_template()
    assert set(theirs["variables"]["properties"]) == set(template["variables"]["properties"])
    secrets = template["variables"]["properties"]["env"]["default"]
    assert secrets["AWS_SECRET_ACCESS_KEY"].startswith("{{ prefect.blocks.secret.")
    template["variables"]["properties"]["env"]["default"] = {}
    found = asyncio.run(DockerWorkerJobConfiguration.from_template_and_values(template, {"image": IMAGE}))
    assert found.image == IMAGE
    assert found.privileged is False
    assert found.auto_remove is True
    assert found.container_create_kwargs["read_only"] is True
    assert found.container_create_kwargs["cap_drop"] == ["ALL"]
    assert found.container_create_kwargs["user"] == "10001:10001"
