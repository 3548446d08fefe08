"""Which runs count as abandoned: silent ones of a runner, and no one else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry, Completed, Pending, Running

from deployments.abandoned import PATIENCE, find_abandoned

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG, SHORT = PATIENCE * 2, PATIENCE / 2


def run(kind: Any, age: timedelta, **facts: Any) -> FlowRun:
    state = kind(timestamp=NOW - age)
    return FlowRun(flow_id=uuid4(), **{"deployment_id": uuid4(), "name": "a run", "state": state, **facts})


def found(*runs: FlowRun, heard: dict[UUID, datetime] | None = None, alive: tuple[UUID, ...] = ()) -> list[bool]:
    return [item.begun for item in find_abandoned(runs, heard or {}, alive, NOW)]


@pytest.mark.parametrize(("kind", "begun"), [(Pending, False), (Running, True)])
def test_silent_ones(kind: Any, begun: bool) -> None:
    assert found(run(kind, LONG), run(kind, SHORT)) == [begun]


def test_one_that_was_heard_of_or_lives_here() -> None:
    here, heard = run(Running, LONG), run(Running, LONG)
    assert found(here, heard, heard={heard.id: NOW - SHORT}, alive=(here.id,)) == []
    assert found(heard, heard={heard.id: NOW - LONG}) == [True]


def test_a_pool_s_a_command_s_and_those_that_neither_run_nor_begin() -> None:
    assert found(run(Pending, LONG, work_pool_name="cluster"), run(Running, LONG, deployment_id=None)) == []
    assert found(run(Completed, LONG), run(AwaitingRetry, LONG)) == []
