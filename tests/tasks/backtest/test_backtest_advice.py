"""What a backtest says of the trigger on estimates: recommended only where it surely saves loss."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from perennial.definition import Monitoring, Triggers
from tasks.backtest.advice import Advice, advise
from tasks.backtest.results import PolicyResult

WEEK = timedelta(days=7)
WINDOW = np.repeat(np.arange(20), 50)
NOISE = np.random.default_rng(0).normal(0, 0.02, len(WINDOW))
NOTHING = {"quality": False, "drift": False, "growth": False, "schedule": False}


def result(name: str, kind: str, policy: Monitoring | None, loss: float, retrains: int) -> PolicyResult:
    kept = (1.0 - loss) / 0.5
    return PolicyResult(name, kind, policy, kept, (kept, kept), loss, (), retrains, retrains, 0, 0, 0, 1.0, (), {})


def advice(own: Monitoring, other: Monitoring, losses: dict[str, float], other_name: str) -> Advice:
    results = [
        result("never", "baseline", None, losses["never"], 0),
        result("always", "baseline", None, losses["always"], 19),
        result("own", "own", own, losses["own"], 6),
        result(other_name, "variant", other, losses[other_name], 3),
    ]
    rows = {item.name: losses[item.name] + NOISE * (number + 1) for number, item in enumerate(results)}
    return advise(results, rows, WINDOW, WEEK)


PLAIN, ASKING = Monitoring(), Monitoring(triggers=Triggers(estimate=True))


class TestEstimate:
    def test_it_is_recommended_where_it_surely_saves_loss(self) -> None:
        found = advice(PLAIN, ASKING, {"never": 1.0, "always": 0.5, "own": 0.6, "own with estimate": 0.55},
                       "own with estimate")  # fmt: skip
        assert found.name == "own with estimate"
        assert found.estimate.startswith("monitoring.triggers.estimate saves the own policy 0.051 loss per row [0.04")
        assert found.estimate.endswith("with -3 trainings: it helps")

    @pytest.mark.parametrize("loss", [0.6, 0.5999, 0.61])
    def test_otherwise_it_is_not_though_it_trains_less(self, loss: float) -> None:
        found = advice(PLAIN, ASKING, {"never": 1.0, "always": 0.5, "own": 0.6, "own with estimate": loss},
                       "own with estimate")  # fmt: skip
        assert found.name == "own"
        assert found.estimate.endswith("not proven to help, so it is not recommended")

    def test_one_that_is_switched_on_without_proof_is_switched_off(self) -> None:
        found = advice(ASKING, PLAIN, {"never": 1.0, "always": 0.5, "own": 0.55, "own without estimate": 0.55},
                       "own without estimate")  # fmt: skip
        assert found.name == "own without estimate"
        assert "not proven" in found.estimate

    def test_alone_it_is_held_against_never(self) -> None:
        alone = Monitoring(triggers=Triggers(**NOTHING, estimate=True), recalibrate=False)
        losses = {"never": 1.0, "always": 0.5, "own": 0.9, "estimate": 0.52}
        assert advice(PLAIN, alone, losses, "estimate").name == "estimate"
        assert advice(PLAIN, alone, losses, "estimate").estimate == ""
        with_maps = alone.model_copy(update={"recalibrate": True})
        assert advice(PLAIN, with_maps, losses, "estimate").name == "own"  # nothing to hold it against
