"""`compose_driver.py FOLDER`: bring compose.yaml up in stages, retrain in it, ask it, end it. Prints what it found.

Run by test_compose_up.py in namespaces of its own, so that networks and ports are nobody else's. FOLDER is a project of
one small model with compose.yaml in docker/. Grafana is left out: there is no stand-in for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
import httpx

sys.path.insert(0, str(engine.ROOT / "tests"))

STAGES = (("postgres", "storage"), ("bucket",), ("prefect", "mlflow"), ("worker", "api"), ("proxy", "prometheus"))
STAGE_SECONDS = 600
RUN_SECONDS = 900
PODMAN_COMPOSE = Path(sys.executable).with_name("podman-compose")


class Project:
    """The running project, and the laptop beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pairs = (line.split("=", 1) for line in (folder / "docker" / ".env").read_text().splitlines() if "=" in line)
        self.secrets = {name: value for name, value in pairs if not name.startswith("#")}
        self.seconds: dict[str, float] = {}
        # What README.md tells to set.
        self.laptop = {
            **os.environ,
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
        for service in services:
            for name in self.containers(service):
                wait_for(lambda name=name: self.is_ready(name), STAGE_SECONDS, lambda name=name: self.log(name))  # type: ignore[misc]
        self.seconds["+".join(services)] = round(time.monotonic() - started, 1)

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
    token = {"authorization": f"Bearer {project.secrets['PREDICT_TOKEN']}"}
    row = small_model.rows(15, 16).drop(columns=["even", "when", "row"]).iloc[:1].to_dict("records")
    with httpx.Client(base_url="http://127.0.0.1:8000", headers=token, timeout=20) as api:
        wait_for(lambda: api.get("/health").json()["models"].get("digits") == 1, 60)
        answers = [api.post("/models/digits/invocations", json={"dataframe_records": row}) for _ in range(20)]
        told["answers"] = sorted({answer.status_code for answer in answers})
        told["version"] = answers[0].json()["version"]
        told["without_token"] = httpx.post("http://127.0.0.1:8000/models/digits/invocations", json={}).status_code
        first, second = project.containers("api")
        engine.podman("stop", "--time", "40", first)
        told["exit_code"] = engine.inspect(first)["State"]["ExitCode"]
        after = [api.post("/models/digits/invocations", json={"dataframe_records": row}) for _ in range(20)]
        told["answers_with_one_replica"] = sorted({answer.status_code for answer in after})
        engine.podman("start", first)
        told["replicas"] = 1 + len([second])

    def both_watched() -> bool:
        asked = {"query": 'sum(up{job="perennial-api"})'}
        found = httpx.get("http://127.0.0.1:9090/api/v1/query", params=asked).json()["data"]["result"]
        return bool(found) and found[0]["value"][1] == "2"

    told["watched"] = bool(wait_for(both_watched, 90))
    told["rules"] = len(httpx.get("http://127.0.0.1:9090/api/v1/rules").json()["data"]["groups"][0]["rules"])
    told["stopped"] = stop(project)
    return told


def stop(project: Project) -> dict[str, int]:
    """Stop what holds state of ours; the exit codes."""
    codes = {}
    for service in ("api", "worker", "mlflow", "prefect"):
        for name in project.containers(service):
            engine.podman("stop", "--time", "60", name, seconds=90)
            codes[name] = engine.inspect(name)["State"]["ExitCode"]
    return codes


def main(folder: Path) -> int:
    project = Project(folder)
    try:
        print(json.dumps(drive(project)), flush=True)
    finally:
        project.compose("down", "--volumes", "--timeout", "5")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
