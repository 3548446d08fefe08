"""What the API tells of itself: its health; what is live of a model, since when, why, how it does. Changes nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from perennial.model.truth import standing
from perennial.serving.log.labels import LabelDesk
from perennial.serving.log.spool import Spool
from perennial.serving.metrics import Metrics
from perennial.serving.scoring import ANY_ROWS
from perennial.serving.settings import ServingSettings
from perennial.serving.versions.host import Host, Served
from perennial.serving.versions.model import LoadedModel
from perennial.state.store import among
from perennial.workspace import Workspace

_FACTS_SECONDS = 60.0


class Service(Protocol):
    """What of a service is told about."""

    workspace: Workspace
    settings: ServingSettings
    metrics: Metrics
    host: Host
    spool: Spool
    labels: LabelDesk
    draining: bool

    def served(self, model: str) -> Served: ...

    def log_problems(self) -> list[str]: ...


class About:
    """Speaks for a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._facts: dict[str, tuple[float, dict[str, Any]]] = {}

    def health(self) -> dict[str, Any]:
        """Whether requests are answered, and what an operator should know."""
        problems = self._service.host.problems() + self._service.log_problems()
        state = "draining" if self._service.draining else "degraded" if problems else "ok"
        return {
            "status": state,
            "models": {name: served.champion.version for name, served in self._service.host.served.items()},
            "registry": self._registry(),
            "spool_bytes": self._service.spool.used_bytes,
            "shed_rows": self._service.spool.shed_rows,
            "problems": problems,
            "notes": self._service.host.notes(),
        }

    def _registry(self) -> str:
        if self._service.settings.baked is not None:
            return "none"
        return "up" if self._service.host.registry_up else "down"

    def describe(self, model: str, table_facts: dict[str, Any]) -> dict[str, Any]:
        """What is live, since when and why; how it is used and, from the tables, how good its labels' coverage is."""
        served = self._service.served(model)
        champion, manifest = served.champion, served.champion.manifest
        proof, serving = champion.scorer.proof, champion.definition.serving
        return {
            "model": model,
            "task": champion.definition.task,
            "description": champion.definition.description,
            "version": champion.version,
            "since": manifest.get("at"),
            "reason": manifest.get("reason"),
            "gate_verdict": manifest.get("gate_verdict"),
            "action": manifest.get("action"),
            "trained_until": manifest.get("trained_until"),
            "digest": champion.digest,
            "loaded_at": datetime.fromtimestamp(champion.loaded_at, UTC).isoformat(),
            "candidate": None if served.candidate is None else served.candidate.version,
            "fast_path": {
                "kind": proof.kind, "rows_up_to": proof.fast_rows if proof.fast_rows < ANY_ROWS else None,
                "proven_on_rows": proof.rows,
                "largest_difference": proof.largest_difference if proof.rows else None, "reason": proof.reason,
            },
            "golden_difference": champion.golden_difference,
            **_told_interval(champion),
            "inputs": [
                {"name": name, "kind": kind}
                for name, kind in zip(champion.schema.columns, champion.schema.kinds, strict=True)
            ],
            "example": dict(champion.schema.example),
            "log": {"share": serving.log_share, "redacted": sorted(set(serving.redact) & set(champion.schema.columns))},
            "traffic": self._service.metrics.figures(model),
            **table_facts,
            **self._service.host.status(model),
        }  # fmt: skip

    def table_facts(self, model: str) -> dict[str, Any]:
        """The last check's verdict and the labels' coverage, at most a minute old. Reads tables."""
        at, facts = self._facts.get(model, (0.0, {}))
        if time.monotonic() - at < _FACTS_SECONDS and facts:
            return facts
        try:
            champion = self._service.served(model).champion
            facts = {"last_check": self._last_check(model), "labels": self._coverage(model, champion)}
        except Exception as error:  # noqa: BLE001 - the tables may be away; what is live can be told anyway
            return no_table_facts(f"{type(error).__name__}: {error}"[:200])
        self._facts[model] = (time.monotonic(), facts)
        return facts

    def _last_check(self, model: str) -> dict[str, Any] | None:
        newest = self._service.workspace.ledger(model).newest()
        if newest is None:
            return None
        return {name: newest.get(name) for name in ("decision_id", "as_of", "verdict", "reasons")}

    def _coverage(self, model: str, champion: LoadedModel) -> dict[str, Any]:
        """Of the predictions whose labels are due, how many have one: over the monitor's window."""
        definition, store = champion.definition, self._service.workspace.store
        end = datetime.now(UTC) - definition.data.label_delay
        start = end - max(definition.monitoring.window, timedelta(days=1))
        where = (pc.field("time") >= pa.scalar(start)) & (pc.field("time") < pa.scalar(end))
        made = pc.unique(store.read(model, "predictions", columns=["id"], where=where)["id"])
        if not len(made):
            return {
                "from": start.isoformat(),
                "until": end.isoformat(),
                "predictions": 0,
                "labelled": 0,
                "coverage": None,
                "waiting": self._service.labels.waiting(model),
            }
        ours = among("id", made)
        labelled = standing(store.read(model, "labels", columns=["id", "truth", "labelled_at"], where=ours))
        found = int(pc.sum(pc.is_in(made, value_set=labelled)).as_py() or 0)
        return {
            "from": start.isoformat(), "until": end.isoformat(), "predictions": len(made), "labelled": found,
            "coverage": found / len(made), "waiting": self._service.labels.waiting(model),
        }  # fmt: skip


def no_table_facts(reason: str) -> dict[str, Any]:
    """What is told where the tables can't be read."""
    return {"last_check": None, "labels": None, "tables": reason}


def _told_interval(champion: LoadedModel) -> dict[str, Any]:
    """What is promised of a regression's intervals, where the definition asks for them."""
    coverage, made = champion.definition.serving.interval, champion.intervals
    if coverage is None:
        return {}
    return {"interval": {"coverage": coverage, "rows": 0 if made is None else made.rows, "answered": made is not None}}
