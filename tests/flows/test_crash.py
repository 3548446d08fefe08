"""kill -9 of the process in each step of a retraining, then a re-run: one version, one champion, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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


def drive(workspace: Workspace, step: str, when: str, how: str, *decision: str) -> subprocess.CompletedProcess[str]:
    settings = workspace.settings
    arguments = [step, when, how, str(settings.home), settings.models, settings.expectations, day(10).isoformat()]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    return subprocess.run(
        [sys.executable, str(DRIVER), *arguments, *decision], cwd=PROJECT_ROOT, env=environment, capture_output=True,
        text=True, timeout=200,
    )  # fmt: skip


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
def test_killed_in_a_step(fresh: Workspace, step: str, when: str) -> None:
    killed = drive(fresh, step, when, "steps")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    definition = fresh.definition("digits")
    # The dead process holds no lock.
    with fresh.retraining("digits", wait_seconds=5):
        done = retrain(fresh, definition, as_of=day(10))
    assert done.prepared.champion is None
    assert len(done.tuning.trials) == definition.training.tuning.trials
    expect_one_of_everything(fresh)


def test_killed_in_the_flow_the_decision_is_taken_over(fresh: Workspace, prefect_url: str) -> None:
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
