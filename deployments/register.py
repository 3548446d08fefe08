"""Brings a Prefect server in line with the definitions: deployments, pool, automations. No execution, no flow logic.

What would change is planned first (`plan`), then carried out (`register`). A deployment whose version stands on the
server already is left alone, with a schedule that somebody paused, and its trigger never has a gap in which an event
would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from deployments.automation_config import Automations
from deployments.automations import plan_automations
from deployments.changes import Change, Step, carry_out, compare
from deployments.channels import Channels
from deployments.pools import Pool, plan_pool
from deployments.specification import FLOWS, build_deployments, cron_text, describe
from perennial.definition import ModelDefinition
from perennial.errors import ServiceError
from perennial.operate.asking import healthy
from perennial.operate.prefect.runs import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment

_PAGE = 200
_BUSY_SECONDS = 60.0


def register(
    definitions: Mapping[str, ModelDefinition],
    flows: Mapping[str, str] = FLOWS,
    *,
    automations: Automations | None = None,
    pool: Pool | None = None,
    dry_run: bool = False,
) -> list[Change]:
    """Bring the Prefect server of this process's environment in line with the definitions.

    Deployments with our tag whose model is gone are removed: one server serves one set of model folders.

    Args:
        automations: As `automations.yaml` has them; by default those that need no configuration.
        pool: The work pool that executes the runs; by default the runner does.
        dry_run: Change nothing, only say what would change.

    Raises:
        ServiceError: No Prefect server answers, or it has no such pool.
        DefinitionError: A secret that a notification or delivery needs is not in the environment.
    """
    from prefect.client.orchestration import get_client

    require_server()
    with get_client(sync_client=True) as client:
        steps = list(plan(client, definitions, flows, automations or Automations(), pool))
        return [step.change for step in steps] if dry_run else carry_out(steps)


def plan(
    client: SyncPrefectClient,
    definitions: Mapping[str, ModelDefinition],
    flows: Mapping[str, str],
    automations: Automations,
    pool: Pool | None,
) -> Iterator[Step]:
    """Every step, in the order in which it has to be carried out; reads the server and changes nothing."""
    if pool is not None:
        yield from plan_pool(client, pool)
    existing = registered(client)
    for definition in definitions.values():
        name, variables = (pool.name, pool.job_variables) if pool else (None, None)
        for deployment in build_deployments(definition, flows, pool=name, job_variables=variables):
            yield _step(client, deployment, existing.pop(deployment.full_name, None))
    for name, found in existing.items():
        yield Step(Change(name, "removed"), partial(_remove, client, found))
    channels = Channels(client, automations)
    yield from channels.plan()
    yield from plan_automations(client, automations, channels.block)
    yield from channels.plan_removals()


def registered(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Our deployments on the server, by `FLOW/MODEL`."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=len(found)):
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
    # One that isn't there says so at once; one that is may be held up by its database.
    if not url or not healthy(f"{url.rstrip('/')}/health", seconds=_BUSY_SECONDS):
        raise ServiceError(f"no Prefect server answers at {url or '(no address set)'}", "Start it with: perennial up")
    return url


def _step(client: SyncPrefectClient, deployment: RunnerDeployment, present: DeploymentResponse | None) -> Step:
    from prefect.client.schemas.objects import VersionInfo

    def apply() -> None:
        # Named here, or Prefect would ask git on each registration.
        deployment.apply(version_info=VersionInfo(type="perennial:specification", version=deployment.version or ""))

    name = deployment.full_name
    if present is None:
        return Step(Change(name, "created"), apply)
    before, after = _stands(present), describe(deployment)
    # By version, not by each setting: what a person changed on the server by hand stays until the definition changes.
    ours = ("version", "work_pool", "job_variables")
    differences = compare(before, after) if compare(before, {key: after[key] for key in ours}) else {}
    if lost := _lost_triggers(client, deployment, present):
        differences["triggers"] = (None, lost)
    if not differences:
        return Step(Change(name, "unchanged"))
    return Step(Change(name, "updated", differences=differences), apply)


def _stands(present: DeploymentResponse) -> dict[str, Any]:
    limit = present.global_concurrency_limit
    return {
        "version": present.version,
        "entrypoint": present.entrypoint,
        "description": present.description,
        "parameters": present.parameters,
        "tags": present.tags,
        "schedules": [cron_text(item.schedule) for item in present.schedules],
        "concurrency_limit": limit.limit if limit else None,
        "work_pool": present.work_pool_name,
        "job_variables": present.job_variables or {},
    }


def _lost_triggers(client: SyncPrefectClient, deployment: RunnerDeployment, present: DeploymentResponse) -> list[str]:
    if not deployment.triggers:
        return []
    found = client.read_resource_related_automations(f"prefect.deployment.{present.id}")
    wanted = {str(getattr(trigger, "name", None)) for trigger in deployment.triggers}
    return sorted(wanted - {automation.name for automation in found})


def _remove(client: SyncPrefectClient, found: DeploymentResponse) -> None:
    client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
    client.delete_deployment(found.id)
