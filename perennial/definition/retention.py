"""How long what a model leaves behind is kept, as a definition says it. Nothing is deleted here."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from perennial.definition.values import Cron, Duration, Section

_LEAST = timedelta(days=1)


class Retention(Section):
    """How long things are kept that nobody needs any more; null keeps them for ever."""

    schedule: Cron | None = Field("30 4 * * 0", description="When `prune` runs; null leaves it to people.")
    kept_out: Duration | None = Field(
        timedelta(days=90),
        description="Versions that never were champion, with their runs and artifacts. One that has an alias, waits, "
        "is the newest, or is pinned by the tag perennial.pinned, stays.",
    )
    trainings: Duration | None = Field(
        timedelta(days=180),
        description="So long the tables can be read as a training read them; for versions with an alias, always.",
    )
    reports: Duration | None = Field(timedelta(days=180), description="The pages of checks, deliveries and backtests.")
    work: Duration | None = Field(timedelta(days=30), description="What a training would be resumed from.")
    predictions: Duration | None = Field(
        None, description="Rows of the prediction log, by the moment of the answer. Checks and probations read them."
    )
    quarantine: Duration | None = Field(
        timedelta(days=180), description="Refused rows that were released or mended; open and discarded ones stay."
    )

    @model_validator(mode="after")
    def _long_enough(self) -> Retention:
        for name in ("kept_out", "trainings", "reports", "work", "predictions", "quarantine"):
            kept = getattr(self, name)
            if kept is not None and kept < _LEAST:
                raise ValueError(f"{name} is at least 1d; null keeps it for ever")
        return self
