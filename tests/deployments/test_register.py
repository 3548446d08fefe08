from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import psutil
import pytest
from tiny_world import ALL_FLOWS, MODULE, TINY_FLOWS, by_name, definition, eventually

from deployments.abandoned import PATIENCE, What, take_up
from deployments.automations import ZOMBIE_AUTOMATION, zombie_automation
from deployments.changes import Change
from deployments.register import register, registered, require_server
from deployments.specification import build_deployments
from perennial.errors import ServiceError
from perennial.events import decision_event, model_resource
from perennial.operate.prefect.runs import TAG, troubles
from perennial.operate.prefect.runs import look as look_at
from perennial.operate.servers import Child, Service, free_port, prefect_service
from perennial.settings import PROJECT_ROOT, Settings

pytestmark = [pytest.mark.slow, pytest.mark.waits]


def actions(changes: list[Change]) -> dict[str, str]:
    return {change.name: change.action for change in changes if change.kind == "deployment"}


class TestRegister:
    def test_the_deployments_with_their_schedules(self, client: Any) -> None:
        toy = definition("toy", monitoring={"schedule": "0 6 * * *"}, retraining={"schedule": "0 3 1 * *"})
        changes = register(by_name(toy), TINY_FLOWS)
        names = [f"{kind}/toy" for kind in TINY_FLOWS]
        assert actions(changes) == dict.fromkeys(names, "created")
        found = registered(client)
        assert sorted(found) == sorted(names)
        for kind, cron in {"retrain": "0 3 1 * *", "monitor": "0 6 * * *", "ingest": None, "score": None}.items():
            deployment = found[f"{kind}/toy"]
            assert deployment.parameters == {"model": "toy"}
            assert deployment.tags == [TAG, "toy"]
            assert deployment.entrypoint == f"{MODULE}.{kind}"
            assert deployment.work_queue_name is None
            assert "toy" in (deployment.description or "")
            schedules = [(item.schedule.cron, item.schedule.timezone) for item in deployment.schedules]
            assert schedules == ([(cron, "UTC")] if cron else [])
        retrain = found["retrain/toy"]
        assert retrain.global_concurrency_limit
        assert retrain.global_concurrency_limit.limit == 1
        assert retrain.concurrency_options
        assert retrain.concurrency_options.collision_strategy.value == "ENQUEUE"
        assert found["monitor/toy"].global_concurrency_limit is None

    def test_reviews_have_a_deployment_only_where_they_are_asked_for(self, client: Any) -> None:
        register(by_name(definition("toy", review={"per_day": 5})), ALL_FLOWS)
        (schedule,) = registered(client)["review/toy"].schedules
        assert schedule.schedule.cron == "0 5 * * *"
        assert actions(register(by_name(definition("toy")), ALL_FLOWS))["review/toy"] == "removed"
        assert "review/toy" not in registered(client)

    def test_a_second_time_changes_nothing(self, client: Any) -> None:
        toys = by_name(definition("toy"), definition("other", monitoring={"schedule": "0 6 * * *"}))
        register(toys, TINY_FLOWS)
        before = {name: (item.id, item.updated) for name, item in registered(client).items()}
        automations = {item.id for item in client.read_automations()}
        assert {change.action for change in register(toys, TINY_FLOWS)} == {"unchanged"}
        assert {name: (item.id, item.updated) for name, item in registered(client).items()} == before
        assert {item.id for item in client.read_automations()} == automations

    def test_a_changed_schedule_is_updated_alone(self, client: Any) -> None:
        register(by_name(definition("toy", monitoring={"schedule": "0 6 * * *"})), TINY_FLOWS)
        changed = actions(register(by_name(definition("toy", monitoring={"schedule": "0 7 * * *"})), TINY_FLOWS))
        assert {name for name, action in changed.items() if action != "unchanged"} == {"monitor/toy"}
        (schedule,) = registered(client)["monitor/toy"].schedules
        assert schedule.schedule.cron == "0 7 * * *"
        register(by_name(definition("toy")), TINY_FLOWS)
        assert registered(client)["monitor/toy"].schedules == []

    def test_a_model_that_is_gone_is_removed_and_foreign_deployments_stay(self, client: Any) -> None:
        from prefect.deployments.runner import RunnerDeployment

        module = __import__(MODULE)
        foreign = RunnerDeployment.from_flow(module.monitor, name="foreign", tags=["theirs"]).apply()
        register(by_name(definition("toy"), definition("other")), TINY_FLOWS)
        changes = actions(register(by_name(definition("other")), TINY_FLOWS))
        removed = {name for name, action in changes.items() if action == "removed"}
        assert removed == {f"{kind}/toy" for kind in TINY_FLOWS}
        assert sorted(registered(client)) == sorted(f"{kind}/other" for kind in TINY_FLOWS)
        assert client.read_deployment(foreign).name == "foreign"
        assert not [item for item in client.read_automations() if "retrain toy" in item.name]
        client.delete_deployment(foreign)

    def test_a_deleted_trigger_comes_back(self, client: Any) -> None:
        register(by_name(definition("toy")), TINY_FLOWS)
        (trigger,) = [item for item in client.read_automations() if "retrain toy" in item.name]
        client.delete_automation(trigger.id)
        assert actions(register(by_name(definition("toy")), TINY_FLOWS))["retrain/toy"] == "updated"
        assert [item for item in client.read_automations() if "retrain toy" in item.name]

    def test_the_zombie_automation_is_made_once_and_corrected(self, client: Any) -> None:
        (automation,) = client.read_automations_by_name(ZOMBIE_AUTOMATION)
        changed = zombie_automation(timedelta(seconds=90)).model_copy(update={"description": "somebody's edit"})
        client.update_automation(automation.id, changed)
        (change,) = [item for item in register({}, TINY_FLOWS) if item.name == ZOMBIE_AUTOMATION]
        assert change.action == "updated"
        (corrected,) = client.read_automations_by_name(ZOMBIE_AUTOMATION)
        assert corrected.id == automation.id
        assert corrected.description == automation.description

    def test_the_event_starts_one_retrain_of_its_model_with_the_decision(self, client: Any) -> None:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
        from prefect.events import emit_event

        register(by_name(definition("toy"), definition("other")), TINY_FLOWS)
        found = registered(client)
        ids = {found["retrain/toy"].id: "toy", found["retrain/other"].id: "other"}
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=list(ids)))
        decision = str(uuid4())
        emit_event(
            event=decision_event("retrain"),
            resource={"prefect.resource.id": model_resource("toy")},
            payload={"decision_id": decision, "as_of": "2013-04-01T00:00:00Z"},
        )
        runs = eventually(lambda: client.read_flow_runs(flow_run_filter=mine))
        time.sleep(1)
        runs = client.read_flow_runs(flow_run_filter=mine)
        assert [(ids[run.deployment_id], run.parameters) for run in runs] == [
            ("toy", {"model": "toy", "decision_id": decision, "as_of": "2013-04-01T00:00:00Z"})
        ]

    def test_a_flow_of_another_name_is_a_bug(self, tiny_folder: Path) -> None:
        with pytest.raises(ValueError, match="named 'score', not 'retrain'"):
            build_deployments(definition("toy"), {"retrain": f"{MODULE}:score"})

    def test_no_server(self, prefect_url: str) -> None:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        url = f"http://127.0.0.1:{free_port()}/api"
        with (
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(ServiceError, match=r"no Prefect server answers at http.*perennial up"),
        ):
            require_server()


# It looks more often for what was added and for what died.
RUNNER = f"""
from deployments import runner
runner.REFRESH_SECONDS = runner.ABANDONED_SECONDS = 1
raise SystemExit(runner.main({TINY_FLOWS!r}))
"""
TOY_YAML = """
name: {name}
task: regression
data: {{source: {{csv: rows.csv}}, id: id, time: time, target: y}}
features: {{numeric: [a]}}
"""


@pytest.fixture
def runner(
    client: Any, prefect_url: str, prefect_settings: Settings, tiny_folder: Path, tmp_path: Path
) -> Iterator[Child]:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(TOY_YAML.format(name="toy"))
    (tmp_path / "temporary").mkdir()
    # Where Prefect's runner would make its folder stands what another user has made first.
    (tmp_path / "temporary" / "runner_storage").touch()
    service = Service(
        "runner",
        (sys.executable, "-c", RUNNER),
        environment={
            "PERENNIAL_HOME": str(prefect_settings.home_path),
            "PERENNIAL_MODELS": str(tmp_path / "models"),
            "PYTHONPATH": os.pathsep.join([str(tiny_folder), str(PROJECT_ROOT)]),
            "TINY_FOLDER": str(tmp_path),
            "TMPDIR": str(tmp_path / "temporary"),
        },
        ready_text="perennial runner ready",
        grace_seconds=45,
    )
    child = Child(service, tmp_path)
    child.wait_until_ready(60)
    yield child
    child.stop()


class TestRunner:
    def test_runs_what_is_asked_serves_what_comes_later_runs_again_what_was_killed_and_cancels_on_sigterm(
        self, runner: Child, client: Any, tmp_path: Path
    ) -> None:
        from prefect.deployments import run_deployment

        run = run_deployment("monitor/toy", timeout=60, poll_interval=0.5)
        assert run.state.is_completed()
        # A model that is added meanwhile is registered, with its schedule; one that breaks a rule changes nothing.
        later = tmp_path / "models" / "later.yaml"
        later.write_text(TOY_YAML.format(name="later") + "monitoring: {schedule: never}\n")
        assert eventually(lambda: "not registered: " in runner.log.read_text(), 30)
        assert set(registered(client)) == {f"{kind}/toy" for kind in TINY_FLOWS}
        later.write_text(TOY_YAML.format(name="later") + 'monitoring: {schedule: "0 6 * * *"}\n')
        assert eventually(lambda: "serving" in runner.log.read_text(), 60)
        (schedule,) = registered(client)["monitor/later"].schedules
        assert schedule.schedule.cron == "0 6 * * *"
        late = run_deployment("score/later", timeout=60, poll_interval=0.5)
        assert late.state.is_completed()

        waiting = run_deployment("retrain/toy", parameters={"force": True}, timeout=0)
        note = tmp_path / "toy.pid"
        assert eventually(lambda: note.exists() and note.read_text())
        # A run that is killed is marked as crashed and run again.
        killed = note.read_text()
        psutil.Process(int(killed)).kill()
        # It may be that no more than an instant: what was is kept.
        assert eventually(lambda: any(state.is_crashed() for state in client.read_flow_run_states(waiting.id)))
        assert eventually(lambda: note.read_text() not in ("", killed), 90), client.read_flow_run(waiting.id).state
        assert client.read_flow_run(waiting.id).run_count == 2
        process = psutil.Process(int(note.read_text()))
        second = run_deployment("retrain/toy", timeout=0)
        assert eventually(lambda: client.read_flow_run(second.id).state.name == "AwaitingConcurrencySlot")
        runner.stop()
        assert runner.exit_code() == 0
        assert not process.is_running()
        assert client.read_flow_run(waiting.id).state.is_cancelled()
        assert not any(item.paused for item in registered(client).values())

    def test_what_a_dead_runner_left_is_taken_up_again(self, client: Any, prefect_url: str) -> None:
        from prefect.client.orchestration import get_client
        from prefect.states import Pending, Running

        register(by_name(definition("toy")), TINY_FLOWS)
        run = client.create_flow_run_from_deployment(registered(client)["monitor/toy"].id)
        client.set_flow_run_state(run.id, Pending(), force=True)

        begun = client.create_flow_run_from_deployment(registered(client)["score/toy"].id)
        client.set_flow_run_state(begun.id, Running(), force=True)

        async def look(later: timedelta, most: int = 2) -> dict[str, str]:
            async with get_client() as asynchronous:
                steps = await take_up(asynchronous, [], datetime.now(UTC) + later, most)
                return {step.run.name: step.what for step in steps}

        assert asyncio.run(look(PATIENCE - timedelta(minutes=1))) == {}
        assert client.read_flow_run(run.id).state.is_pending()
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        told = [trouble.detail for trouble in troubles(look_at(prefect_url, in_an_hour), ["toy"], in_an_hour)]
        (found,) = [detail for detail in told if "never began" in detail]
        assert found == f"1 runs were taken and never began; the longest for 60 minutes: {run.name}"
        assert asyncio.run(look(PATIENCE + timedelta(minutes=1))) == {run.name: What.BEGIN, begun.name: What.CRASH}
        assert client.read_flow_run(run.id).state.name == "AwaitingRetry"
        assert client.read_flow_run(begun.id).state.is_crashed()
        assert asyncio.run(look(timedelta(), most=0)) == {}
        assert asyncio.run(look(timedelta())) == {begun.name: What.RERUN}
        assert client.read_flow_run(begun.id).state.name == "AwaitingRetry"


def test_a_runner_without_a_server_fails_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(TOY_YAML.format(name="toy"))
    address = f"http://127.0.0.1:{free_port()}/api"
    environment = {
        "PERENNIAL_HOME": str(tmp_path),
        "PERENNIAL_MODELS": str(tmp_path / "models"),
        "PREFECT_API_URL": address,
    }
    child = Child(Service("runner", (sys.executable, "-c", RUNNER), environment), tmp_path)
    assert eventually(lambda: child.exit_code() is not None, 60)
    assert child.exit_code() == 1
    assert f"no Prefect server answers at {address}" in str(child.failure("ended"))
    child.stop()


def test_a_runner_leaves_a_pool_to_its_workers(tmp_path: Path) -> None:
    child = Child(Service("runner", (sys.executable, "-c", RUNNER), {"PERENNIAL_POOL": "cluster"}), tmp_path)
    assert eventually(lambda: child.exit_code() is not None, 60)
    assert child.exit_code() == 1
    assert "PERENNIAL_POOL = 'cluster': the pool's workers execute the runs, not this runner" in str(child.failure("-"))
    child.stop()


def test_a_runner_ends_when_its_server_stays_away(tmp_path: Path, prefect_url: str, prefect_settings: Settings) -> None:
    code = """
import asyncio
from deployments import runner
from perennial.settings import load_settings
runner.REFRESH_SECONDS = 1
asyncio.run(runner.serve(load_settings(), lost_seconds=2))
"""
    with passing_on(int(prefect_url.split(":")[2].split("/")[0])) as port:
        environment = {
            **prefect_service(prefect_settings, port).environment, "PERENNIAL_HOME": str(prefect_settings.home_path),
        }  # fmt: skip
        child = Child(
            Service("runner", (sys.executable, "-c", code), environment, ready_text="perennial runner ready"), tmp_path
        )
        child.wait_until_ready(60)
        assert child.exit_code() is None
    assert eventually(lambda: child.exit_code() is not None)
    assert child.exit_code() == 1
    assert "has been away for 2 s" in str(child.failure("ended"))
    child.stop()


@contextmanager
def passing_on(target: int) -> Iterator[int]:
    """A port behind which a server of this machine is, and within a moment nobody any more."""
    opened: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                opened.extend((near, far := socket.create_connection(("127.0.0.1", target))))
                for ends in ((near, far), (far, near)):
                    Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened.append(listener)
        Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        for end in opened:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
    for end in opened:
        end.close()
