"""What is done about runs that nobody carries on: those of a runner, and no one else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry, Completed, Crashed, Pending, Running

from deployments.abandoned import MEMORY, PATIENCE, What, plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG, SHORT = PATIENCE * 2, PATIENCE / 2


def run(kind: Any, age: timedelta, **facts: Any) -> FlowRun:
    state = kind(timestamp=NOW - age)
    return FlowRun(flow_id=uuid4(), **{"deployment_id": uuid4(), "name": "a run", "state": state, **facts})


def found(
    *runs: FlowRun, heard: dict[UUID, datetime] | None = None, alive: tuple[UUID, ...] = (), most: int = 2
) -> list[What]:
    return [step.what for step in plan(runs, heard or {}, alive, NOW, most)]


@pytest.mark.parametrize(("kind", "what"), [(Pending, What.BEGIN), (Running, What.CRASH)])
def test_silent_ones(kind: Any, what: What) -> None:
    assert found(run(kind, LONG), run(kind, SHORT)) == [what]


def test_one_that_was_heard_of_or_lives_here() -> None:
    here, heard = run(Running, LONG), run(Running, LONG)
    assert found(here, heard, heard={heard.id: NOW - SHORT}, alive=(here.id,)) == []
    assert found(heard, heard={heard.id: NOW - LONG}) == [What.CRASH]


@pytest.mark.parametrize(("count", "age", "again"), [
    (0, SHORT, False),  # it never began: what can't be begun would be asked for without end
    (1, timedelta(), True),
    (2, LONG, True),
    (3, LONG, False),
    (1, MEMORY * 2, False),
])  # fmt: skip
def test_a_crashed_one_is_run_again_so_often_and_no_more(count: int, age: timedelta, again: bool) -> None:
    crashed = run(Crashed, age, run_count=count)
    assert found(crashed) == ([What.RERUN] if again else [])
    assert found(crashed, most=0) == []


def test_a_pool_s_a_command_s_and_those_that_neither_run_nor_begin() -> None:
    assert found(run(Pending, LONG, work_pool_name="cluster"), run(Running, LONG, deployment_id=None)) == []
    assert found(run(Crashed, LONG, work_pool_name="cluster", run_count=1)) == []
    assert found(run(Completed, LONG), run(AwaitingRetry, LONG)) == []
