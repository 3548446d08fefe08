"""The names of the events that the flows emit and the deployments wait for. No sending and no waiting."""

RETRAIN_EVENT = "perennial.decision.retrain"
RECALIBRATE_EVENT = "perennial.decision.recalibrate"


def model_resource(model: str) -> str:
    """The resource id of a model's events."""
    return f"perennial.model.{model}"
