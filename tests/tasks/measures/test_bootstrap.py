"""Intervals agree with slow, plain ways to get them, cover the truth, and widen when little is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perennial.definition import CLASSIFICATION_METRICS, REGRESSION_METRICS
from perennial.errors import DataError
from tasks.measures.bootstrap import MAXIMUM_BLOCKS, block_codes, is_ahead, loss_value, paired_improvement
from tasks.measures.metrics import as_loss, improvement, metric_table

METRICS = [
    *(("classification", metric) for metric in (*CLASSIFICATION_METRICS, "calibration_error")),
    *(("regression", metric) for metric in REGRESSION_METRICS),
]


def sample(task: str, rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=rows)
    first, second = signal + 0.1 * generator.normal(size=rows), signal + 0.4 * generator.normal(size=rows)
    if task == "regression":
        return signal + generator.normal(size=rows), first, second
    expit = lambda values: 1 / (1 + np.exp(-values))  # noqa: E731
    return (generator.random(rows) < expit(signal)).astype(float), np.round(expit(first), 2), expit(second)


@pytest.mark.parametrize(("task", "metric"), METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_estimate_is_the_metric_difference(task: str, metric: str, weighted: bool) -> None:
    truth, first, second = sample(task)
    weights = np.random.default_rng(1).integers(0, 3, len(truth)).astype(float) if weighted else np.ones(len(truth))
    ours, theirs = (metric_table(task, truth, score, weights)[metric] for score in (first, second))
    found = paired_improvement(metric, truth, first, second, weights=weights, resamples=200)
    if not (weighted and metric == "calibration_error"):
        assert loss_value(metric, truth, first, weights) == pytest.approx(as_loss(metric, ours), abs=1e-9)
    assert found.estimate == pytest.approx(improvement(metric, ours, theirs), abs=1e-9)
    assert found.low < found.estimate < found.high


@pytest.mark.parametrize(("task", "metric"), METRICS)
def test_the_interval_is_that_of_a_plain_loop(task: str, metric: str) -> None:
    truth, first, second = sample(task)
    blocks = np.arange(len(truth)) // 60
    generator = np.random.default_rng(2)
    values = []
    for _ in range(300):
        drawn = np.concatenate([np.flatnonzero(blocks == block) for block in generator.integers(0, 50, 50)])
        ones = np.ones(len(drawn))
        values.append(
            loss_value(metric, truth[drawn], second[drawn], ones) - loss_value(metric, truth[drawn], first[drawn], ones)
        )
    found = paired_improvement(metric, truth, first, second, blocks=blocks, resamples=4000)
    stretch = float(found.method.split()[-1]) if "stretched" in found.method else 1.0
    plain = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    assert 0.8 < (found.high - found.low) / (plain * stretch) < 1.3


def test_auc_interval_is_that_of_delong() -> None:
    truth, first, second = sample("classification", rows=800)
    positive = truth == 1

    def components(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        psi = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
        return psi.mean(axis=1), psi.mean(axis=0)

    (p1, n1), (p2, n2) = components(first), components(second)
    error = math.sqrt(np.var(p1 - p2, ddof=1) / positive.sum() + np.var(n1 - n2, ddof=1) / (~positive).sum())
    found = paired_improvement("roc_auc", truth, first, second, blocks=np.arange(800), resamples=8000)
    assert found.estimate == pytest.approx(p1.mean() - p2.mean(), abs=1e-12)
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.12)


def test_same_seed_same_interval() -> None:
    truth, first, second = sample("classification")
    found = [paired_improvement("log_loss", truth, first, second, seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def noise_coverage(rows_per_block: int, blocks: int, memory: float, repeats: int = 300) -> float:
    """How often the 95 % interval of a zero difference holds zero, with block effects of the same size as noise."""
    generator = np.random.default_rng(5)
    held = 0
    ids = np.repeat(np.arange(blocks), rows_per_block)
    for at in range(repeats):
        level = np.empty(blocks)
        level[0] = generator.normal()
        for block in range(1, blocks):
            level[block] = memory * level[block - 1] + math.sqrt(1 - memory**2) * generator.normal()
        difference = level[ids] + generator.normal(size=len(ids))
        # With the truth far below both, absolute errors differ by exactly this: a plain mean.
        found = paired_improvement(
            "mae", np.full(len(ids), -1e6), np.zeros(len(ids)), difference, blocks=ids, resamples=1000, seed=at
        )
        held += found.low <= 0 <= found.high
    return held / repeats


@pytest.mark.parametrize(
    ("blocks", "memory", "least"), [(60, 0.0, 0.92), (20, 0.0, 0.92), (5, 0.0, 0.92), (3, 0.0, 0.9), (60, 0.5, 0.87)]
)
def test_coverage_with_many_few_and_dependent_blocks(blocks: int, memory: float, least: float) -> None:
    assert noise_coverage(20, blocks, memory) >= least


def test_few_blocks_widen_and_one_says_nothing() -> None:
    truth, first, second = sample("classification")
    widths = []
    for count in (50, 8, 3):
        found = paired_improvement("log_loss", truth, first, second, blocks=np.arange(3000) * count // 3000)
        assert found.blocks == count
        widths.append(found.high - found.low)
    assert widths[1] > widths[0]
    one = paired_improvement("log_loss", truth, first, second, blocks=np.zeros(3000))
    assert not one.known
    assert one.estimate > 0
    # One day with nearly all rows is no evidence of ten days.
    lopsided = np.where(np.arange(3000) < 2990, 0, np.arange(3000))
    assert paired_improvement("log_loss", truth, first, second, blocks=lopsided).high > 0.3


def test_extreme_confidence_uses_more_than_the_drawn_extremes() -> None:
    truth, first, second = sample("classification")
    usual = paired_improvement("log_loss", truth, first, second, resamples=500)
    strict = paired_improvement("log_loss", truth, first, second, resamples=500, confidence=0.9999)
    assert strict.high - strict.low > 1.8 * (usual.high - usual.low)


def test_blocks() -> None:
    assert len(np.unique(block_codes(10_000))) == 100
    assert block_codes(4, ["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    many = block_codes(50_000, np.arange(50_000))
    assert len(np.unique(many)) == MAXIMUM_BLOCKS
    assert np.all(np.diff(many) >= 0)
    days = np.array(["2013-01-02", "2013-01-01", "2013-01-02"], dtype="datetime64[D]")
    assert block_codes(3, days).tolist() == [1, 0, 1]
    assert block_codes(0).tolist() == []
    with pytest.raises(DataError, match="block ids have shape"):
        block_codes(3, [1, 2])


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(DataError, match="lift is no metric"):
        paired_improvement("lift", [0, 1], [0.1, 0.2], [0.1, 0.2])


unit = st.floats(0, 1, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 40).flatmap(
        lambda rows: st.tuples(
            arrays(float, rows, elements=st.sampled_from([0.0, 1.0])),
            arrays(float, rows, elements=unit),
            arrays(float, rows, elements=unit),
            arrays(float, rows, elements=st.sampled_from([0.0, 1.0, 2.5])),
            arrays(int, rows, elements=st.integers(0, 12)),
        )
    ),
    st.sampled_from(METRICS),
)
def test_anything_goes_in_without_warning_and_comes_out_ordered(case, named) -> None:
    truth, first, second, weights, blocks = case
    found = paired_improvement(named[1], truth, first, second, blocks=blocks, weights=weights, resamples=100)
    assert math.isnan(found.low) == math.isnan(found.high)
    if found.known:
        assert found.low <= found.estimate + 1e-9
        assert found.estimate <= found.high + 1e-9
    same = paired_improvement(named[1], truth, first, first, blocks=blocks, weights=weights, resamples=100)
    assert same.estimate == pytest.approx(0, abs=1e-12, nan_ok=True) or math.isnan(same.estimate)
    assert not same.known or (same.low, same.high) == pytest.approx((0, 0), abs=1e-12)
    swapped = paired_improvement(named[1], truth, second, first, blocks=blocks, weights=weights, resamples=100)
    assert swapped.estimate == pytest.approx(-found.estimate, nan_ok=True, abs=1e-9)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "accuracy"])
def test_one_model_computed_in_two_ways_is_not_better_than_itself(metric: str) -> None:
    random = np.random.default_rng(976)
    score = random.uniform(0.05, 0.95, 2000)
    truth = (random.uniform(size=2000) < score).astype(float)
    again = 1 / (1 + (1 - score) / score)
    assert not np.array_equal(score, again)
    found = paired_improvement(metric, truth, score, again, resamples=200)
    assert abs(found.estimate) < 1e-300
    assert abs(found.high - found.low) < 1e-300
    assert not is_ahead(found)
    better = paired_improvement("brier", truth, score, 0.9 * score, resamples=200)
    assert better.estimate > 1e-4
