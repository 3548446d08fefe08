"""One thing that people should know of a model. Where it comes from and whether it is told is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perennial.definition import AlertKind

Source = Literal["check", "watch"]


@dataclass(frozen=True)
class Item:
    """Something that stands.

    Attributes:
        key: Names it, the same as long as it stands.
        kind: Which part of `alerts.about` it is.
        title: A few words, without figures.
        detail: A sentence with the figures; that it changes is no news.
        to_do: What the reader should do, an imperative sentence.
        marks: What it consists of, such as columns: one more is news.
        grave: Whether somebody has to act, or may want to look.
    """

    key: str
    kind: AlertKind
    title: str
    detail: str
    to_do: str
    marks: tuple[str, ...] = ()
    grave: bool = False
