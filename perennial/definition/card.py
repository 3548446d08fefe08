"""What people add to a model's cards, as a definition says it. No card is written here."""

from __future__ import annotations

from pydantic import Field

from perennial.definition.values import Section


class Card(Section):
    """People's own words on every version's card; Markdown, whose HTML is shown as text."""

    purpose: str = Field("", description="What the model is for, and what it is not for.")
    limits: str = Field("", description="Where it must not be trusted.")
    contact: str = Field("", description="Whom to ask.")
    text: str = Field("", description="Anything else; a section of its own.")
