"""kill -9 of the process in each step of a retraining, then a re-run: one version, one champion, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_model import add, day, define, retrain, rows

from perennial.settings import PROJECT_ROOT
from perennial.state.tables import LAYOUT
from perennial.workspace import Workspace

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("crash_driver.py")


@pytest.fixture(scope="module")
def ingested(make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model's rows and no training yet, to be copied."""
    folder = tmp_path_factory.mktemp("ingested")
    workspace = make_workspace(folder)
    add(workspace, define(workspace), rows(0, 10), as_of=day(10), history=True)
    return folder


@pytest.fixture
def fresh(ingested: Path, tmp_path: Path, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    shutil.copytree(ingested, tmp_path, dirs_exist_ok=True)
    return make_workspace(tmp_path)


class Driver:
    """The process that has imported all, and forks another for each retraining."""

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
        self._complaints = folder / "complaints"
        with self._complaints.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER)], cwd=PROJECT_ROOT, env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        assert self._line() == "ready", self._complaints.read_text()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def __call__(self, workspace: Workspace, step: str, when: str, how: str, *decision: str) -> Drive:
        settings = workspace.settings
        home = Path(settings.home)
        out, err = home / f"{uuid.uuid4().hex}.out", home / f"{uuid.uuid4().hex}.err"
        arguments = [step, when, how, str(home), settings.models, settings.expectations, day(10).isoformat()]
        assert self.process.stdin
        self.process.stdin.write(json.dumps([str(out), str(err), *arguments, *decision]) + "\n")
        self.process.stdin.flush()
        code = self._line()
        assert code, self._complaints.read_text()
        return Drive(int(code), out.read_text(), err.read_text())


@dataclass(frozen=True)
class Drive:
    """How a retraining's process ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def drive(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """With the session's Prefect server in its environment."""
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.process.communicate(timeout=60)
    assert driver.process.returncode == 0


def expect_one_of_everything(workspace: Workspace) -> None:
    registry = workspace.registry
    assert [version.number for version in registry.versions("digits")] == [1]
    assert [(line.sequence, line.version) for line in registry.history("digits")] == [(1, 1)]
    aliases = registry.client.get_registered_model("digits").aliases
    assert {name: int(number) for name, number in aliases.items()} == {"champion": 1}
    manifest = json.loads((workspace.home / "live" / "digits.json").read_text())
    assert (manifest["version"], manifest["sequence"]) == (1, 1)
    assert len(registry.client.search_runs([registry.experiment_id("digits")])) == 1
    assert registry.client.get_run(registry.version("digits", 1).run_id).info.status == "FINISHED"
    outcomes = [row for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"]
    assert [row["version"] for row in outcomes] == [1]
    sizes: dict[str, Any] = {name: len(workspace.store.read("digits", name)) for name in LAYOUT}
    assert (sizes["batches"], sizes["history"]) == (720, 1)


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("search", "after"),
        ("train", "inside"),
        ("judge_challenger", "inside"),
        ("register", "inside"),
        ("promote", "inside"),
    ],
)  # fmt: skip
def test_killed_in_a_step(fresh: Workspace, drive: Driver, step: str, when: str) -> None:
    killed = drive(fresh, step, when, "steps")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    definition = fresh.definition("digits")
    # The dead process holds no lock.
    with fresh.retraining("digits", wait_seconds=5):
        done = retrain(fresh, definition, as_of=day(10))
    assert done.prepared.champion is None
    assert len(done.tuning.trials) == definition.training.tuning.trials
    expect_one_of_everything(fresh)


def test_killed_in_the_flow_the_decision_is_taken_over(fresh: Workspace, drive: Driver, prefect_url: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    ledger = fresh.ledger("digits")
    decision = {"decision_id": "d1", "as_of": day(10).isoformat(), "verdict": "retrain"}
    ledger.record(decision, recorded_at=day(10))
    killed = drive(fresh, "register", "after", "flow", "d1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    (first,) = ledger.entries()[0]["claims"]
    early = drive(fresh, "none", "", "flow", "d1")
    assert early.returncode == 1
    assert f"decision d1 is claimed by {first}" in early.stderr
    with get_client(sync_client=True) as client:  # as the runner, or the heartbeat's automation, does
        client.set_flow_run_state(first, Crashed(), force=True)
    again = drive(fresh, "none", "", "flow", "d1")
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads(again.stdout)["promoted"]
    expect_one_of_everything(fresh)
    (entry,) = ledger.entries()
    assert len(entry["claims"]) == 2
    assert entry["outcome"]["gate_verdict"] == "promote"
    reign = fresh.registry.reign("digits")
    assert reign
    assert (reign.decision_id, reign.by) == ("d1", entry["claimed_by"])
