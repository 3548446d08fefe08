"""What is wrong with the runs on a Prefect server: late, never begun, or no longer scheduled. It ends nothing.

Who ends and repeats them: the runner (`deployments.abandoned`), the server (`deployments.automations`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from perennial.operate.asking import ask_json

TAG = "perennial"
# Prefect's scheduler and our runner come round each minute; a machine that is busy may take a few.
PATIENCE = timedelta(minutes=10)
_PAGE = 200
_WAITS_BY_DESIGN = "AwaitingConcurrencySlot"


@dataclass(frozen=True)
class Trouble:
    """Something that no run will mend by itself, and what to do about it."""

    detail: str
    remedy: str


@dataclass(frozen=True)
class Server:
    """What a Prefect server has of ours.

    Attributes:
        deployments: As its API gives them.
        stuck: Runs that were due before now and are Pending, Scheduled or Cancelling.
        coming: How many scheduled runs lie in the future.
    """

    deployments: Sequence[dict[str, Any]]
    stuck: Sequence[dict[str, Any]]
    coming: int


def look(url: str, now: datetime) -> Server:
    """Ask the server at an /api address.

    Raises:
        ServiceError: It does not answer, or refuses.
    """
    base, tags = url.rstrip("/"), {"all_": [TAG]}
    deployments: list[dict[str, Any]] = []
    while page := _found(base, "deployments", {"tags": tags}, len(deployments)):
        deployments += page
    states = {"type": {"any_": ["PENDING", "SCHEDULED", "CANCELLING"]}}
    due = {"tags": tags, "state": states, "expected_start_time": {"before_": now.isoformat()}}
    coming = {
        "tags": tags,
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "next_scheduled_start_time": {"after_": now.isoformat()},
    }
    count = ask_json(f"{base}/flow_runs/count", {"flow_runs": coming})
    return Server(deployments, _found(base, "flow_runs", due, 0), int(count))


def troubles(server: Server, models: Collection[str], now: datetime) -> list[Trouble]:
    """What does not go on.

    Args:
        models: The defined models.
    """
    found = []
    names = {str(item["name"]) for item in server.deployments}
    if missing := sorted(set(models) - names):
        found.append(
            Trouble(
                f"not registered, so that nothing of them is scheduled: {', '.join(missing)}",
                "`perennial up` registers a new definition within seconds, or says in runner.log why not; else: "
                "perennial deploy",
            )
        )
    scheduled = [item for item in server.deployments if _is_scheduled(item) and _age(item["created"], now) > PATIENCE]
    if scheduled and not server.coming:
        found.append(
            Trouble(
                f"the scheduler is silent: {len(scheduled)} deployments have a schedule, and no run is to come",
                "Restart the Prefect server: end `perennial up` and start it again; its log is prefect.log",
            )
        )
    for kind, told, remedy in _KINDS:
        runs = [run for run in server.stuck if _state(run) == kind and _waited(run, now) > PATIENCE]
        if runs:
            longest = max(runs, key=lambda run: _waited(run, now))
            minutes = _waited(longest, now).total_seconds() / 60
            detail = f"{len(runs)} runs {told}; the longest for {minutes:.0f} minutes: {longest['name']}"
            found.append(Trouble(detail, remedy.format(id=longest["id"])))
    return found


_KINDS = (
    (
        "SCHEDULED", "are late, since nobody takes them",
        "See that the runner runs (`perennial up`), or the workers of the pool",
    ),
    (
        "PENDING", "were taken and never began",
        "The runner schedules its own again after minutes; of a pool's see the worker's log, or: "
        "prefect flow-run cancel {id}",
    ),
    ("CANCELLING", "are being cancelled and do not end", "Their process is gone: prefect flow-run delete {id}"),
)  # fmt: skip


def _found(base: str, what: str, wanted: dict[str, Any], offset: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask_json(f"{base}/{what}/filter", {what: wanted, "limit": _PAGE, "offset": offset})
    return found


def _state(run: dict[str, Any]) -> str:
    waits = run["state_name"] == _WAITS_BY_DESIGN or run["state"] is None
    return "" if waits else str(run["state_type"])


def _waited(run: dict[str, Any], now: datetime) -> timedelta:
    """Since it was due, or since it came into a state that should pass at once."""
    if run["state_type"] == "SCHEDULED":
        return _age(run["next_scheduled_start_time"] or run["expected_start_time"], now)
    return _age(run["state"]["timestamp"], now)


def _is_scheduled(deployment: dict[str, Any]) -> bool:
    return not deployment["paused"] and any(item["active"] for item in deployment["schedules"])


def _age(moment: str, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(moment).astimezone(UTC)
