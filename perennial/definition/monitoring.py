"""The policy of the checks, as a definition says it. Nothing is checked here."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from perennial.definition.values import Cron, Duration, Section, Share


def _parse_persistence(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s+of\s+(\d+)\s*", value)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError('persistence is "k of n" with 1 ≤ k ≤ n, such as "2 of 3"')
        return (int(match[1]), int(match[2]))
    return value


Persistence = Annotated[
    tuple[int, int],
    BeforeValidator(_parse_persistence),
    PlainSerializer(lambda value: f"{value[0]} of {value[1]}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ of \d+$"}),
]


class Triggers(Section):
    """Which signals may ask for a retraining."""

    quality: bool = True
    drift: bool = Field(True, description="Where mature labels can't judge; see drift_alone.")
    growth: bool = True
    schedule: bool = Field(True, description="Works with maximum_age.")
    estimate: bool = Field(
        False,
        description="The loss estimated without labels, where they can't judge and it proved better than guessing.",
    )


class Monitoring(Section):
    """When the champion is checked, and the policy that turns signals into a verdict."""

    schedule: Cron | None = None
    window: Duration = timedelta(days=7)
    mature_windows: int = Field(1, ge=1, description="Newest mature windows that a recalibration is fitted on.")
    minimum_rows: int = Field(
        100,
        ge=1,
        description="Fewer rows than this judge neither quality nor drift; for quality and maps older windows join, "
        "up to 12.",
    )
    minimum_coverage: Share = Field(0.5, description="Least share of mature predictions with labels to judge quality.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5, description="Drift alarms per check where nothing drifts.")
    persistence: Persistence = Field((2, 3), description="In how many of the last checks a signal must fire to act.")
    extreme: float = Field(2.0, gt=1, description="So many times its limit, a signal acts at once.")
    cooldown: Duration = timedelta(days=7)
    retrains_per_month: int = Field(6, ge=0, description="At most, in any 30 days.")
    growth: float = Field(1.4, gt=1, description="Retrain when labelled rows are this many times those trained on.")
    quality_sigmas: float = Field(2.5, gt=0, description="Standard errors by which loss must rise.")
    recalibrate: bool = Field(True, description="Refit the score's map when that is proven to help.")
    recalibration_sigmas: float = Field(1.0, ge=0, description="Standard errors by which a new map must help.")
    recalibration_strength: float = Field(
        0.7, gt=0, le=1, description="How much of the way to the newest labels' map is gone: windows differ."
    )
    recalibration_cooldown: Duration = Field(timedelta(days=7), description="Least time between two recalibrations.")
    drift_alone: Literal["blind", "always"] = Field(
        "blind", description="Let drift ask for a retraining only where labels can't judge, or always."
    )
    label_patience: Duration = Field(
        timedelta(days=28),
        description="Labels that come later than this are not waited for: drift may act before them.",
    )
    backoff: float = Field(1.5, ge=1, description="After a fruitless retraining, the bar for the next is this higher.")
    training_price: float = Field(
        0.01,
        ge=0,
        description="Share of the loss that a training must be expected to save; else the bar rises.",
    )
    maximum_age: Duration | None = Field(None, description="Retrain a champion whose training data ended so long ago.")
    triggers: Triggers = Triggers()
    stale_after: Duration | None = Field(None, description="No new rows for this long is a dead feed; default: window.")
    report_rows: int = Field(5000, ge=100, description="Rows sampled for the Evidently report.")
