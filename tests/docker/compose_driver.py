"""`compose_driver.py FOLDER`: bring compose.yaml up in stages, retrain in it, ask it, end it. Prints what it found.

Run by test_compose_up.py in namespaces of its own, so that networks and ports are nobody else's. FOLDER is a project of
one small model with compose.yaml in docker/. The commands of docs/operate.md for containers are run as they stand, with
podman-compose for docker compose. Grafana is left out: there is no stand-in for it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
import httpx
import yaml
from lean_processes import trusting_environment

sys.path.insert(0, str(engine.ROOT / "tests" / "worlds"))

STAGES = (("postgres", "storage"), ("bucket",), ("prefect", "mlflow"), ("worker", "api"), ("proxy", "prometheus"))
STAGE_SECONDS = 600
RUN_SECONDS = 900
PODMAN_COMPOSE = Path(sys.executable).with_name("podman-compose")
MANUAL = re.findall(
    r"^```bash\n(.*?)^```", (engine.ROOT / "docs" / "operate.md").read_text(encoding="utf-8"), re.M | re.S
)


class Project:
    """The running project, and the laptop beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(yaml.safe_load((folder / "docker" / "compose.yaml").read_text(encoding="utf-8"))["name"])
        pairs = (line.split("=", 1) for line in (folder / "docker" / ".env").read_text().splitlines() if "=" in line)
        self.secrets = {name: value for name, value in pairs if not name.startswith("#")}
        self.seconds: dict[str, float] = {}
        # What README.md tells to set.
        self.laptop = {
            **trusting_environment(os.environ),
            "PERENNIAL_HOME": str(folder / "laptop"),
            "PERENNIAL_MODELS": str(folder / "deployments"),
            "PERENNIAL_EXPECTATIONS": str(folder / "expectations"),
            "PERENNIAL_TABLES": "s3://perennial-state/tables",
            "PERENNIAL_TRACKING_URI": "http://127.0.0.1:5000",
            "PERENNIAL_PREFECT_API_URL": "http://127.0.0.1:4200/api",
            "PREFECT_API_AUTH_STRING": self.secrets["PREFECT_AUTH"],
            "AWS_ENDPOINT_URL": "http://127.0.0.1:8333",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.secrets["S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["S3_SECRET_KEY"],
        }

    def compose(self, *arguments: str, seconds: float = 900) -> str:
        command = (str(PODMAN_COMPOSE), "-f", str(self.folder / "docker" / "compose.yaml"), *arguments)
        return engine.run(*command, seconds=seconds, cwd=self.folder / "docker").stdout

    def containers(self, service: str) -> list[str]:
        label = f"label=com.docker.compose.service={service}"
        return engine.podman("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()

    def up(self, services: tuple[str, ...]) -> None:
        started = time.monotonic()
        self.compose("up", "--detach", "--no-build", "--no-deps", *services)
        self.wait(services)
        self.seconds["+".join(services)] = round(time.monotonic() - started, 1)

    def wait(self, services: tuple[str, ...]) -> None:
        """Until each container of theirs is healthy, or is through with what it had to do."""
        for service in services:
            for name in self.containers(service):
                wait_for(lambda name=name: self.is_ready(name), STAGE_SECONDS, lambda name=name: self.log(name))  # type: ignore[misc]

    def is_ready(self, name: str) -> bool:
        state = engine.inspect(name)["State"]
        if "bucket" in name:
            assert state["Running"] or state["ExitCode"] == 0, self.log(name)
            return not state["Running"]
        assert state["Running"], self.log(name)
        return engine.run("podman", "healthcheck", "run", name, check=False).returncode == 0

    def log(self, name: str) -> str:
        done = engine.run("podman", "logs", "--tail", "40", name, check=False)
        return f"{name}:\n{done.stdout[-2500:]}{done.stderr[-2500:]}"

    def perennial(self, *arguments: str) -> Any:
        """A command of the laptop's, with what it prints as JSON."""
        command = [sys.executable, "-m", "perennial.cli", *arguments, "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.laptop, cwd=engine.ROOT, timeout=RUN_SECONDS
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr[-3000:]}"
        return json.loads(done.stdout)

    def follow_the_manual(self) -> str:
        """What docs/operate.md says about containers, in one shell; what it prints."""
        (self.folder / "bin").mkdir()
        docker = self.folder / "bin" / "docker"
        docker.write_text(f'#!/bin/sh\n[ "$1" = compose ] || exit 64\nshift\nexec {PODMAN_COMPOSE} "$@"\n')
        docker.chmod(0o755)
        (self.folder / "backups").mkdir()
        done = engine.run(
            "bash", "-euo", "pipefail", "-c", "\n".join(MANUAL), seconds=600, cwd=self.folder,
            variables={"PATH": f"{docker.parent}:{os.environ['PATH']}", "BACKUPS": str(self.folder / "backups")},
        )  # fmt: skip
        return done.stdout

    def deployments(self) -> set[str]:
        """The names of what the worker has registered."""
        user, password = self.secrets["PREFECT_AUTH"].split(":")
        url = "http://127.0.0.1:4200/api/deployments/filter"
        return {item["name"] for item in httpx.post(url, json={}, auth=(user, password), timeout=30).json()}

    def run_flow(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment on the worker, to its end."""
        user, password = self.secrets["PREFECT_AUTH"].split(":")
        with httpx.Client(base_url="http://127.0.0.1:4200/api", auth=(user, password), timeout=30) as prefect:
            found = wait_for(lambda: prefect.get(f"/deployments/name/{deployment}").json().get("id"), 60)
            asked = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
            run = prefect.post(f"/deployments/{found}/create_flow_run", json=asked).json()

            def ended() -> Any:
                state = prefect.get(f"/flow_runs/{run['id']}").json()["state"]
                return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

            state: dict[str, Any] = wait_for(ended, RUN_SECONDS, lambda: self.log(self.containers("worker")[0]))
        assert state["type"] == "COMPLETED", f"{state}\n{self.log(self.containers('worker')[0])}"
        return state


def wait_for(found: Callable[[], Any], seconds: float, otherwise: Callable[[], str] = lambda: "") -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := found():
            return value
        time.sleep(0.5)
    raise AssertionError(f"it did not come true in {seconds:g} s. {otherwise()}")


def drive(project: Project) -> dict[str, Any]:
    """Everything that is promised, once."""
    import small_model

    for stage in STAGES:
        project.up(stage)
    told: dict[str, Any] = {"seconds": project.seconds}
    told["unauthorised"] = httpx.get("http://127.0.0.1:4200/api/flows/count").status_code
    rows = project.folder / "rows.parquet"
    small_model.rows(0, 15).to_parquet(rows)
    at = small_model.day(15).isoformat()
    told["ingested"] = project.perennial("ingest", "digits", str(rows), "--history", "--as-of", at)["kept"]
    told["retrain"] = project.run_flow("retrain/digits", model="digits", as_of=at)["type"]
    told["status"] = project.perennial("status", "digits")
    told |= try_the_manual(project)
    told |= ask_the_api(project)
    told |= ask_prometheus()
    told["stopped"] = stop(project)
    return told


def try_the_manual(project: Project) -> dict[str, Any]:
    """Its commands, with a definition that is new, and what came of them."""
    folder, old = project.folder, project.secrets["MLFLOW_DATABASE_PASSWORD"]
    definition = (folder / "deployments" / "digits.yaml").read_text(encoding="utf-8")
    (folder / "deployments" / "more.yaml").write_text(
        definition.replace("name: digits", "name: more"), encoding="utf-8"
    )
    (folder / "expectations" / "more.json").write_bytes((folder / "expectations" / "digits.json").read_bytes())
    before = project.deployments()
    told: dict[str, Any] = {"manual": project.follow_the_manual().splitlines()}
    for stage in STAGES:
        project.wait(stage)
    told["new_deployments"] = sorted(wait_for(lambda: project.deployments() - before, 60))
    told["dumps"] = [path.read_bytes()[:5].decode() for path in sorted((folder / "backups").iterdir())]
    (postgres,) = project.containers("postgres")
    ask = ["podman", "exec", "--env", f"PGPASSWORD={old}", postgres, "psql", "-h", "postgres", "-U", "mlflow", "-c", ""]
    told["old_password"] = engine.run(*ask, check=False).stderr
    found = httpx.get("http://127.0.0.1:5000/api/2.0/mlflow/registered-models/search", timeout=60)
    told["models"] = [model["name"] for model in found.json()["registered_models"]]
    return told


def ask_the_api(project: Project) -> dict[str, Any]:
    """It answers through the proxy, with both replicas and with one."""
    import small_model

    token = {"authorization": f"Bearer {project.secrets['PREDICT_TOKEN']}"}
    row = small_model.rows(15, 16).drop(columns=["even", "when", "row"]).iloc[:1].to_dict("records")
    told: dict[str, Any] = {}
    with httpx.Client(base_url="http://127.0.0.1:8000", headers=token, timeout=20) as api:
        wait_for(lambda: api.get("/health").json()["models"].get("digits") == 1, 60)

        def answers() -> list[httpx.Response]:
            return [api.post("/models/digits/invocations", json={"dataframe_records": row}) for _ in range(20)]

        first = answers()
        told["answers"] = sorted({answer.status_code for answer in first})
        told["version"] = first[0].json()["version"]
        told["without_token"] = httpx.post("http://127.0.0.1:8000/models/digits/invocations", json={}).status_code
        replicas = project.containers("api")
        told["replicas"] = len(replicas)
        engine.podman("stop", "--time", "40", replicas[0])
        told["exit_code"] = engine.inspect(replicas[0])["State"]["ExitCode"]
        told["answers_with_one_replica"] = sorted({answer.status_code for answer in answers()})
        if told["answers_with_one_replica"] != [200]:
            print(project.log(project.containers("proxy")[0]), file=sys.stderr)
        engine.podman("start", replicas[0])
    return told


def ask_prometheus() -> dict[str, Any]:
    """What it watches: both replicas, and itself."""

    def up() -> dict[str, int]:
        found = httpx.get("http://127.0.0.1:9090/api/v1/targets").json()["data"]["activeTargets"]
        return Counter(target["labels"]["job"] for target in found if target["health"] == "up")

    wanted = {"perennial-api": 2, "prometheus": 1}
    wait_for(lambda: up() == wanted, 120, lambda: str(up()))
    groups = httpx.get("http://127.0.0.1:9090/api/v1/rules").json()["data"]["groups"]
    return {"watched": up(), "rules": len(groups[0]["rules"])}


def stop(project: Project) -> dict[str, int]:
    """Stop all that is ours; the exit codes."""
    codes = {}
    for service in ("api", "worker", "mlflow", "prefect"):
        for name in project.containers(service):
            engine.podman("stop", "--time", "60", name, seconds=90)
            codes[name] = engine.inspect(name)["State"]["ExitCode"]
    return codes


def main(folder: Path) -> int:
    project = Project(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))  # and everything is taken down
    try:
        print(json.dumps(drive(project)), flush=True)
    finally:
        engine.remove_project(project.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
