"""What does not go on by itself on a Prefect server is found, and nothing that does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.operate.prefect.runs import PATIENCE, Server, troubles

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG, SHORT = PATIENCE * 2, PATIENCE / 2


def deployment(
    name: str = "toy", *, age: timedelta = LONG, active: bool = True, paused: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "created": (NOW - age).isoformat(),
        "paused": paused,
        "schedules": [{"active": active}],
    }


def run(state: str, waited: timedelta, name: str | None = None, state_name: str = "") -> dict[str, Any]:
    since = (NOW - waited).isoformat().replace("+00:00", "Z")
    return {
        "id": "4f", "name": name or state.lower(), "state_type": state, "state_name": state_name or state.title(),
        "state": {"timestamp": since}, "expected_start_time": since, "next_scheduled_start_time": since,
    }  # fmt: skip


def found(*runs: dict[str, Any], deployments: tuple[dict[str, Any], ...] = (), coming: int = 1) -> list[str]:
    names = [item["name"] for item in deployments] or []
    return [item.detail for item in troubles(Server(deployments, runs, coming), names, NOW)]


def test_all_is_well() -> None:
    assert found(deployments=(deployment(),)) == []


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("SCHEDULED", "2 runs are late, since nobody takes them; the longest for 30 minutes: longest"),
        ("PENDING", "2 runs were taken and never began; the longest for 30 minutes: longest"),
        ("CANCELLING", "2 runs are being cancelled and do not end; the longest for 30 minutes: longest"),
    ],
)
def test_runs_that_stand_still(state: str, told: str) -> None:
    assert found(run(state, SHORT), run(state, LONG), run(state, 3 * PATIENCE, "longest")) == [told]
    assert found(run(state, SHORT)) == []


def test_a_run_that_waits_for_another_of_its_deployment_is_not_late() -> None:
    assert found(run("SCHEDULED", LONG, state_name="AwaitingConcurrencySlot")) == []
    assert len(found(run("SCHEDULED", LONG, state_name="Late"))) == 1


def test_a_silent_scheduler() -> None:
    toy, other = deployment(), deployment("other")
    (told,) = found(deployments=(toy, other), coming=0)
    assert told == "the scheduler is silent: 2 deployments have a schedule, and no run is to come"
    assert found(deployments=(deployment(age=SHORT),), coming=0) == [], "it comes round each minute"
    assert found(deployments=(deployment(active=False), deployment(paused=True)), coming=0) == []


def test_a_model_that_is_defined_and_not_registered() -> None:
    (told,) = troubles(Server([deployment()], [], 1), ["toy", "later"], NOW)
    assert told.detail == "not registered, so that nothing of them is scheduled: later"
    assert "perennial deploy" in told.remedy
