"""The threshold is the cheapest on rows that were not learned from; where there are few, the formula's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perennial.definition import Cost
from tasks.gate.threshold import cheapest_threshold


def paid(truth: np.ndarray, score: np.ndarray, edge: float, cost: Cost) -> float:
    missed = ((score < edge) & (truth == 1)).sum() * cost.false_negative
    return float((missed + ((score >= edge) & (truth == 0)).sum() * cost.false_positive) / len(truth))


@pytest.mark.parametrize("price", [0.2, 1.0, 8.0])
def test_no_other_threshold_is_cheaper(price: float) -> None:
    generator = np.random.default_rng(0)
    chance = generator.uniform(size=2000)
    truth = (generator.uniform(size=2000) < chance).astype(float)
    cost = Cost(false_positive=1, false_negative=price)
    for score in (chance, chance**3, np.round(chance, 1)):  # calibrated, biased, with ties
        found = cheapest_threshold(truth, score, cost)
        assert found.cost == pytest.approx(paid(truth, score, found.value, cost))
        assert found.cost <= min(paid(truth, score, edge, cost) for edge in np.linspace(0.001, 0.999, 500)) + 1e-12
        assert found.rows == 2000
    assert cheapest_threshold(truth, chance, cost).value == pytest.approx(cost.calibrated_threshold, abs=0.1)


def test_few_rows_of_a_class_leave_it_to_the_formula() -> None:
    truth = np.repeat([0.0, 1.0], [500, 20])
    cost = Cost(false_positive=1, false_negative=4)
    found = cheapest_threshold(truth, np.linspace(0, 1, 520), cost)
    assert (found.value, found.rows) == (0.2, 0)
    told = json.loads(found.tag(cost))
    assert (told["value"], told["false_negative"]) == (0.2, 4)


def test_one_score_for_all_leaves_it_to_the_formula() -> None:
    truth = np.repeat([0.0, 1.0], 100)
    assert cheapest_threshold(truth, np.full(200, 0.5), Cost(false_positive=1, false_negative=1)).value == 0.5
