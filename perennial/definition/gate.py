"""On what evidence a challenger is let past, as a definition says it. Nothing is judged here."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from perennial.definition.values import Duration, Section, Share


class Limit(Section):
    """An absolute bound on a metric."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


Doubt = Literal["wait", "keep", "promote"]


class GatePolicy(Section):
    """On what evidence a challenger is let past."""

    metric: str | None = Field(None, description="The metric compared; default: log_loss or mse.")
    limits: dict[str, Limit] = Field(default_factory=dict)
    margin: float = Field(
        0.02, ge=0, description="How much worse, as a share of the champion's loss, still counts as not worse."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the two-sided interval of a difference.")
    doubt: Doubt = Field(
        "wait",
        description="Where a challenger may be better or worse: let in who is ahead, on probation, and look again at "
        "who is not, on later rows; or keep the champion; or let it in, on probation.",
    )
    wait_windows: int = Field(8, ge=1, description="So many labelled windows a challenger waits, at most.")
    resamples: int = Field(2000, ge=100)
    holdout_share: float = Field(0.2, gt=0, lt=0.9, description="The newest share of the labelled rows, at most.")
    holdout_window: Duration | None = Field(None, description="Instead of a share: this much of the newest time.")
    minimum_rows: int = Field(50, ge=1, description="On fewer rows than this nobody is judged.")
    slices: tuple[str, ...] = ()
    slice_margin: float = Field(0.05, ge=0, description="A slice that is surely worse, and by more than this, blocks.")
    slice_minimum_rows: int = Field(200, ge=1)
    calibration_error: float | None = Field(None, gt=0, description="Most expected calibration error allowed.")
    calibration_margin: float = Field(
        0.02, ge=0, description="Without calibration_error: surely worse calibrated, and by more than this, blocks."
    )
    implausible_share: Share = Field(
        0.2, description="Less than this share of the champion's and the baseline's loss is too good; 0 allows all."
    )
    leakage_separation: float | None = Field(
        0.999, gt=0.5, le=1, description="Scores, or one feature, that tell the truth this well (AUC or R²) are a leak."
    )
    golden_tolerance: float = Field(1e-6, ge=0, description="Largest difference of a golden prediction.")
    latency_ms: float | None = Field(None, gt=0, description="Most milliseconds for one row, median.")
    size_mb: float | None = Field(None, gt=0)
    approval: Literal["automatic", "human"] = "automatic"
    probation: Duration | None = Field(
        None,
        description="So much labelled time after a promotion the former champion is scored in the shadow; default: "
        "four windows, at least 28 days.",
    )
    approval_expires: Duration = Field(timedelta(days=14), description="A challenger waits no longer for a person.")
