"""The Prefect automations that `automations.yaml` asks for, and what bringing the server in line with it takes.

Ours are recognised by their tag and belong to no deployment; others are never touched. Secrets are in `channels`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from deployments.automation_config import Automations, Delivery, Notification
from deployments.changes import Change, Step, compare
from perennial.events import ALERT, PROMOTED, REFUSED, ROLLED_BACK, WAITING, decision_event, model_resource
from perennial.operate.prefect.runs import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger

ZOMBIE_AUTOMATION = "perennial: crash runs without a heartbeat"
PENDING_AUTOMATION = "perennial: crash runs that never begin"
RERUN_AUTOMATION = "perennial: run crashed runs again"
# What people are told of: our own events, or those of Prefect's runs.
_OURS: Mapping[str, str] = {
    "repair": decision_event("repair"), "refused": REFUSED, "waiting": WAITING, "promoted": PROMOTED,
    "rolled-back": ROLLED_BACK, "alert": ALERT,
}  # fmt: skip
_RUNS: Mapping[str, tuple[str, ...]] = {
    "failed": ("prefect.flow-run.Failed", "prefect.flow-run.TimedOut"),
    "crashed": ("prefect.flow-run.Crashed",),
}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Suspended")
_GOES_ON = (
    "Running", "Retrying", "Resuming", "Paused", "Cancelling", "Cached", "RolledBack", "Scheduled", "Late",
    "AwaitingRetry", "AwaitingConcurrencySlot",
)  # fmt: skip
_FIELDS = {"name", "description", "tags", "enabled", "trigger", "actions"}
_PAGE = 200
_NO_BLOCK = UUID(int=0)
Kind = Literal["notification", "delivery"]
BlockOf = Callable[[Kind, str], UUID | None]


def build_automations(config: Automations, block_of: BlockOf) -> list[AutomationCore]:
    """All automations that the configuration asks for, not yet on any server.

    Args:
        block_of: The id of the block that carries a notification or a delivery of a name; None while there is none.
    """
    wanted = [zombie_automation(config.zombies.after), pending_automation(config.pending.after)]
    if config.reruns.most:
        wanted.append(rerun_automation(config.reruns.most))
    for notification in config.notifications:
        wanted += _tell(notification, block_of("notification", notification.name) or _NO_BLOCK)
    for delivery in config.deliveries:
        wanted += _deliver(delivery, block_of("delivery", delivery.name) or _NO_BLOCK)
    return wanted


def plan_automations(client: SyncPrefectClient, config: Automations, block_of: BlockOf) -> Iterator[Step]:
    """What has to change on the server; carried out after the channels' steps, when the blocks stand."""
    present: dict[str, list[Automation]] = {}
    for item in ours(client):
        present.setdefault(item.name, []).append(item)
    for automation in build_automations(config, block_of):
        standing = present.get(automation.name, [])
        found = standing.pop(0) if standing else None
        yield _step(client, automation.name, automation, found, config, block_of)
    # Those that nothing asks for; and second ones, where two hosts deployed for the first time at once.
    for item in itertools.chain.from_iterable(present.values()):
        yield Step(Change(item.name, "removed", "automation"), partial(client.delete_automation, item.id))


def ours(client: SyncPrefectClient) -> list[Automation]:
    """Our automations on the server, without the triggers that belong to deployments."""
    found: list[Automation] = []
    while page := client.read_automations(limit=_PAGE, offset=len(found)):
        found += page
    mine = [item for item in found if TAG in item.tags or item.name == ZOMBIE_AUTOMATION]
    return [item for item in mine if not item.owner_resource]


def zombie_automation(after: timedelta) -> AutomationCore:
    """Marks a run as Crashed when its process and its supervisor died together: then nobody else would."""
    told = f"No heartbeat for {after.total_seconds():g} s: the process is gone."
    return _crash(ZOMBIE_AUTOMATION, told, {_HEARTBEAT}, {_HEARTBEAT, *_states(*_ENDS)}, after)


def pending_automation(after: timedelta) -> AutomationCore:
    """Marks a run as Crashed that a runner or worker took and that never begins; its process has sent no heartbeat.

    It is not run again for that: an image that can't be pulled would be asked for without end. Who waits for the run
    comes back: a schedule by itself, a decision by the next check.
    """
    told = f"Not begun {after.total_seconds() / 60:g} minutes after it was taken: whoever took it is gone."
    return _crash(PENDING_AUTOMATION, told, _states("Pending"), {_HEARTBEAT, *_states(*_ENDS, *_GOES_ON)}, after)


def _crash(name: str, told: str, after: set[str], expect: set[str], within: timedelta) -> AutomationCore:
    """Of a run that has ended meanwhile Prefect refuses the change, so that a heartbeat that comes late is harmless."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name=name,
        description=told,
        tags=[TAG],
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=told)],
    )


def _states(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def rerun_automation(most: int) -> AutomationCore:
    """Schedules a crashed run of a pool of ours again, until it has been run `most` times more than once.

    Those of our runner it takes up itself (`deployments.abandoned`): a server killed with it comes back slowly.
    The event carries how often the run was started: only the first `most` starts match. A run that never started (0)
    does not, or an image that can't be pulled would be asked for without end.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore

    return AutomationCore(
        name=RERUN_AUTOMATION,
        description=f"A run is run again at most {most} times; each flow goes on from what a dead run left.",
        tags=[TAG],
        trigger=_reactive(
            _RUNS["crashed"],
            {
                "prefect.resource.id": ["prefect.flow-run.*"],
                "prefect.run-count": [str(count) for count in range(1, most + 1)],
            },
            {"prefect.resource.id": [f"prefect.tag.{TAG}"]},
            {"prefect.resource.role": ["work-pool"]},
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED, name="AwaitingRetry", message="It crashed: it is run again.", force=True
            )
        ],
    )


def _tell(notification: Notification, block: UUID) -> Iterator[AutomationCore]:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore

    events = [_OURS[occasion] for occasion in notification.on if occasion in _OURS]
    if events:
        yield AutomationCore(
            name=f"perennial: tell {notification.name} of models",
            description=f"On {', '.join(item for item in notification.on if item in _OURS)}.",
            tags=[TAG],
            trigger=_reactive(events, _models(notification.models)),
            actions=[
                SendNotification(
                    block_document_id=block,
                    subject="{{ event.payload.subject }}",
                    body="{{ event.payload.text }}",
                )
            ],
        )
    states = [state for occasion in notification.on for state in _RUNS.get(occasion, ())]
    if states:
        tags = [f"prefect.tag.{name}" for name in notification.models or (TAG,)]
        yield AutomationCore(
            name=f"perennial: tell {notification.name} of runs",
            description=f"On {', '.join(item for item in notification.on if item in _RUNS)} runs.",
            tags=[TAG],
            trigger=_reactive(states, {"prefect.resource.id": ["prefect.flow-run.*"]}, {"prefect.resource.id": tags}),
            actions=[
                SendNotification(
                    block_document_id=block,
                    subject="{{ flow.name }} of {{ flow_run.parameters.model }}: {{ flow_run.state.name }}",
                    body="{{ flow_run.name }} was started {{ flow_run.run_count }} times. "
                    "{{ flow_run.state.message }}\n{{ flow_run | ui_url }}",
                )
            ],
        )


_DELIVERED: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...], str]] = {
    "promoted": (
        "perennial: deliver to {name}", (PROMOTED, ROLLED_BACK),
        ("model", "version", "previous", "sequence", "action", "at", "by", "reason"),
        "When the champion of a model changes, by a gate, a person or a rollback.",
    ),
    "alert": (
        "perennial: deliver alerts to {name}", (ALERT,),
        ("model", "at", "source", "decision_id", "link", "subject", "text", "items", "standing", "over"),
        "When something new stands against a model, or is over.",
    ),
}  # fmt: skip


def _deliver(delivery: Delivery, block: UUID) -> Iterator[AutomationCore]:
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import AutomationCore

    for occasion in delivery.on:
        title, events, names, description = _DELIVERED[occasion]
        # By subscript: `payload.items` would be the mapping's method.
        told = ", ".join(f'"{name}": {{{{ event.payload["{name}"] | tojson }}}}' for name in names)
        payload = f'{{"event": {{{{ event.event | tojson }}}}, {told}}}'
        if delivery.github:
            kind = delivery.github.event if occasion == "promoted" else f"{delivery.github.event}-{occasion}"
            payload = f'{{"event_type": "{kind}", "client_payload": {{{told}}}}}'
        yield AutomationCore(
            name=title.format(name=delivery.name),
            description=description,
            tags=[TAG],
            trigger=_reactive(events, _models(delivery.models)),
            actions=[CallWebhook(block_document_id=block, payload=payload)],
        )


def _models(names: tuple[str, ...]) -> dict[str, list[str]]:
    return {"prefect.resource.id": [model_resource(name) for name in names] or [model_resource("*")]}


def _reactive(
    events: tuple[str, ...] | list[str], match: dict[str, list[str]], *related: dict[str, list[str]]
) -> EventTrigger:
    """Fires once for each such event.

    Args:
        related: For each of them, some related resource is so.
    """
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return EventTrigger(
        expect=set(events),
        match=ResourceSpecification(match),
        match_related=[ResourceSpecification(item) for item in related]
        if len(related) > 1
        else ResourceSpecification(related[0] if related else {}),
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _step(
    client: SyncPrefectClient,
    name: str,
    automation: AutomationCore,
    found: Automation | None,
    config: Automations,
    block_of: BlockOf,
) -> Step:
    def built() -> AutomationCore:  # again, now that the blocks stand
        return next(item for item in build_automations(config, block_of) if item.name == name)

    if found is None:
        return Step(Change(name, "created", "automation"), lambda: client.create_automation(built()))
    differences = compare(_settings(found), _settings(automation))
    if not differences:
        return Step(Change(name, "unchanged", "automation"))
    return Step(Change(name, "updated", "automation", differences), lambda: client.update_automation(found.id, built()))


def _settings(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(mode="json", include=_FIELDS)
