"""What one policy's way through a history came to: frozen values. Which policy is better is not said here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perennial.definition import Monitoring
from tasks.backtest.walker import Action


@dataclass(frozen=True)
class PolicyResult:
    """One policy's replay.

    Attributes:
        kind: baseline, own, variant, file or doubt.
        policy: None for a baseline, and where it is the gate that differs from the own policy.
        kept: (never - policy) / (never - always) in mean loss, NaN where always retraining gains nothing;
            `kept_interval` is of never - policy, in that unit.
        loss: Mean loss per row; `window_losses` by window, NaN where no row has its truth.
        retrains: Trainings run; `promoted` of them. Those of `recalibrations` and `maps_promoted` are of maps only.
        undone: Promotions of both kinds that the probation rolled back.
        cpu_seconds: Of its trainings, checks and maps, as if it had been alone.
        checks: How many, by verdict.
    """

    name: str
    kind: str
    policy: Monitoring | None
    kept: float
    kept_interval: tuple[float, float]
    loss: float
    window_losses: tuple[float, ...]
    retrains: int
    promoted: int
    recalibrations: int
    maps_promoted: int
    undone: int
    cpu_seconds: float
    actions: tuple[Action, ...]
    checks: Mapping[str, int]
