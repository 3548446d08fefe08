"""The one form in which any part of a check reports what it saw. No judging belongs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

SignalKind = Literal["health", "quality", "drift", "estimate", "recalibration", "growth", "schedule", "label"]


@dataclass(frozen=True)
class Signal:
    """One measurement beside its limit.

    Attributes:
        name: What was measured, unique within a check.
        kind: Which trigger it belongs to.
        value: The measurement; None where it could not be made.
        threshold: What it is held against; None where there is no limit.
        threshold_source: Where the limit comes from, in words.
        fired: Beyond its limit in this check.
        persistent: Beyond it in enough of the last checks to act on.
        detail: One sentence with the numbers.
    """

    name: str
    kind: SignalKind
    value: float | None
    threshold: float | None
    threshold_source: str
    fired: bool
    persistent: bool
    detail: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Signal:
        return cls(**raw)


def finite(value: float) -> float | None:
    """The number, or None for NaN and infinities, which JSON can't hold."""
    return float(value) if np.isfinite(value) else None
