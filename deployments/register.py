"""Makes the Prefect server know every model: deployments, schedules, the retrain trigger. No execution, no flow logic.

Each definition gets seven deployments, named `FLOW/MODEL`. A deployment's version is the digest of its
specification: one whose version stands on the server already is left alone, with a schedule that somebody
paused, and its trigger never has a gap in which an event would be lost.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from perennial.definition import ModelDefinition
from perennial.errors import ServiceError
from perennial.events import decision_event, model_resource
from perennial.servers import healthy

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events.schemas.automations import AutomationCore
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

TAG = "perennial"
ON_DECISION = ("retrain", "recalibrate")
ZOMBIE_AUTOMATION = "perennial: crash runs without a heartbeat"
HEARTBEAT_SECONDS = 30
FLOWS: Mapping[str, str] = {
    "retrain": "flows.retrain:retrain",
    "recalibrate": "flows.recalibrate:recalibrate",
    "monitor": "flows.monitor:monitor",
    "ingest": "flows.ingest:ingest",
    "score": "flows.score:score",
    "backtest": "flows.backtest:backtest",
    "approve": "flows.approve:approve",
}
_SCHEDULES: Mapping[str, Callable[[ModelDefinition], str | None]] = {
    "retrain": lambda definition: definition.retraining.schedule,
    "recalibrate": lambda definition: None,  # noqa: ARG005 - on a decision or by hand only
    "monitor": lambda definition: definition.monitoring.schedule,
    "ingest": lambda definition: definition.ingestion.schedule,
    "score": lambda definition: definition.scoring.schedule,
    "backtest": lambda definition: None,  # noqa: ARG005 - by hand only
    "approve": lambda definition: None,  # noqa: ARG005 - by a person only
}
_PURPOSES: Mapping[str, str] = {
    "retrain": "Tunes and trains a challenger for {model} and lets the gate judge it.",
    "recalibrate": "Refits the map of the score of {model} on matured labels and lets the gate judge it.",
    "monitor": "Checks the champion of {model} and writes a verdict into the decision ledger.",
    "ingest": "Validates new rows of {model} and appends the good ones to its table.",
    "score": "Scores rows with the champion of {model}.",
    "backtest": "Replays the history of {model} under several policies and recommends one.",
    "approve": "Lets a person approve or refuse the version of {model} that waits, with a name and a reason.",
}


@dataclass(frozen=True)
class Change:
    """What registering did to one deployment or automation."""

    name: str
    action: Literal["created", "updated", "unchanged", "removed"]


def build_deployments(definition: ModelDefinition, flows: Mapping[str, str] = FLOWS) -> list[RunnerDeployment]:
    """One model's deployments, not yet on any server.

    Args:
        flows: From a flow's name to its "module:attribute".
    """
    return [_build(definition, kind, target) for kind, target in flows.items()]


def register(definitions: Mapping[str, ModelDefinition], flows: Mapping[str, str] = FLOWS) -> list[Change]:
    """Bring the Prefect server of this process's environment in line with the definitions.

    Deployments with our tag whose model is gone are removed: one server serves one set of model folders.

    Raises:
        ServiceError: No Prefect server answers.
    """
    from prefect.client.orchestration import get_client

    require_server()
    with get_client(sync_client=True) as client:
        existing = registered(client)
        changes = []
        for definition in definitions.values():
            for deployment in build_deployments(definition, flows):
                present = existing.pop(deployment.full_name, None)
                changes.append(Change(deployment.full_name, _apply(client, deployment, present)))
        for name, deployment_response in existing.items():
            client.delete_resource_owned_automations(f"prefect.deployment.{deployment_response.id}")
            client.delete_deployment(deployment_response.id)
            changes.append(Change(name, "removed"))
        changes.append(Change(ZOMBIE_AUTOMATION, _apply_automation(client, zombie_automation())))
    return changes


def registered(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Our deployments on the server, by `FLOW/MODEL`."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=ours, limit=200, offset=len(found)):
        found += page
    flow_names = {flow_id: client.read_flow(flow_id).name for flow_id in {item.flow_id for item in found}}
    return {f"{flow_names[item.flow_id]}/{item.name}": item for item in found}


def require_server() -> str:
    """The address of the Prefect server of this process's environment.

    Raises:
        ServiceError: None is set, or none answers.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url or not healthy(f"{url.rstrip('/')}/health", seconds=10):
        raise ServiceError(f"no Prefect server answers at {url or '(no address set)'}", "Start it with: perennial up")
    return url


def zombie_automation() -> AutomationCore:
    """Marks a run as Crashed when its process and its runner died together: then nobody else would."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed", "Suspended")}
    return AutomationCore(
        name=ZOMBIE_AUTOMATION,
        description=f"No heartbeat for {3 * HEARTBEAT_SECONDS} s: the process is gone.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *ends},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {3 * HEARTBEAT_SECONDS} s: the process is gone."
            )
        ],
    )


def _build(definition: ModelDefinition, kind: str, target: str) -> RunnerDeployment:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    module, attribute = target.split(":")
    flow = getattr(importlib.import_module(module), attribute)
    if flow.name != kind:
        raise ValueError(f"{target}: the flow is named {flow.name!r}, not {kind!r}: its deployments would be too")
    cron = _SCHEDULES[kind](definition)
    purpose = _PURPOSES[kind].format(model=definition.name)
    one_at_a_time = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    deployment = RunnerDeployment.from_flow(
        flow,
        name=definition.name,
        schedules=[Cron(cron, timezone="UTC")] if cron else [],
        concurrency_limit=one_at_a_time if kind in ON_DECISION else None,
        parameters={"model": definition.name},
        triggers=[_trigger(kind, definition.name)] if kind in ON_DECISION else [],
        description=f"{purpose}\n\n{definition.description}".strip(),
        tags=[TAG, definition.name],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.version = _version(deployment)
    return deployment


def _trigger(kind: str, model: str) -> DeploymentEventTrigger:
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
    from prefect.events.schemas.events import ResourceSpecification

    return DeploymentEventTrigger(
        name=f"perennial: {kind} {model} on a decision",
        description="The run claims the decision; a second one for it ends at once.",
        expect={decision_event(kind)},
        match=ResourceSpecification({"prefect.resource.id": model_resource(model)}),
        parameters={
            "model": model,
            "decision_id": "{{ event.payload.decision_id }}",
            "as_of": "{{ event.payload.as_of }}",
        },
    )


def _version(deployment: RunnerDeployment) -> str:
    specification: dict[str, Any] = deployment.model_dump(mode="json", exclude={"version", "version_type", "storage"})
    specification["parameter_schema"] = deployment._parameter_openapi_schema.model_dump(mode="json")
    canonical = json.dumps(specification, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _apply(
    client: SyncPrefectClient, deployment: RunnerDeployment, present: DeploymentResponse | None
) -> Literal["created", "updated", "unchanged"]:
    from prefect.client.schemas.objects import VersionInfo

    if present and present.version == deployment.version and _triggers_stand(client, deployment, present):
        return "unchanged"
    # Named here, or Prefect would ask git on each registration.
    deployment.apply(version_info=VersionInfo(type="perennial:specification", version=deployment.version or ""))
    return "updated" if present else "created"


def _triggers_stand(client: SyncPrefectClient, deployment: RunnerDeployment, present: DeploymentResponse) -> bool:
    found = client.read_resource_related_automations(f"prefect.deployment.{present.id}")
    wanted = {getattr(trigger, "name", None) for trigger in deployment.triggers}
    return wanted <= {automation.name for automation in found}


def _apply_automation(
    client: SyncPrefectClient, automation: AutomationCore
) -> Literal["created", "updated", "unchanged"]:
    present = client.read_automations_by_name(automation.name)
    if not present:
        client.create_automation(automation)
        return "created"
    wanted = automation.model_dump(mode="json", include={"trigger", "actions", "description"})
    found = present[0].model_dump(mode="json", include={"trigger", "actions", "description"})
    if _sorted(wanted) == _sorted(found):
        return "unchanged"
    client.update_automation(present[0].id, automation)
    return "updated"


def _sorted(value: Any) -> Any:
    """The value with its lists ordered, since sets come back in any order; `id` is the server's own."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items() if key != "id"}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value
