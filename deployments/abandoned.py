"""Runs of a runner that is gone: what it took and never began, and what ended with it. They are taken up again.

While a run's process lives, its runner sees it die. When the whole machine went, nobody has: a Pending run has sent no
heartbeat that could be missed, and of a running one the server may have lost what it counted heartbeats with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from perennial.operate.runs import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

# Six heartbeats; and a process has begun by then, on a machine that can hardly breathe too.
PATIENCE = timedelta(minutes=3)
_PAGE = 200
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


@dataclass(frozen=True)
class Abandoned:
    """A run that nobody carries on, and whether it had begun."""

    run: Any
    begun: bool

    def line(self) -> str:
        how = "marked as crashed, since its process is gone" if self.begun else "scheduled again, since nobody began it"
        return f"{self.run.name} ({self.run.id}): {how}"


def find_abandoned(
    runs: Sequence[Any], heard: Mapping[UUID, datetime], alive: Collection[UUID], now: datetime
) -> list[Abandoned]:
    """Of Prefect's flow runs those that nobody carries on.

    Args:
        runs: Pending and running ones.
        heard: When a run was heard of last, where it ever was.
        alive: Those whose processes this runner has.
    """
    found = []
    for run in runs:
        # A pool's worker may be fetching an image; what has no deployment is somebody's command.
        if run.state is None or run.work_pool_name is not None or run.deployment_id is None or run.id in alive:
            continue
        last = max(run.state.timestamp, heard.get(run.id, run.state.timestamp))
        if now - last > PATIENCE and (run.state.is_pending() or run.state.is_running()):
            found.append(Abandoned(run, run.state.is_running()))
    return found


async def take_up(client: PrefectClient, alive: Collection[UUID], now: datetime) -> list[Abandoned]:
    """Schedule again what was never begun; what had begun is Crashed, and run again as often as the automations say."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import AwaitingRetry, Crashed

    wanted = {"tags": {"all_": [TAG]}, "state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
    runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted), limit=_PAGE)
    silent = [item.run for item in find_abandoned(runs, {}, alive, now)]
    heard = {run.id: moment for run in silent if (moment := await _heard(client, run.id)) is not None}
    found = find_abandoned(silent, heard, alive, now)
    for item in found:
        if item.begun:
            await client.set_flow_run_state(item.run.id, Crashed(message="Its process ended with its runner."))
        else:
            told = "Its runner ended before it began: it is run again."
            again: State[Any] = AwaitingRetry(scheduled_time=now, message=told)
            await client.set_flow_run_state(item.run.id, again, force=True)
    return found


def own_runs() -> set[UUID]:
    """The runs whose processes are below this one."""
    import psutil

    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if text := process.environ().get(_RUN_VARIABLE):
                found.add(UUID(text))
    return found


async def _heard(client: PrefectClient, run: UUID) -> datetime | None:
    """When an event of the run occurred last."""
    from prefect.events.filters import EventFilter, EventResourceFilter

    of_run = EventFilter(resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]))
    page = await client.read_events(of_run, limit=1)
    return page.events[0].occurred if page.events else None
