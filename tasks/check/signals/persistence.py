"""Whether a signal that fired counts: its persistence over checks, and what people accepted. No measuring."""

from __future__ import annotations

from typing import Any

from perennial.definition import Monitoring
from tasks.check.history import History
from tasks.check.signal import Signal


def accepted_signal(signal: Signal, accepted: dict[str, Any]) -> Signal:
    if signal.name not in accepted:
        return signal
    row = accepted[signal.name]
    detail = f"{signal.detail} (accepted by {row['by']}: {row['reason']})"
    return Signal(
        signal.name, signal.kind, signal.value, signal.threshold, signal.threshold_source, False, False, detail
    )


def persists(
    history: History, versions: frozenset[str], name: str, fired: bool, extreme: bool, policy: Monitoring
) -> bool:
    needed, among = policy.persistence
    earlier = history.fired(versions, name, among - 1)
    return fired and (extreme or 1 + sum(earlier) >= needed)
