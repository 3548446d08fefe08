"""Runs of a runner that is gone, or whose process died: found, and run again so often and no more.

While a run's process lives, its runner sees it die. When the whole machine went, nobody has: a Pending run has sent no
heartbeat that could be missed. And what Prefect's server does on its own rests on events that a restarted one holds
back for a quarter of an hour, each until the event before it came: so runs are looked after here, by their states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from perennial.operate.prefect.runs import TAG

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

# Six heartbeats; and a process has begun by then, on a machine that can hardly breathe too.
PATIENCE = timedelta(minutes=3)
# What crashed longer ago, while no runner was there, is history.
MEMORY = timedelta(hours=1)
_PAGE = 200
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"


class What(StrEnum):
    """What is done about a run."""

    BEGIN = "scheduled again, since nobody began it"
    CRASH = "marked as crashed, since its process is gone"
    RERUN = "crashed, and is run again"


@dataclass(frozen=True)
class Step:
    """A run, and what is done about it."""

    run: Any
    what: What

    def line(self) -> str:
        return f"{self.run.name} ({self.run.id}): {self.what}"


def plan(
    runs: Sequence[Any], heard: Mapping[UUID, datetime], alive: Collection[UUID], now: datetime, most: int
) -> list[Step]:
    """What is to be done about Prefect's flow runs.

    Args:
        runs: Pending, running and crashed ones.
        heard: When a run was heard of last, where it ever was.
        alive: Those whose processes this runner has.
        most: How often a crashed run is run again.
    """
    found = []
    for run in runs:
        # A pool's worker may be fetching an image; what has no deployment is somebody's command.
        if run.state is None or run.work_pool_name is not None or run.deployment_id is None or run.id in alive:
            continue
        since = run.state.timestamp
        silent = now - max(since, heard.get(run.id, since)) > PATIENCE
        if run.state.is_pending() and silent:
            found.append(Step(run, What.BEGIN))
        elif run.state.is_running() and silent:
            found.append(Step(run, What.CRASH))
        elif run.state.is_crashed() and 1 <= run.run_count <= most and now - since <= MEMORY:
            found.append(Step(run, What.RERUN))
    return found


async def take_up(client: PrefectClient, alive: Collection[UUID], now: datetime, most: int) -> list[Step]:
    """Carry out what is to be done about the runs of this server; a run that is marked as crashed comes next time."""
    runs = [
        *await _runs(client, {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}),
        *await _runs(
            client, {"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": (now - MEMORY).isoformat()}}
        ),
    ]
    chosen = [step.run for step in plan(runs, {}, alive, now, most)]
    silent = [run for run in chosen if not run.state.is_crashed()]
    heard = {run.id: moment for run in silent if (moment := await _heard(client, run.id)) is not None}
    steps = plan(chosen, heard, alive, now, most)
    for step in steps:
        await client.set_flow_run_state(step.run.id, _state(step.what, now), force=step.what is not What.CRASH)
    return steps


async def _runs(client: PrefectClient, wanted: dict[str, Any]) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter

    chosen = FlowRunFilter.model_validate({"tags": {"all_": [TAG]}, **wanted})
    return list(await client.read_flow_runs(flow_run_filter=chosen, limit=_PAGE))


def _state(what: What, now: datetime) -> State[Any]:
    from prefect.states import AwaitingRetry, Crashed

    state: State[Any]
    if what is What.CRASH:
        state = Crashed(message="Its process ended with its runner.")
    elif what is What.BEGIN:
        state = AwaitingRetry(scheduled_time=now, message="Its runner ended before it began: it is run again.")
    else:
        state = AwaitingRetry(scheduled_time=now, message="It crashed: it is run again.")
    return state


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
