"""History replayed through the real flows, moment by moment, and resumable. It shows nothing and starts no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.ingest import ingest
from flows.monitor import monitor
from flows.recalibrate import recalibrate
from flows.retrain import retrain
from flows.score import score
from perennial.workspace import Workspace

_RUNS: dict[str, Any] = {"retrain": retrain, "recalibrate": recalibrate}


@dataclass(frozen=True)
class ReplayStep:
    """One moment of the replay: the check's decision, and what the retraining ended with, if there was one.

    Attributes:
        skipped: An earlier, interrupted replay had finished this moment.
    """

    as_of: datetime
    decision: dict[str, Any] | None
    retraining: dict[str, Any] | None
    skipped: bool


def start_history(workspace: Workspace, model: str, *, as_of: datetime) -> Iterator[str]:
    """Ingest the past and train the first champion; yields what is being done. Done before, it does nothing."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        if workspace.registry.reign(model, as_of=as_of) is None:
            yield f"ingesting and validating everything before {as_of:%Y-%m-%d}"
            ingest(model, as_of=as_of)
            yield "tuning, training and judging the first champion"
            result = retrain(model, as_of=as_of)
            yield f"gate: {result['gate']}. {result['reason']}"


def replay(workspace: Workspace, model: str, moments: Sequence[datetime]) -> Iterator[ReplayStep]:
    """At each moment: new rows and due truths come in, the champion scores, the check decides, the flows act.

    The runs are made in this process one after the other, which is quicker than the runner's fresh processes;
    claiming, locking and recording are the same.
    """
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for as_of in moments:
            done = _finished(workspace, model, as_of)
            if done is not None:
                yield ReplayStep(as_of, done, done["outcome"], skipped=True)
                continue
            ingest(model, as_of=as_of)
            score(model, as_of=as_of)
            decision = monitor(model, as_of=as_of, report=False, trigger=False)
            retraining = None
            if run := _RUNS.get(decision["verdict"]):
                retraining = run(model, as_of=as_of, decision_id=decision["decision_id"])
            pa.default_memory_pool().release_unused()
            yield ReplayStep(as_of, decision, retraining, skipped=False)


def _finished(workspace: Workspace, model: str, as_of: datetime) -> dict[str, Any] | None:
    """The decision of this moment, if it was made and carried out."""
    for entry in workspace.ledger(model).entries(as_of=as_of):
        made = datetime.fromisoformat(entry["as_of"]) == as_of
        if made and (entry["verdict"] not in _RUNS or entry["outcome"] is not None):
            return entry
    return None
