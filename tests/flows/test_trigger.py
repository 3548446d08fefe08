"""The real thing: a check on real data, its event, the runner that retrains, the gate, and the alias that moves."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from small_model import add, day, define, retrain, rows

from deployments.register import register
from perennial.operate.servers import Child, Service
from perennial.settings import PROJECT_ROOT, Settings
from perennial.workspace import Workspace
from tasks.steps.score import load_version, score_unscored

pytestmark = [pytest.mark.slow, pytest.mark.waits]
GROWTH = {
    # A few hundred rows prove little: let past what is surely not much worse, and don't let a lucky trial choose.
    "gate": {"margin": 0.3},
    "training": {"parameters": {"C": 1.0}},
    "monitoring": {
        "persistence": "1 of 1", "cooldown": "1d", "growth": 1.3, "recalibrate": False,
        "triggers": {"quality": False, "drift": False},
    }
}  # fmt: skip


def eventually(true: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.5)
    return found


@cache
def client() -> Any:
    """One for all questions of this module: to make one costs more than to ask."""
    from prefect.client.orchestration import get_client

    made = get_client(sync_client=True)
    made.__enter__()
    return made


@pytest.fixture(scope="module")
def world(
    prefect_url: str, make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """Three models with a champion of day 8, grown data by day 16 and nobody told; deployed."""
    folder = tmp_path_factory.mktemp("trigger")
    workspace = make_workspace(folder)
    settings = workspace.settings
    for name in ("event", "lost", "broken"):
        definition = define(workspace, name=name, **GROWTH)
        add(workspace, definition, rows(0, 8), as_of=day(8), history=True)
        made = retrain(workspace, definition, as_of=day(8))
        assert made.reign
        newer = rows(8, 16)
        if name == "broken":  # a unit changed in the last window
            newer.loc[newer["when"] >= day(13), [f"ink_{number}1" for number in range(4)]] /= 1000
        add(workspace, definition, newer, as_of=day(16))
        pipeline = load_version(workspace.registry, made.version, definition)
        score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(16))
    with pytest.MonkeyPatch.context() as patch:
        for variable in [variable for variable in os.environ if variable.startswith("PERENNIAL_")]:
            patch.delenv(variable)
        patch.setenv("PERENNIAL_HOME", str(settings.home))
        patch.setenv("PERENNIAL_MODELS", settings.models)
        patch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
        register(workspace.definitions())
        yield workspace
        client().__exit__(None, None, None)
        client.cache_clear()
        register({})


@pytest.fixture(scope="module")
def runner(
    world: Workspace, prefect_url: str, prefect_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Child]:
    """`python -m deployments.runner`, as the supervisor starts it."""
    environment = {
        **{name: os.environ[name] for name in ("PERENNIAL_HOME", "PERENNIAL_MODELS", "PERENNIAL_EXPECTATIONS")},
        "PREFECT_API_URL": prefect_url,
        "PERENNIAL_PREFECT_API_URL": prefect_url,  # the session's, which is another home's
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    service = Service(
        "runner", (sys.executable, "-m", "deployments.runner"), environment=environment,
        ready_text="perennial runner ready", grace_seconds=45,
    )  # fmt: skip
    child = Child(service, tmp_path_factory.mktemp("runner"))
    try:
        child.wait_until_ready(90)
        yield child
    finally:
        child.stop()


def runs(model: str) -> list[Any]:
    """The retrain runs that a deployment started, oldest first."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowFilter, FlowFilterName

    return list(
        client().read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[model])),
        )
    )


def announced(model: str) -> dict[str, dict[str, Any]]:
    """The payloads of the model's events on the server, by the event's name."""
    wanted = {"resource": {"id": [f"perennial.model.{model}"]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}
    found = client().request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
    return {item["event"]: item["payload"] for item in found}


def finished(model: str) -> Any:
    found = runs(model)
    return found if found and all(run.state.is_final() for run in found) else None


def test_a_lost_event_is_made_up_for_by_the_next_check(world: Workspace) -> None:
    """Before there is a runner: the run that the check creates is carried out here as a runner's process does."""
    from prefect.flow_engine import run_flow

    from flows.monitor import monitor
    from flows.retrain import retrain as flow

    decision = monitor("lost", as_of=day(16), report=False, trigger=False)
    assert decision["verdict"] == "retrain"
    assert world.ledger("lost").entries()[0]["claimed_by"] is None
    later = monitor("lost", as_of=day(16.01), report=False)
    assert later["verdict"] == "hold"  # the cooldown of the first
    (asked,) = runs("lost")
    assert asked.state_name == "Scheduled"
    run_flow(flow, flow_run=asked, parameters=asked.parameters)
    (run,) = runs("lost")
    assert run.idempotency_key == f"{decision['decision_id']}:1"
    assert run.state_name == "Completed", run.state.message
    monitor("lost", as_of=day(16.02), report=False)
    time.sleep(2)
    assert len(runs("lost")) == 1
    entry = world.ledger("lost").entries()[0]
    assert (entry["decision_id"], entry["claimed_by"]) == (decision["decision_id"], str(run.id))
    assert entry["outcome"]["gate_verdict"] == "promote"


def test_grown_data_leads_to_a_new_champion_once(world: Workspace, runner: Child) -> None:
    from prefect.deployments import run_deployment

    from flows.monitor import monitor

    decision = monitor("event", as_of=day(16), report=False)
    assert decision["verdict"] == "retrain", decision["reasons"]
    (run,) = eventually(lambda: finished("event"), 150) or [None]
    assert run, runs("event")
    assert run.state_name == "Completed", run.state.message
    assert run.parameters["decision_id"] == decision["decision_id"]
    (entry,) = world.ledger("event").entries()
    assert entry["claimed_by"] == str(run.id)
    history = world.registry.history("event")
    assert entry["outcome"]["gate_verdict"] == "promote", entry["outcome"]["reasons"]
    assert [(line.version, line.decision_id) for line in history] == [(1, None), (2, decision["decision_id"])]
    aliases = world.registry.client.get_registered_model("event").aliases
    assert (int(aliases["champion"]), int(aliases["previous"])) == (2, 1)
    told = eventually(lambda: announced("event").get("perennial.model.promoted"))
    assert (told["version"], told["previous"], told["sequence"], told["action"]) == (2, 1, 2, "promote")
    assert told["subject"] == "event: version 2 is champion"
    assert told["reason"] in told["text"]
    # The same check again: nobody is asked a second time.
    monitor("event", as_of=day(16), report=False)
    monitor("event", as_of=day(16.1), report=False)
    time.sleep(2)
    assert len(runs("event")) == 1
    assert len(world.registry.history("event")) == 2
    # An event that comes twice: the second run ends as skipped, which nobody is told of as a failure.
    again = run_deployment("retrain/event", parameters=dict(run.parameters), timeout=150, poll_interval=1)
    assert (again.state_name, again.state.type.value) == ("Skipped", "COMPLETED"), again.state.message
    assert f"was carried out by {run.id}" in again.state.message
    assert len(world.registry.history("event")) == 2


def test_broken_data_starts_nothing(world: Workspace, runner: Child) -> None:
    from flows.monitor import monitor

    decision = monitor("broken", as_of=day(16), report=False)
    assert decision["verdict"] == "repair"
    told = eventually(lambda: announced("broken").get("perennial.decision.repair"))
    time.sleep(2)  # what reads events for triggers has them as soon as what writes them down
    assert runs("broken") == []
    assert (told["decision_id"], told["subject"]) == (decision["decision_id"], "broken: its data needs repair")
    assert told["text"].splitlines() == list(decision["reasons"])


def test_a_rollback_by_hand_is_announced(world: Workspace, runner: Child, prefect_url: str) -> None:
    from perennial.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
        assert main(["rollback", "event", "--by", "ann", "--reason", "complaints"]) == 0
    told = eventually(lambda: announced("event").get("perennial.model.rolled-back"))
    assert (told["version"], told["previous"], told["by"], told["reason"]) == (1, 2, "ann", "complaints")
    assert told["subject"] == "event: version 1 is champion again"
