"""The events that flows and commands emit and automations wait for: names and contents. No sending and no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perennial.state.registry import Reign

PROMOTED = "perennial.model.promoted"
ROLLED_BACK = "perennial.model.rolled-back"
REFUSED = "perennial.gate.refused"
WAITING = "perennial.gate.waiting"
ALERT = "perennial.model.alert"
IN_DOUBT = "perennial.gate.in-doubt"


def decision_event(verdict: str) -> str:
    """The event of a decision that asks for a run, `retrain` or `recalibrate`, or for a person: `repair`."""
    return f"perennial.decision.{verdict}"


def model_resource(model: str) -> str:
    """The resource id of a model's events."""
    return f"perennial.model.{model}"


def reign_event(reign: Reign) -> str:
    """The event of a change of champion."""
    return ROLLED_BACK if reign.action == "rollback" else PROMOTED


def reign_payload(model: str, reign: Reign) -> dict[str, Any]:
    """What a change of champion tells: the history's line, and a sentence for people."""
    back = reign.action == "rollback"
    what = f"version {reign.version} is champion{' again' if back else ''}"
    return {
        "model": model,
        "version": reign.version,
        "previous": reign.previous,
        "sequence": reign.sequence,
        "action": reign.action,
        "at": reign.at.isoformat(),
        "by": reign.by,
        "reason": reign.reason,
        "decision_id": reign.decision_id,
        "subject": f"{model}: {what}",
        "text": f"Since {reign.at:%Y-%m-%d %H:%M} UTC {what} of {model}, instead of "
        f"{reign.previous or 'none'}: {reign.reason}.",
    }
