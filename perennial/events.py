"""The names of the events that the flows emit and the deployments wait for. No sending and no waiting."""

PROMOTED = "perennial.model.promoted"
ROLLED_BACK = "perennial.model.rolled-back"
REFUSED = "perennial.gate.refused"
WAITING = "perennial.gate.waiting"


def decision_event(verdict: str) -> str:
    """The event of a decision that asks for a run, `retrain` or `recalibrate`, or for a person: `repair`."""
    return f"perennial.decision.{verdict}"


def model_resource(model: str) -> str:
    """The resource id of a model's events."""
    return f"perennial.model.{model}"
