"""What people are told of a model, as a definition says it: alerts, weak segments, their own words on cards.

Who is told is said by `automations.yaml`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from perennial.definition.values import Duration, Section

AlertKind = Literal["data", "quality", "drift", "labels", "reviews", "watch"]
_ALL: tuple[AlertKind, ...] = ("data", "quality", "drift", "labels", "reviews", "watch")


class Alerts(Section):
    """One message a check about all that stands, then silence until something changes. Without this section: none."""

    about: tuple[AlertKind, ...] = Field(
        _ALL,
        min_length=1,
        description="data: broken; quality: surely fallen; drift: that persists; labels: that stopped coming; reviews: "
        "a queue that people don't keep up with; watch: "
        "what `perennial watch` found.",
    )
    recovered: bool = Field(True, description="Whether to tell, too, when something is over.")
    quiet_checks: int = Field(2, ge=1, description="What is absent from so many checks in a row is over.")
    remind: Duration | None = Field(None, description="Tell again what still stands after so long; null: never.")


class Segments(Section):
    """Where the model is weak: segments of its columns are searched by each check and the gate. It blocks nothing."""

    columns: Literal[1, 2] = Field(2, description="Segments of single columns, or of pairs of them too.")
    among: tuple[str, ...] = Field(
        (), description="Features that are looked at; all numbers and categories by default."
    )
    minimum_rows: int = Field(200, ge=30, description="Smaller segments are not looked at.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of all that is found, together: Holm's correction.")


class Card(Section):
    """People's own words on every version's card; Markdown, whose HTML is shown as text."""

    purpose: str = Field("", description="What the model is for, and what it is not for.")
    limits: str = Field("", description="Where it must not be trusted.")
    contact: str = Field("", description="Whom to ask.")
    text: str = Field("", description="Anything else; a section of its own.")
