"""The newest check's figures, each as a number with its labels, for whoever watches numbers. Pure: no table is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

VERDICTS = ("hold", "recalibrate", "retrain", "repair")


@dataclass(frozen=True)
class Figure:
    """One number: what it is called, its labels in the order of `FIGURES`, and its value."""

    name: str
    labels: tuple[str, ...]
    value: float


# What is told of the newest check, by name: in words, and by which labels.
FIGURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "check_time_seconds": ("The moment of the newest check, in seconds since 1970.", ("model",)),
    "check_verdict": ("1 for the verdict of the newest check, 0 for the others.", ("model", "verdict")),
    "check_loss": ("The mean loss on the newest mature window that could be judged.", ("model", "loss")),
    "check_loss_at_promotion": ("The champion's mean loss when it was promoted.", ("model", "loss")),
    "check_label_coverage": ("The share of the newest mature predictions with labels.", ("model",)),
    "check_drift_ratio": ("The furthest movement of a column, in times of its limit.", ("model",)),
    "check_training_age_days": ("Days since the end of the champion's training data.", ("model",)),
    "column_missing_share": ("The share of a column missing in the newest window.", ("model", "column")),
    "column_mean": ("The mean of a column in the newest window.", ("model", "column")),
    "column_deviation": ("The standard deviation of a column in the newest window.", ("model", "column")),
}


def figures_of(
    model: str, entry: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], now: datetime
) -> Iterator[Figure]:
    """The figures of a decision; what could not be measured is left out.

    Args:
        entry: The decision, as the ledger has it.
        columns: Of each column of its window: column, missing_share, mean, deviation.
        now: For the age of the training.
    """
    evidence = entry["evidence"]
    moment = datetime.fromisoformat(entry["as_of"])
    yield Figure("check_time_seconds", (model,), moment.timestamp())
    for verdict in VERDICTS:
        yield Figure("check_verdict", (model, verdict), float(entry["verdict"] == verdict))
    loss = evidence.get("loss") or {}
    if evidence.get("judged") and loss.get("mean") is not None:
        yield Figure("check_loss", (model, loss["name"]), loss["mean"])
    if loss.get("at_promotion") is not None:
        yield Figure("check_loss_at_promotion", (model, loss["name"]), loss["at_promotion"])
    if evidence.get("mature_predictions"):
        yield Figure("check_label_coverage", (model,), evidence["coverage"])
    drift = next((item for item in entry["signals"] if item["name"] == "drift"), None)
    if drift is not None and drift["value"] is not None:
        yield Figure("check_drift_ratio", (model,), drift["value"])
    age = now - datetime.fromisoformat(evidence["trained_until"])
    yield Figure("check_training_age_days", (model,), age.total_seconds() / 86_400)
    for row in columns:
        for name in ("missing_share", "mean", "deviation"):
            value = row[name]
            if value is not None and math.isfinite(value):
                yield Figure(f"column_{name}", (model, str(row["column"])), float(value))
