"""Runs that were handed to a runner which is gone: found and scheduled again. What runs and falls silent is Prefect's.

A run is Pending from when a runner takes it until its process has begun. Nobody watches it in between: it has sent no
heartbeat yet, so that no automation misses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perennial.operate.runs import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

# A process of ours has begun by then, on a machine that can hardly breathe too.
PATIENCE = timedelta(minutes=3)
_PAGE = 200


def abandoned(runs: Sequence[Any], now: datetime, patience: timedelta = PATIENCE) -> list[Any]:
    """Of Prefect's flow runs those that a runner took, and that nobody begins any more."""
    return [
        run
        for run in runs
        if run.state is not None
        and run.state.is_pending()
        and run.work_pool_name is None  # else a pool's worker has it, which may be fetching an image
        and now - run.state.timestamp > patience
    ]


async def take_up(client: PrefectClient, now: datetime, patience: timedelta = PATIENCE) -> list[str]:
    """Schedule again what was abandoned; its names."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import AwaitingRetry

    pending = FlowRunFilter.model_validate({"tags": {"all_": [TAG]}, "state": {"type": {"any_": ["PENDING"]}}})
    found = abandoned(await client.read_flow_runs(flow_run_filter=pending, limit=_PAGE), now, patience)
    for run in found:
        state = AwaitingRetry(scheduled_time=now, message="Its runner ended before it began: it is run again.")
        await client.set_flow_run_state(run.id, state, force=True)
    return [f"{run.name} ({run.id})" for run in found]
