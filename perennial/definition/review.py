"""What of a model's predictions people look at, as a definition says it. Nothing is chosen here."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from perennial.definition.values import Cron, Duration, Percent, Section


class Review(Section):
    """Which predictions are put up for a person each day, and what their answers count for; off without `per_day`."""

    per_day: int = Field(
        0, ge=0, le=100_000, description="So many predictions a day, at most, are put up for a person; 0 puts up none."
    )
    schedule: Cron | None = Field("0 5 * * *", description="When the day's are put up, with per_day; at most daily.")
    random_share: Percent = Field(
        0.3, description="Of them, drawn at random from all: only these may judge quality where few labels come else."
    )
    unfamiliar_share: Percent = Field(
        0.2, description="Of them, those with categories or numbers that training has not seen; the rest by margin."
    )
    gold_share: Percent = Field(
        0.0,
        description="Beside them, as a share of per_day: rows of known truth, by which people are judged.",
    )
    double_share: Percent = Field(0.1, description="Of them, put to two people who do not see each other's answer.")
    expires: Duration = Field(timedelta(days=14), description="What nobody answered for so long is not asked any more.")
    hide_score: bool = Field(False, description="Whether people see the model's score only after they have answered.")
    tolerance: float = Field(0.0, ge=0, description="Of a regression: answers that differ by no more than this agree.")
    most_weight: float = Field(
        10.0,
        ge=1,
        description="In a training, a row drawn at random stands for the many that were not; it counts this many times "
        "one that was chosen, at most. 1 lets all count alike.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Review:
        if self.random_share + self.unfamiliar_share > 1:
            raise ValueError(
                f"random_share {self.random_share:g} and unfamiliar_share {self.unfamiliar_share:g} are more than the "
                "whole together; the rest is chosen by margin"
            )
        if self.expires < timedelta(hours=1):
            raise ValueError("expires is at least 1h")
        return self
