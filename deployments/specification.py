"""Each model's deployments as Prefect objects: names, schedules, the trigger. No server is spoken to.

Each definition gets ten deployments, named `FLOW/MODEL`, and one more where its predictions are reviewed. A
deployment's version is the digest of its specification, without the pool that executes it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from perennial.definition import ModelDefinition
from perennial.events import decision_event, model_resource
from perennial.operate.prefect.runs import TAG

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

ON_DECISION = ("retrain", "recalibrate")
HEARTBEAT_SECONDS = 30
FLOWS: Mapping[str, str] = {
    "retrain": "flows.retrain:retrain",
    "recalibrate": "flows.recalibrate:recalibrate",
    "monitor": "flows.monitor:monitor",
    "ingest": "flows.ingest:ingest",
    "quarantine": "flows.quarantine:quarantine",
    "score": "flows.score:score",
    "backtest": "flows.backtest:backtest",
    "approve": "flows.approve:approve",
    "prune": "flows.upkeep.prune:prune",
    "review": "flows.review:review",
    "watch": "flows.upkeep.watch:watch",
}
_SCHEDULES: Mapping[str, Callable[[ModelDefinition], str | None]] = {
    "retrain": lambda definition: definition.retraining.schedule,
    "recalibrate": lambda definition: None,  # noqa: ARG005 - on a decision or by hand only
    "monitor": lambda definition: definition.monitoring.schedule,
    "ingest": lambda definition: definition.ingestion.schedule,
    "quarantine": lambda definition: None,  # noqa: ARG005 - by a person only
    "score": lambda definition: definition.scoring.schedule,
    "backtest": lambda definition: None,  # noqa: ARG005 - by hand only
    "approve": lambda definition: None,  # noqa: ARG005 - by a person only
    "prune": lambda definition: definition.retention.schedule,
    "review": lambda definition: definition.review.schedule,
    "watch": lambda definition: definition.watch.schedule if definition.watch else None,
}
_PURPOSES: Mapping[str, str] = {
    "retrain": "Tunes and trains a challenger for {model} and lets the gate judge it.",
    "recalibrate": "Refits the map of the score of {model} on matured labels and lets the gate judge it.",
    "monitor": "Checks the champion of {model} and writes a verdict into the decision ledger.",
    "ingest": "Validates new rows of {model} and appends the good ones to its table.",
    "quarantine": "Lists the refused rows of {model}, lets in what passes by now, or discards rows for good.",
    "score": "Scores rows with the champion of {model}.",
    "backtest": "Replays the history of {model} under several policies and recommends one.",
    "approve": "Lets a person approve or refuse the version of {model} that waits, with a name and a reason.",
    "review": "Puts predictions of {model} up for people to look at, once a day.",
    "watch": "Looks at the packages, the source and the API that {model} stands on, and tells what changed.",
    "prune": "Removes what nobody needs any more of {model}: old kept-out versions, files of the tables, reports.",
}


def build_deployments(
    definition: ModelDefinition,
    flows: Mapping[str, str] = FLOWS,
    *,
    pool: str | None = None,
    job_variables: Mapping[str, Any] | None = None,
) -> list[RunnerDeployment]:
    """One model's deployments, not yet on any server.

    Args:
        flows: From a flow's name to its "module:attribute".
        pool: The work pool that executes them; by default the runner does.
        job_variables: What the pool's base job template is given.
    """
    deployments = []
    for kind, target in flows.items():
        if kind == "review" and not definition.review.per_day:
            continue
        deployment = _build(definition, kind, target)
        if pool is not None:
            deployment.work_pool_name = pool
            deployment.job_variables = dict(job_variables or {})
        deployments.append(deployment)
    return deployments


def describe(deployment: RunnerDeployment) -> dict[str, Any]:
    """What a person would call the deployment's settings, as `deployments.register` compares them."""
    return {
        "version": deployment.version,
        "entrypoint": deployment.entrypoint,
        "description": deployment.description,
        "parameters": deployment.parameters,
        "tags": list(deployment.tags),
        "schedules": [cron_text(item.schedule) for item in deployment.schedules or []],
        "concurrency_limit": deployment.concurrency_limit,
        "work_pool": deployment.work_pool_name,
        "job_variables": deployment.job_variables,
    }


def cron_text(schedule: Any) -> str:
    """A schedule as people write it, with its zone where that is not UTC."""
    text = str(getattr(schedule, "cron", schedule))
    zone = getattr(schedule, "timezone", None)
    return text if zone in (None, "UTC") else f"{text} {zone}"


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
