"""Writes `prefect.yaml` from the definitions, for teams that deploy with Prefect's own command. Registers nothing.

    PERENNIAL_POOL=NAME prefect deploy --all --prefect-file deployments/prefect.yaml

means what `perennial deploy --pool NAME` means; the pool must exist, and removed models and automations are left to
`perennial deploy`. Nothing is said twice: the file is made, a test compares it with the definitions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployments.pools import Pool
from deployments.specification import FLOWS, build_deployments
from perennial.definition import ModelDefinition

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

_HEAD = """\
# Made from the definitions by `perennial deploy --prefect-file deployments/prefect.yaml`; edit those instead.
# Deploy with Prefect's own command, from the root of the checkout, to a work pool that exists:
#   PERENNIAL_POOL=NAME prefect deploy --all --prefect-file deployments/prefect.yaml
# The pool's own image is used, with the code in it: nothing is pulled. To name another: `perennial deploy --image`.
"""


def render(
    definitions: Mapping[str, ModelDefinition],
    flows: Mapping[str, str] = FLOWS,
    *,
    pool: str | None = None,
    image: str | None = None,
) -> str:
    """The file's text.

    Args:
        pool: Named in the file; by default the file takes it from the environment.
        image: Named in the file; by default the pool's own is used.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    variables = Pool("", image=image).job_variables
    work_pool = CommentedMap({"name": pool or "{{ $PERENNIAL_POOL }}", "job_variables": variables})
    work_pool.yaml_set_anchor("work_pool")
    deployments = [
        _entry(deployment, work_pool)
        for definition in definitions.values()
        for deployment in build_deployments(definition, flows)
    ]
    document = {"name": "perennial", "pull": [], "definitions": {"work_pool": work_pool}, "deployments": deployments}
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return _HEAD + stream.getvalue()


def _entry(deployment: RunnerDeployment, work_pool: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": deployment.name,
        "version": deployment.version,
        "description": deployment.description,
        "tags": list(deployment.tags),
        "entrypoint": deployment.entrypoint,
        "parameters": dict(deployment.parameters),
        "work_pool": work_pool,
        "schedules": [
            {"cron": item.schedule.cron, "timezone": item.schedule.timezone}  # type: ignore[union-attr]
            for item in deployment.schedules or []
        ],
    }
    if deployment.concurrency_limit is not None:
        assert deployment.concurrency_options
        strategy = deployment.concurrency_options.collision_strategy
        entry["concurrency_limit"] = {"limit": deployment.concurrency_limit, "collision_strategy": strategy.value}
    if deployment.triggers:
        entry["triggers"] = [item.model_dump(mode="json", exclude_unset=True) for item in deployment.triggers]
    return entry
