"""What a model's own retrainings have brought, and so what the next one may be expected to bring. No verdict, no I/O.

Each training counts with what later rows said of it beside the champion before; until they have, or where it was kept
out, with what the gate measured. The mean is shrunk towards what a retraining brings in general, with the weight of one
training: one refusal does not undo three good ones, and a model whose retrainings keep failing is believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.check.history import History

RECENT = 4
_USUAL, _SPREAD = 0.02, 0.05  # of the known sets' retrainings, as shares of the loss: `benchmarks/decisions.py`
_LEAST_ERROR, _LEAST_REALISED = 0.01, 2
_LARGEST = 0.5  # no single training counts for more: shares of a loss are unbounded below


@dataclass(frozen=True)
class ExpectedGain:
    """What the next retraining may be expected to bring.

    Attributes:
        mean: As a share of the champion's loss, shrunk.
        error: Its standard error.
        trainings: How many it rests on beside the prior; 0 is the prior alone.
    """

    mean: float
    error: float
    trainings: int

    def told(self) -> str:
        if not self.trainings:
            return "no retraining has shown yet what one brings"
        many = f"last {self.trainings} retrainings" if self.trainings > 1 else "last retraining"
        return f"the {many} brought {self.mean:.1%} ± {self.error:.1%} of the loss"


def expected_gain(history: History) -> ExpectedGain:
    """From the newest trainings in the ledger whose gain is known."""
    return _shrunk(history.gains)


def warning(history: History) -> tuple[float, float] | None:
    """Mean and error where less than nothing is to be expected of a promotion: the gate asks for more then.

    It rests on what later rows said of at least two promotions: a single holdout may be of another season.
    """
    later = tuple(history.realised.values())
    found = _shrunk(later)
    return (found.mean, max(found.error, _LEAST_ERROR)) if len(later) >= _LEAST_REALISED and found.mean < 0 else None


def _shrunk(gains: Sequence[float]) -> ExpectedGain:
    found = [max(-_LARGEST, min(_LARGEST, gain)) for gain in gains[-RECENT:]]
    count = len(found)
    mean = (_USUAL + sum(found)) / (count + 1)
    squares = _SPREAD**2 + sum((gain - mean) ** 2 for gain in found)
    return ExpectedGain(mean, math.sqrt(squares / (count + 1) / (count + 1)), count)
