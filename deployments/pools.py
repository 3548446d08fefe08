"""The work pool that executes the deployments, where it is not the runner: made from our base job templates.

What a pool's jobs are given (image, resources, secrets by reference) is in its template, not here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from deployments.changes import Change, Step, compare
from deployments.specification import HEARTBEAT_SECONDS
from perennial.errors import DefinitionError, ServiceError
from perennial.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PoolType = Literal["process", "docker", "kubernetes"]
POOL_TYPES: tuple[PoolType, ...] = get_args(PoolType)
TEMPLATES = {
    "docker": PROJECT_ROOT / "docker" / "job-template.json",
    "kubernetes": PROJECT_ROOT / "docker" / "kubernetes" / "base" / "job-template.json",
}


@dataclass(frozen=True)
class Pool:
    """A work pool.

    Attributes:
        type: With it, the pool is made and kept as its template says; without, it must stand and is left alone.
        image: The image that runs, instead of the template's.
        template: A base job template's file, instead of ours for the type.
    """

    name: str
    type: PoolType | None = None
    image: str | None = None
    template: Path | None = None

    @property
    def job_variables(self) -> dict[str, Any]:
        """What each deployment gives the template; heartbeats are what tells a living run from a dead one."""
        variables: dict[str, Any] = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
        return variables | ({"image": self.image} if self.image else {})


def read_template(pool: Pool) -> dict[str, Any]:
    """The pool's base job template; empty for processes, which need none of ours.

    Raises:
        DefinitionError: The file can't be read or is no base job template.
    """
    path = pool.template or TEMPLATES.get(pool.type or "")
    if path is None:
        return {}
    remedy = "Give a base job template with --pool-template"
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DefinitionError(f"{path}: can't be read as JSON: {error}", remedy) from error
    if not isinstance(template, dict) or {"job_configuration", "variables"} - set(template):
        raise DefinitionError(f"{path}: lacks job_configuration or variables", remedy)
    return template


def plan_pool(client: SyncPrefectClient, pool: Pool) -> Iterator[Step]:
    """What has to change about the pool; nothing where its type is not given.

    Raises:
        ServiceError: It does not exist and its type is not given, or it is of another type.
        DefinitionError: Its template is wrong.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_pool(pool.name)
    except ObjectNotFound:
        if pool.type is None:
            raise ServiceError(
                f"the Prefect server has no work pool {pool.name!r}",
                f"Make it: perennial deploy --pool {pool.name} --pool-type {'|'.join(POOL_TYPES)}",
            ) from None
        wanted = WorkPoolCreate(
            name=pool.name,
            type=pool.type,
            description="Made by perennial deploy.",
            base_job_template=read_template(pool) or _default_template(pool.type),
        )
        yield Step(Change(pool.name, "created", "work pool"), lambda: client.create_work_pool(wanted))
        return
    if pool.type is None:
        return
    if found.type != pool.type:
        raise ServiceError(
            f"work pool {pool.name!r} is of type {found.type}, not {pool.type}", "Give another --pool name"
        )
    template = read_template(pool)
    differences = _flat(found.base_job_template, template) if template else {}
    update = WorkPoolUpdate(base_job_template=template)
    if differences:
        yield Step(
            Change(pool.name, "updated", "work pool", differences), lambda: client.update_work_pool(pool.name, update)
        )
    else:
        yield Step(Change(pool.name, "unchanged", "work pool"))


def _default_template(type_: PoolType) -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker

    assert type_ == "process", "the others have a template of ours"
    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    return template


def _flat(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differences of two templates, by section or variable: a whole template in one line says nothing."""
    if old == new:
        return {}
    told = compare(old.get("job_configuration", {}), new["job_configuration"])
    before, after = (item.get("variables", {}).get("properties", {}) for item in (old, new))
    told |= {f"variables.{name}": pair for name, pair in compare(before, after).items()}
    return told or {"base_job_template": ("(other)", "(ours)")}
