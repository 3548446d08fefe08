"""Automations on a real Prefect server: dead runs, capped re-runs, messages and webhooks that really arrive."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from tiny_world import TINY_FLOWS, Receiver, by_name, definition, eventually

from deployments.automation_config import Automations
from deployments.automations import (
    PENDING_AUTOMATION,
    RERUN_AUTOMATION,
    ZOMBIE_AUTOMATION,
    ours,
    pending_automation,
    zombie_automation,
)
from deployments.changes import Change
from deployments.pools import Pool
from deployments.register import register, registered
from perennial.errors import DefinitionError, NotFoundError
from perennial.events import PROMOTED, decision_event, model_resource

pytestmark = [pytest.mark.slow, pytest.mark.waits]
TOY = by_name(definition("toy"))


def config(**sections: Any) -> Automations:
    return Automations.model_validate(sections)


def apply(automations: Automations, **options: Any) -> list[Change]:
    """The changes other than of deployments."""
    changes = register(TOY, TINY_FLOWS, automations=automations, **options)
    return [change for change in changes if change.kind != "deployment"]


def told(changes: list[Change]) -> dict[str, str]:
    return {change.name: change.action for change in changes}


def emit(event: str, of: str, /, **payload: Any) -> None:
    from prefect.events import emit_event

    emit_event(event=event, resource={"prefect.resource.id": model_resource(of)}, payload=payload)


def new_run(client: Any) -> Any:
    return client.create_flow_run_from_deployment(registered(client)["retrain/toy"].id, name="dying")


def set_state(client: Any, run: Any, name: str) -> None:
    from prefect.states import Completed, Crashed, Failed, Pending, Running

    states = {"Pending": Pending, "Running": Running, "Crashed": Crashed, "Completed": Completed, "Failed": Failed}
    client.set_flow_run_state(run.id, states[name](message=f"{name} it is"), force=True)


TEAM = {"name": "team", "on": ["repair", "failed"], "models": ["toy"], "url_env": "TEAM_URL"}
HOOK = {"name": "hook", "webhook": {"url_env": "HOOK_URL", "token_env": "HOOK_TOKEN"}}


@pytest.fixture
def secrets(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("TEAM_URL", f"json://user:{'s3cret'}@{receiver.address}/team")
    monkeypatch.setenv("HOOK_URL", f"http://{receiver.address}/hook")
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    return receiver


class TestPlan:
    def test_made_once_changed_alone_and_removed_when_no_longer_wanted(
        self, client: Any, secrets: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = config(notifications=[TEAM], deliveries=[HOOK])
        made = told(apply(full))
        assert made == {
            "slack-webhook/perennial-team": "created", "webhook/perennial-hook": "created",
            ZOMBIE_AUTOMATION: "unchanged", PENDING_AUTOMATION: "unchanged", RERUN_AUTOMATION: "unchanged",
            "perennial: tell team of models": "created", "perennial: tell team of runs": "created",
            "perennial: deliver to hook": "created",
        }  # fmt: skip
        before = {item.name: item.model_dump() for item in ours(client)}
        assert set(told(apply(full)).values()) == {"unchanged"}
        assert {item.name: item.model_dump() for item in ours(client)} == before

        monkeypatch.setenv("HOOK_TOKEN", "another-s3cret")
        dry = apply(config(notifications=[TEAM | {"on": ["failed"]}], deliveries=[HOOK]), dry_run=True)
        (changed,) = [change for change in dry if change.action == "updated"]
        assert changed.line() == "~ channel webhook/perennial-hook  headers: (set) → (set anew)"
        (removed,) = [change for change in dry if change.action == "removed"]
        assert removed.line() == "- automation perennial: tell team of models"
        assert "s3cret" not in json.dumps([change.line() for change in dry])
        assert {item.name: item.model_dump() for item in ours(client)} == before

        gone = told(apply(config()))
        assert {name for name, action in gone.items() if action == "removed"} == set(made) - {
            ZOMBIE_AUTOMATION, PENDING_AUTOMATION, RERUN_AUTOMATION,
        }  # fmt: skip
        assert {item.name for item in ours(client)} == {ZOMBIE_AUTOMATION, PENDING_AUTOMATION, RERUN_AUTOMATION}

    def test_what_others_made_stays(self, client: Any) -> None:
        foreign = zombie_automation(timedelta(seconds=77)).model_copy(update={"name": "theirs", "tags": []})
        identity = client.create_automation(foreign)
        apply(config())
        assert client.read_automation(identity).name == "theirs"
        client.delete_automation(identity)

    def test_of_two_of_one_name_one_stays(self, client: Any) -> None:
        apply(config())
        client.create_automation(zombie_automation(timedelta(seconds=90)))
        changes = [change for change in apply(config()) if change.action != "unchanged"]
        assert [(change.name, change.action) for change in changes] == [(ZOMBIE_AUTOMATION, "removed")]
        assert [item.name for item in ours(client)].count(ZOMBIE_AUTOMATION) == 1

    def test_a_changed_rule_is_told_and_made(self, client: Any) -> None:
        apply(config())
        (change,) = [item for item in apply(config(zombies={"after": "2m"}), dry_run=True) if item.action == "updated"]
        assert change.name == ZOMBIE_AUTOMATION
        assert "No heartbeat for 90 s: the process is gone. → No heartbeat for 120 s" in change.line()
        none = told(apply(config(reruns={"most": 0})))
        assert none[RERUN_AUTOMATION] == "removed"
        assert told(apply(config()))[RERUN_AUTOMATION] == "created"

    def test_missing_secrets_are_all_named_before_anything_changes(
        self, client: Any, secrets: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = config(notifications=[TEAM], deliveries=[HOOK])
        for name in ("TEAM_URL", "HOOK_TOKEN"):
            monkeypatch.delenv(name)
        with pytest.raises(DefinitionError, match=r"the environment lacks: TEAM_URL, HOOK_TOKEN\. Set them"):
            register(TOY, TINY_FLOWS, automations=full)
        assert registered(client) == {}
        monkeypatch.setenv("TEAM_URL", "json://127.0.0.1:9/")
        monkeypatch.setenv("HOOK_TOKEN", "s3cret")
        apply(full)
        for name in ("TEAM_URL", "HOOK_TOKEN", "HOOK_URL"):
            monkeypatch.delenv(name)
        assert set(told(apply(full)).values()) == {"unchanged"}  # the server keeps what it was given once

    def test_an_address_that_apprise_does_not_know_is_refused_and_not_shown(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEAM_URL", "carrier-pigeon://s3cret")
        with pytest.raises(DefinitionError, match=r"TEAM_URL holds no address that Apprise knows") as refused:
            apply(config(notifications=[TEAM]))
        assert "s3cret" not in str(refused.value)

    def test_a_block_that_is_not_there(self, client: Any) -> None:
        wanted = config(notifications=[{"name": "team", "on": ["repair"], "block": "slack-webhook/nobody"}])
        with pytest.raises(NotFoundError, match=r"no block slack-webhook/nobody\. Make it"):
            apply(wanted)


class TestMessages:
    def test_a_decision_and_a_failed_run_of_the_named_model_arrive(self, client: Any, secrets: Receiver) -> None:
        apply(config(notifications=[TEAM]))

        def failed() -> Any:  # told again, should the server not know the automation yet
            run = new_run(client)
            set_state(client, run, "Running")
            set_state(client, run, "Failed")
            return eventually(lambda: secrets.requests, 5)

        assert eventually(failed), "no message of the failed run arrived"
        path, headers, message = secrets.requests[0]
        assert path == "/team"
        assert headers["Authorization"].startswith("Basic ")
        assert message["title"] == "retrain of toy: Failed"
        assert "dying was started 1 times. Failed it is" in message["message"]
        emit(decision_event("repair"), "other", subject="not asked for", text="-")
        emit(decision_event("repair"), "toy", subject="toy: its data needs repair", text="temp is 0 in 99 % of rows")
        repair = ("toy: its data needs repair", "temp is 0 in 99 % of rows")
        told = eventually(lambda: [body for body in secrets.bodies() if "repair" in body["title"]])
        assert [(body["title"], body["message"]) for body in told] == [repair]
        assert not [body for body in secrets.bodies() if body["title"] == "not asked for"]

    def test_a_promotion_starts_the_delivery(self, client: Any, secrets: Receiver) -> None:
        github = {"repository": "us/models", "token_env": "HOOK_TOKEN", "api": f"http://{secrets.address}/api/v3"}
        apply(config(deliveries=[HOOK, {"name": "github", "github": github}]))
        line = {
            "model": "toy", "version": 3, "previous": None, "sequence": 2, "action": "promote",
            "at": "2026-01-31T06:00:00+00:00", "by": "run", "reason": 'better by "0.1" {{ sneaky }}',
        }  # fmt: skip
        paths = {"/hook", "/api/v3/repos/us/models/dispatches"}

        def arrived() -> bool:  # the server takes a moment to know a new automation: what it missed is told again
            emit(PROMOTED, "toy", **line)
            return bool(eventually(lambda: {path for path, _, _ in secrets.requests} == paths, 2))

        assert eventually(arrived), secrets.requests
        found = {path: (headers["Authorization"], body) for path, headers, body in secrets.requests}
        assert found == {
            "/hook": ("Bearer s3cret", {"event": PROMOTED, **line}),
            "/api/v3/repos/us/models/dispatches": (
                "Bearer s3cret", {"event_type": "perennial-promoted", "client_payload": line},
            ),
        }  # fmt: skip


class TestDeadRuns:
    def test_a_run_without_heartbeats_is_crashed_and_a_finished_one_is_not(self, client: Any) -> None:
        from prefect.events import emit_event

        register(TOY, TINY_FLOWS, automations=config(reruns={"most": 0}))
        (automation,) = client.read_automations_by_name(ZOMBIE_AUTOMATION)
        client.update_automation(automation.id, zombie_automation(timedelta(seconds=10)))  # the least that there is
        (automation,) = client.read_automations_by_name(PENDING_AUTOMATION)
        client.update_automation(automation.id, pending_automation(timedelta(seconds=14)))  # a busy one is late
        silent, finished, taken, begun = (new_run(client) for _ in range(4))
        for run in (taken, begun):
            set_state(client, run, "Pending")
        set_state(client, begun, "Running")
        for run in (silent, finished):
            set_state(client, run, "Running")
            emit_event(
                event="prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"}
            )
        set_state(client, finished, "Completed")
        # A heartbeat that comes after the end begins the silence anew.
        emit_event(
            event="prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{finished.id}"}
        )

        def crashed_meanwhile(run: Any) -> bool:
            """While the one that has begun lives and says so: of a busy server's events one may be lost."""
            emit_event(
                event="prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{begun.id}"}
            )
            time.sleep(1)
            return bool(client.read_flow_run(run.id).state.is_crashed())

        assert eventually(lambda: crashed_meanwhile(silent), 60)
        assert "No heartbeat for 10 s" in client.read_flow_run(silent.id).state.message
        assert eventually(lambda: crashed_meanwhile(taken), 60)
        assert "whoever took it is gone" in client.read_flow_run(taken.id).state.message
        assert client.read_flow_run(begun.id).state.is_running()
        assert client.read_flow_run(finished.id).state.is_completed()

    def test_a_crashed_run_of_a_pool_is_run_again_so_often_and_no_more(self, client: Any) -> None:
        apply(config(reruns={"most": 2}))
        ours = new_run(client)
        set_state(client, ours, "Running")
        set_state(client, ours, "Crashed")
        apply(config(reruns={"most": 2}), pool=Pool("dying", "process"))
        run = new_run(client)
        for _ in range(2):
            set_state(client, run, "Running")
            set_state(client, run, "Crashed")
            assert eventually(lambda: client.read_flow_run(run.id).state.name == "AwaitingRetry")
        set_state(client, run, "Running")
        assert client.read_flow_run(run.id).run_count == 3
        set_state(client, run, "Crashed")
        never = new_run(client)
        set_state(client, never, "Crashed")  # it never started: an image that can't be pulled
        assert not eventually(lambda: not client.read_flow_run(run.id).state.is_crashed(), 5)
        assert client.read_flow_run(never.id).state.is_crashed()
        assert client.read_flow_run(ours.id).state.is_crashed(), "its runner takes it up"
        client.delete_work_pool("dying")
