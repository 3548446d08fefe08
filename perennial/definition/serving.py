"""How the champion answers, as a definition says it. Nothing is served here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from perennial.definition.values import Coverage, Percent, Section


class Cost(Section):
    """What the two mistakes of a decision cost, in any one unit."""

    false_positive: float = Field(gt=0, description="To act where nothing was to be done.")
    false_negative: float = Field(gt=0, description="Not to act where it was needed.")

    @property
    def calibrated_threshold(self) -> float:
        """From which probability on acting is the cheaper mistake, where probabilities are calibrated."""
        return self.false_positive / (self.false_positive + self.false_negative)


class Serving(Section):
    """How the champion answers over the API."""

    control_group: Percent = Field(0.0, description="Share of ids marked for the application to leave untreated.")
    canary: Percent = Field(0.0, description="Share of ids that the `candidate` answers, sticky by id.")
    shadow: Percent = Field(0.0, description="Share of ids that the `candidate` scores too, off the request's path.")
    candidate: Literal["challenger", "previous"] = Field("challenger", description="Who gets canary and shadow.")
    salt: str = Field("", description="Changes who is in the groups; default: the model's name.")
    threshold: float = Field(0.5, gt=0, lt=1, description="From this probability on the label is 1.")
    cost: Cost | None = Field(
        None, description="Instead of threshold: what mistakes cost; each version chooses its threshold by it."
    )
    interval: Coverage | None = Field(
        None,
        description="Of a regression: the share of truths that the answered interval, lower to upper, is to hold.",
    )
    output: Literal["probability", "label", "both", "word"] = Field(
        "probability", description="What requests get by default; `word` is the class as the data writes it."
    )
    log_share: Percent = Field(1.0, description="Share of ids whose predictions are logged.")
    redact: tuple[str, ...] = Field((), description="Features that are left out of the log; images always are.")
