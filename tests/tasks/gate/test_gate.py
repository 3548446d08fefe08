"""The gate lets the better through and nothing else: real models, known truth, and whatever hypothesis thinks of."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from perennial.definition import GatePolicy, Limit
from perennial.errors import DataError
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence, behind_fair_maps
from tasks.gate.report import Check, GateReport, render_markdown
from tasks.measures.bootstrap import Interval, is_ahead
from tasks.measures.leakage import separations, shared_rows
from tasks.measures.metrics import metric_names

ROOT = Path(__file__).parents[3]
ELEC2 = ROOT.parent / "shared" / "data" / "elec2" / "elec2.parquet"


def expit(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def evidence(rows: int = 4000, better: float = 0.1, worse: float = 0.6, seed: int = 0, **more: Any) -> Evidence:
    """A challenger that is wrong by `better` beside a champion that is wrong by `worse`, in logits."""
    generator = np.random.default_rng(seed)
    signal = generator.normal(-1, 1, rows)
    truth = (generator.random(rows) < expit(signal)).astype(float)
    models = [expit(signal + size * generator.normal(size=rows)) for size in (better, worse)]
    given = {"blocks": np.arange(rows) // 100, "overlap_rows": 0} | more
    return replace(Evidence(truth, models[0], models[1], np.full(rows, 0.3), 0), **given)


def decide(found: Evidence, metric: str = "log_loss", task: Any = "classification", **policy: Any) -> GateReport:
    """By the gate that keeps the champion in doubt, unless another answer is given."""
    return judge(
        found, GatePolicy(**({"doubt": "keep"} | policy)), task=task, metric=metric, seed=1, every_metric=False
    )


def check(report: GateReport, name: str) -> Check:
    return next(each for each in report.checks if each.name == name)


def test_a_better_challenger_is_promoted_with_its_reason() -> None:
    report = decide(evidence())
    assert report.verdict == "promote"
    compared = check(report, "better_than_champion")
    assert compared.value is not None
    assert compared.value > 0
    assert compared.interval is not None
    assert compared.interval.low > -0.01
    assert "log_loss is 0." in report.reasons[0]
    assert "the champion's 0." in report.reasons[0]
    assert "4,000 rows" in report.reasons[0]
    assert set(report.metrics) == {"challenger", "champion", "baseline"}
    assert set(report.metrics["challenger"]) == {"log_loss", "roc_auc"}, "what decides alone"
    assert report.blocks == 40
    assert not report.alert


@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "average_precision", "accuracy", "f1"])
def test_every_kind_of_metric_tells_better_from_worse(metric: str) -> None:
    assert decide(evidence(rows=20_000, worse=1.5), metric).verdict == "promote"
    assert decide(evidence(rows=20_000, better=1.5, worse=0.1), metric).verdict == "keep"


def test_a_worse_and_an_identical_challenger_are_kept_out() -> None:
    worse = decide(evidence(better=0.6, worse=0.1))
    assert worse.verdict == "keep"
    assert "surely worse" in worse.reasons[0]
    same = evidence()
    tie = decide(replace(same, challenger=same.champion))
    assert tie.verdict == "keep"
    assert "brings nothing" in tie.reasons[0]


def test_too_few_rows_one_class_and_one_block_are_insufficient() -> None:
    few = decide(evidence(rows=40))
    assert few.verdict == "insufficient evidence"
    assert "50 are needed" in few.reasons[0]
    whole = evidence()
    one_class = decide(replace(whole, truth=np.zeros(4000)))
    assert one_class.verdict == "insufficient evidence"
    assert "rarer class has 0" in one_class.reasons[0]
    one_block = decide(replace(whole, blocks=np.zeros(4000)))
    assert one_block.verdict == "insufficient evidence"
    assert "one block of time" in one_block.reasons[0]


def test_by_default_who_is_ahead_goes_in_and_who_is_not_waits() -> None:
    doubtful = evidence(rows=600, better=0.5, worse=0.6, seed=1)
    ahead = decide(doubtful, margin=0.001, doubt="wait")
    assert ahead.verdict == "promote"
    assert "lets it in, on probation" in ahead.reasons[0]
    turned = replace(doubtful, challenger=doubtful.champion, champion=doubtful.challenger)
    behind = decide(turned, margin=0.001, doubt="wait")
    assert behind.verdict == "wait"
    assert "looked at again on rows that neither has seen" in behind.reasons[0]
    assert behind.tags()["gate.verdict"] == "wait"
    assert decide(evidence(better=0.6, worse=0.1), doubt="wait").verdict == "keep", "surely worse"
    few = decide(evidence(rows=40), doubt="wait")
    assert few.verdict == "insufficient evidence", "limits, slices and leaks were not judged: later looks don't either"
    assert decide(evidence(latency_ms=None), doubt="wait", latency_ms=5).verdict == "insufficient evidence"
    first = replace(evidence(rows=40), champion=None)
    assert decide(first, doubt="wait").verdict == "insufficient evidence", "a first model has nobody to wait behind"


def test_what_promotions_have_brought_asks_for_more() -> None:
    doubtful = evidence(rows=600, better=0.5, worse=0.6, seed=1)
    assert decide(doubtful, margin=0.001, doubt="wait").verdict == "promote"
    warned = decide(replace(doubtful, prior=(-0.05, 0.01)), margin=0.001, doubt="wait")
    assert warned.verdict == "wait"
    assert "Promotions of this model have brought -5.0%" in warned.reasons[0]
    clear = replace(evidence(), prior=(-0.05, 0.01))
    assert decide(clear, doubt="wait").verdict == "promote", "what is surely not worse goes in all the same"


@given(estimate=st.floats(-0.2, 0.2), width=st.floats(0.001, 0.5), mean=st.floats(-0.3, 0.3))
def test_a_prior_shifts_who_is_ahead_the_more_the_less_is_known(estimate: float, width: float, mean: float) -> None:
    found = Interval(estimate, estimate - width, estimate + width, 0.95, 0, 9, "")
    alone, with_prior = is_ahead(found), is_ahead(found, (mean, 0.02))
    assert alone == (estimate > 0)
    if (estimate > 0) == (mean > 0) and estimate and mean:
        assert with_prior == alone
    certain = Interval(estimate, estimate, estimate, 0.95, 0, 9, "")
    assert is_ahead(certain, (mean, 0.02)) == alone


def test_a_gain_of_a_third_on_192_rows_is_let_in() -> None:
    few = evidence(rows=192, better=0.0, worse=2.5, blocks=np.arange(192) // 24)
    report = decide(few, doubt="wait")
    compared = check(report, "better_than_champion").value
    assert compared is not None
    assert compared > 0.3
    assert report.verdict == "promote"


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), slope=st.floats(0.3, 3), shift=st.floats(-1.5, 1.5))
def test_behind_fair_maps_calibration_alone_decides_nothing(seed: int, slope: float, shift: float) -> None:
    """The same model twice, one of them stretched and shifted: raw one is far worse, behind its map it is the same."""
    found = evidence(rows=3000, worse=0.6, seed=seed)
    same = np.asarray(found.champion)
    warped = expit(slope * np.log(same / (1 - same)) + shift)
    fair = behind_fair_maps(replace(found, challenger=warped), "classification", 1.0)
    report = decide(fair, doubt="keep")
    compared = check(report, "better_than_champion").value
    assert compared is not None
    assert abs(compared) < 0.01
    assert fair.unmapped is not None
    assert np.array_equal(np.asarray(fair.unmapped[0]), warped)


def test_a_wide_interval_says_how_many_rows_would_settle_it() -> None:
    report = decide(evidence(rows=600, better=0.5, worse=0.6, seed=1), margin=0.001)
    assert report.verdict == "insufficient evidence"
    assert "times the rows would settle it" in report.reasons[0]


def test_in_doubt_the_policy_keeps_or_lets_in() -> None:
    doubtful = evidence(rows=600, better=0.5, worse=0.6, seed=1)
    assert decide(doubtful, margin=0.001).verdict == "insufficient evidence"
    let_in = decide(doubtful, margin=0.001, doubt="promote")
    assert let_in.verdict == "promote"
    assert "in doubt, and gate.doubt lets it in, on probation" in let_in.reasons[0]
    turned = replace(doubtful, challenger=doubtful.champion, champion=doubtful.challenger)
    assert decide(turned, margin=0.001).verdict == "insufficient evidence", "behind, but perhaps better"
    assert decide(turned, margin=0.001, doubt="promote").verdict == "promote"


def test_no_doubt_is_made_of_what_is_known() -> None:
    """What is surely worse, unusable, too small a sample, leaking or unproven by any other check stays out."""
    assert decide(evidence(better=0.6, worse=0.1), doubt="promote").verdict == "keep"
    assert decide(evidence(rows=40), doubt="promote").verdict == "insufficient evidence"
    same = evidence()
    assert decide(replace(same, challenger=same.champion), doubt="promote").verdict == "keep"
    assert decide(replace(same, overlap_rows=1), doubt="promote").verdict == "keep"
    assert decide(replace(same, blocks=np.zeros(4000)), doubt="promote").verdict == "insufficient evidence"
    generator = np.random.default_rng(3)
    noise = expit(generator.normal(-1, 1, 4000))
    assert decide(replace(same, challenger=noise), doubt="promote").verdict == "keep"
    first = replace(same, challenger=noise, champion=None)
    assert decide(first, doubt="promote").verdict == "keep", "surely worse than the baseline"
    truth = np.asarray(same.truth)
    weak = np.clip(truth.mean() + 0.02 * generator.normal(size=4000), 0.01, 0.99)
    unproven = replace(same, challenger=weak, baseline=np.full(4000, truth.mean() + 0.001), champion=None)
    interval = check(decide(unproven), "better_than_baseline").interval
    assert interval is not None
    assert interval.low < 0 < interval.high, "or this shows nothing"
    assert decide(unproven, doubt="promote").verdict != "promote", "nobody would be in a first model's shadow"
    leak = np.clip(truth, 0.001, 0.999)
    assert decide(replace(same, challenger=leak), doubt="promote").verdict == "keep"


def test_weights_count() -> None:
    found = evidence()
    half = np.arange(4000) % 2 == 0
    challenger = np.where(half, found.challenger, 0.9)
    assert decide(replace(found, challenger=challenger)).verdict == "keep"
    assert decide(replace(found, challenger=challenger, weights=half.astype(float))).verdict == "promote"
    one_heavy = np.full(4000, 1e-9)
    one_heavy[0] = 1.0
    assert decide(replace(found, weights=one_heavy)).verdict == "insufficient evidence"


def test_broken_scores_are_a_verdict_and_broken_truth_an_error() -> None:
    found = evidence()
    broken = np.array(found.challenger)
    broken[:7] = [math.nan, math.inf, -0.1, 1.1, math.nan, math.nan, math.nan]
    report = decide(replace(found, challenger=broken))
    assert report.verdict == "keep"
    assert "7 of 4,000 of the challenger's scores" in report.reasons[0]
    champion = decide(replace(found, champion=broken))
    assert champion.verdict == "promote"
    assert champion.alert
    with pytest.raises(DataError, match="1 of 4000 truth values"):
        decide(replace(found, truth=np.concatenate([[math.nan], np.asarray(found.truth)[1:]])))
    with pytest.raises(DataError, match="champion has scores of shape"):
        decide(replace(found, champion=broken[:5]))
    with pytest.raises(DataError, match="slice port does not have 4000"):
        decide(replace(found, slices={"port": ["a"]}))


def test_constant_predictions_are_kept_out() -> None:
    found = evidence()
    report = decide(replace(found, challenger=np.full(4000, np.mean(found.truth)), champion=np.full(4000, 0.6)))
    assert report.verdict == "keep"
    assert "same for every row" in report.reasons[0]


def test_absolute_limits() -> None:
    report = decide(evidence(), limits={"roc_auc": Limit(min=0.9), "brier": Limit(min=0.01, max=0.3)})
    assert check(report, "limit:roc_auc").passed is False
    assert [each.passed for each in report.checks if each.name == "limit:brier"] == [True, True]


def test_a_failing_champion_does_not_block_for_ever() -> None:
    limits = {"roc_auc": Limit(min=0.9)}
    better = decide(evidence(), limits=limits, calibration_error=1e-6)
    assert (better.verdict, better.alert) == ("promote", True)
    assert "the champion's limit:roc_auc is 0.7026" in better.reasons[-1]
    worse = decide(evidence(better=0.6, worse=0.1), limits=limits)
    assert (worse.verdict, worse.alert) == ("keep", True)
    between = decide(evidence(), limits={"roc_auc": Limit(min=0.735)})
    assert between.verdict == "promote"
    first = decide(replace(evidence(), champion=None), limits=limits)
    assert (first.verdict, first.alert) == ("keep", False)


def test_a_challenger_that_breaks_a_limit_that_the_champion_keeps() -> None:
    found = evidence(worse=0.2)
    loud = np.clip(np.asarray(found.challenger) * 1.1, 0, 1)
    report = decide(replace(found, challenger=loud), metric="roc_auc", calibration_error=0.025)
    assert check(report, "better_than_champion").passed
    assert (report.verdict, report.alert) == ("keep", False)
    assert "calibration_error is 0.0" in report.reasons[0]


def test_first_model_must_beat_the_baseline() -> None:
    found = replace(evidence(), champion=None)
    report = decide(found)
    assert report.verdict == "promote"
    assert report.comparison == check(report, "better_than_baseline")
    assert "baseline" in report.reasons[0]
    noise = np.clip(0.3 + 0.1 * np.random.default_rng(99).normal(size=4000), 0.01, 0.99)
    assert decide(replace(found, challenger=noise)).verdict == "keep"


def test_a_bad_slice_blocks_and_small_ones_do_not() -> None:
    generator = np.random.default_rng(3)
    port = generator.choice(["EWR", "JFK", "LGA"], 4000)
    port[:50] = "HPN"
    found = evidence(slices={"port": port, "carrier": generator.choice(list("abcdefgh"), 4000)})
    fine = decide(found)
    assert fine.verdict == "promote"
    assert check(fine, "small_slices").value == 1
    broken = np.where(port == "LGA", 0.5, found.challenger)
    report = decide(replace(found, challenger=broken, champion=np.where(port == "LGA", found.champion, 0.3)))
    assert check(report, "better_than_champion").passed
    assert report.verdict == "keep"
    assert report.reasons[0].startswith("port=LGA")
    interval = check(report, "slice:port=JFK").interval
    assert interval is not None
    assert interval.confidence == pytest.approx(1 - 0.05 / 11)


@pytest.mark.slow
def test_slices_alike_do_not_block_more_than_the_stated_rate() -> None:
    """Fifteen slices without any difference: one uncorrected interval each would block every third challenger."""
    generator = np.random.default_rng(0)
    blocked = 0
    for seed in range(40):
        found = evidence(rows=3000, better=0.5, worse=0.5, seed=seed)
        found = replace(found, slices={"group": generator.integers(0, 15, 3000).astype(str)})
        report = decide(found, slice_margin=0.0, slice_minimum_rows=50, metric="brier", resamples=500)
        blocked += any(each.passed is False for each in report.checks if each.name.startswith("slice:"))
    assert blocked <= 5


def test_calibration_that_is_surely_worse_is_told_and_does_not_block() -> None:
    found = evidence(rows=10_000, worse=0.3)
    loud = expit(2.5 * np.log(np.asarray(found.challenger) / (1 - np.asarray(found.challenger))))
    report = decide(replace(found, challenger=loud), metric="roc_auc")
    assert check(report, "better_than_champion").passed
    told = check(report, "calibration")
    assert (told.passed, told.blocking) == (False, False)
    assert report.verdict == "promote"


@pytest.mark.parametrize(
    ("more", "policy", "verdict", "says"),
    [
        ({"latency_ms": 4.0}, {"latency_ms": 5}, "promote", None),
        ({"latency_ms": 6.0}, {"latency_ms": 5}, "keep", "Latency is 6 ms of at most 5 ms"),
        ({}, {"latency_ms": 5}, "insufficient evidence", "was not measured"),
        ({"size_mb": 12.5}, {"size_mb": 10}, "keep", "Size is 12.5 MB"),
        ({"golden": ([0.1, 0.2], [0.1, 0.2 + 1e-9])}, {}, "promote", None),
        ({"golden": ([0.1, 0.2], [0.1, 0.3])}, {}, "keep", "differ by up to 0.1"),
        ({"golden": ([0.1, 0.2], [0.1, math.nan])}, {}, "keep", "golden"),
        ({"golden": ([0.1, 0.2], [0.1])}, {}, "keep", r"\(1,\) golden predictions for \(2,\)"),
        ({"overlap_rows": 1}, {}, "keep", "1 rows of the holdout were trained on"),
        ({"separations": {"refund": 0.9995, "age": 0.6}}, {}, "keep", "refund alone tells the truth"),
        ({"separations": {"refund": 0.99}}, {}, "promote", None),
    ],
)
def test_budgets_golden_rows_overlap_and_leaking_columns(more, policy, verdict, says) -> None:
    report = decide(evidence(**more), **policy)
    assert report.verdict == verdict
    if says:
        assert re.search(says, report.reasons[0])


def test_a_challenger_that_knows_nothing_newer_is_stale() -> None:
    now = datetime(2013, 5, 1, tzinfo=UTC)
    old = decide(evidence(challenger_newest=now - timedelta(days=9), champion_newest=now))
    assert old.verdict == "keep"
    assert "2013-04-22" in old.reasons[0]
    assert decide(evidence(challenger_newest=now, champion_newest=now)).verdict == "promote"


def test_shared_rows_and_separations() -> None:
    assert shared_rows(["a", "b", "c"], ["b", "x"], ["c"]) == 2
    assert shared_rows([], ["b"]) == shared_rows(["a"]) == 0
    generator = np.random.default_rng(0)
    truth = (generator.random(600) < 0.3).astype(float)
    frame = pd.DataFrame(
        {
            "noise": generator.normal(size=600),
            "copy": -truth,
            "code": pd.Series(np.where(truth == 1, "paid", "open"), dtype="str"),
            "id": pd.Series([f"r{at}" for at in range(600)], dtype="str"),
            "empty": np.full(600, np.nan),
        }
    )
    found = separations(frame, truth, "classification")
    assert [found["copy"], found["code"]] == pytest.approx([1.0, 1.0])
    assert found["noise"] < 0.6
    assert [found["id"], found["empty"]] == pytest.approx([0.5, 0.5])
    curved = separations(pd.DataFrame({"x": np.exp(truth + 1), "noise": frame["noise"]}), truth, "regression")
    assert curved["x"] == pytest.approx(1)
    assert curved["noise"] < 0.1


def test_few_rows_are_told_apart_by_chance_and_prove_no_leak() -> None:
    truth = np.array([1.0] + [0.0] * 99)
    frame = pd.DataFrame({"x": truth, "y": np.arange(100.0)})
    assert separations(frame, truth, "classification") == {"x": 0.5, "y": 0.5}
    assert separations(frame[:0], truth[:0], "regression") == {"x": 0.0, "y": 0.0}
    rare = evidence(rows=1000)
    rare = replace(rare, truth=np.arange(1000) == 500, challenger=np.where(np.arange(1000) == 500, 0.2, 0.001))
    few = check(decide(rare), "plausible_separation")
    assert (few.passed, few.blocking) == (None, False)


def test_a_near_perfect_champion_may_be_followed_by_a_perfect_challenger() -> None:
    found = evidence()
    truth = np.asarray(found.truth)
    near, perfect = np.abs(truth - 0.02), np.abs(truth - 0.002)
    near[:12] = 1 - near[:12]
    assert decide(replace(found, champion=near, challenger=perfect)).verdict == "promote"
    near[:200] = 1 - near[:200]
    assert decide(replace(found, champion=near, challenger=perfect)).verdict == "keep"


def breast_cancer() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weak columns only, so that a leak is a leap: train and holdout halves."""
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(569)
    features, target = data.data[order][:, [4, 8, 9, 14, 18]], data.target[order].astype(float)
    return features[:300], target[:300], features[300:], target[300:]


def fitted(features: np.ndarray, target: np.ndarray, scored: np.ndarray) -> np.ndarray:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, target)
    return model.predict_proba(scored)[:, 1]


def test_breast_cancer_models_leaking_shuffled_and_worse_are_refused_and_a_better_one_is_not() -> None:
    features, target, held, truth = breast_cancer()
    champion = fitted(features[:, :2], target, held[:, :2])
    found = Evidence(truth, champion, champion, np.full(269, target.mean()), 0)
    candidates = {
        "better": fitted(features, target, held),
        "worse": fitted(features[:, 2:3], target, held[:, 2:3]),
        "leaking": fitted(np.c_[features, target], target, np.c_[held, truth]),
        "shuffled": fitted(features, np.random.default_rng(1).permutation(target), held),
    }
    verdicts = {name: decide(replace(found, challenger=scores)) for name, scores in candidates.items()}
    assert {name: report.verdict for name, report in verdicts.items()} == {
        "better": "promote",
        "worse": "keep",
        "leaking": "keep",
        "shuffled": "keep",
    }
    assert any("Too good to be true" in reason for reason in verdicts["leaking"].reasons)
    leaking_first = decide(replace(found, challenger=candidates["leaking"], champion=None))
    assert leaking_first.verdict == "keep"
    shuffled_first = decide(replace(found, challenger=candidates["shuffled"], champion=None))
    assert shuffled_first.verdict != "promote"
    useless = np.clip(champion * 0 + 0.05 + 0.01 * champion, 0, 1)
    lesser = decide(replace(found, challenger=candidates["shuffled"], champion=useless))
    assert (lesser.verdict, lesser.alert) == ("promote", True), "the better of two wins where the champion fails too"
    assert "the champion is no better than the baseline" in lesser.reasons[-1]


def test_diabetes_models_leaking_shuffled_and_worse_are_refused_and_a_better_one_is_not() -> None:
    data = load_diabetes()
    features, target, held, truth = data.data[:200], data.target[:200], data.data[200:], data.target[200:]

    def fit(columns: Any, learned: np.ndarray = target) -> np.ndarray:
        return Ridge(0.1).fit(features[:, columns], learned).predict(held[:, columns])

    leaking = Ridge(1e-3).fit(np.c_[features, target], target).predict(np.c_[held, truth])
    found = Evidence(truth, leaking, fit([0, 1, 3]), np.full(len(truth), target.mean()), 0)

    def verdict(scores: np.ndarray, champion: Any = found.champion) -> str:
        return decide(replace(found, challenger=scores, champion=champion), "mse", "regression").verdict

    assert verdict(fit(range(10))) == "promote"
    assert verdict(fit(range(10)), None) == "promote"
    assert verdict(fit([0, 1]), fit(range(10))) == "keep"
    assert verdict(leaking) == verdict(leaking, None) == "keep"
    for seed in range(10):
        shuffled = fit(range(10), np.random.default_rng(seed).permutation(target))
        assert verdict(shuffled) != "promote"


@pytest.mark.skipif(not ELEC2.exists(), reason="needs ../shared/data/elec2")
def test_electricity_a_fresh_challenger_wins_and_worse_leaking_shuffled_and_stale_ones_do_not() -> None:
    frame = pd.read_parquet(ELEC2)
    columns = [name for name in frame.columns if name not in ("t", "w", "y")]
    holdout = frame[(frame.w >= 14) & (frame.w < 17)]
    truth, days = holdout.y.to_numpy(float), (holdout.t // 48).to_numpy()

    def fit(rows: pd.DataFrame, target: np.ndarray | None = None, used: list[str] = columns) -> np.ndarray:
        model = HistGradientBoostingClassifier(max_iter=30, learning_rate=0.2, random_state=0)
        model.fit(rows[used], rows.y if target is None else target)
        return model.predict_proba(holdout[used])[:, 1]

    history = frame[frame.w < 14]
    champion, challenger = fit(frame[frame.w < 5]), fit(history)
    found = Evidence(truth, challenger, champion, np.full(len(truth), history.y.mean()), 0, blocks=days)
    assert decide(found).verdict == "promote"
    assert decide(replace(found, challenger=champion, champion=challenger)).verdict == "keep"
    shuffled = fit(history, np.random.default_rng(0).permutation(history.y))
    assert decide(replace(found, challenger=shuffled)).verdict != "promote"
    leaking = history.assign(day=history.y), holdout.assign(day=holdout.y)
    model = HistGradientBoostingClassifier(max_iter=30).fit(leaking[0][columns], history.y)
    scores = model.predict_proba(leaking[1][columns])[:, 1]
    refused = decide(replace(found, challenger=scores))
    assert refused.verdict == "keep"
    assert "Too good to be true" in refused.reasons[0]
    trained_on_it = fit(frame[frame.w < 17])
    overlap = shared_rows(holdout.index, frame.index[frame.w < 17])
    assert overlap == len(holdout)
    assert decide(replace(found, challenger=trained_on_it, overlap_rows=overlap)).verdict == "keep"
    stale = fit(frame[frame.w < 3])
    assert decide(replace(found, challenger=stale, champion=challenger)).verdict == "keep"


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gate", ROOT / "benchmarks" / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("regression", {}),
        ("regression", {"day_effect": 0.1, "memory": 0.5}),
        ("classification", {"day_effect": 0.1, "memory": 0.5}),
    ],
)
def test_promotion_rates_under_known_truth(task: str, shape: dict[str, float]) -> None:
    """Worse by the margin: at most 5 %; better by twice the margin on 5,000 rows: at least 90 %."""
    simulation = benchmark()
    world = simulation.World(task, **shape)
    policy = GatePolicy(resamples=1000, doubt="keep")
    repeats = 150 if task == "regression" else 40
    worse = simulation.promotion_rate(world, policy.margin, policy, repeats, seed=20_000)
    better = simulation.promotion_rate(world, -2 * policy.margin, policy, repeats // 3, seed=10_000)
    assert world.rows == 5000
    assert worse <= 0.05
    assert better >= 0.9


unit = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 25).flatmap(
        lambda rows: st.tuples(
            arrays(float, rows, elements=st.sampled_from([0.0, 1.0])),
            arrays(float, rows, elements=unit),
            st.none() | arrays(float, rows, elements=unit),
            st.none() | arrays(float, rows, elements=st.sampled_from([0.0, 1.0, 3.5])),
            st.none() | arrays(int, rows, elements=st.integers(0, 3)),
        )
    ),
    st.sampled_from([("classification", "log_loss"), ("classification", "roc_auc"), ("regression", "mse")]),
    st.floats(0, 1),
)
def test_whatever_comes_in_a_report_comes_out(case, named, base) -> None:
    truth, challenger, champion, weights, blocks = case
    found = Evidence(truth, challenger, champion, np.full(len(truth), base), 0, blocks, weights, {"truth": truth})
    policy = GatePolicy(minimum_rows=1, slice_minimum_rows=1, resamples=100, limits={"f1": Limit(min=0.1)})
    if named[0] == "regression":
        policy = policy.model_copy(update={"limits": {"rmse": Limit(max=0.9)}})
    report = judge(found, policy, task=named[0], metric=named[1], seed=0)
    assert report.reasons
    assert report.reasons[0]
    blocking = [each.passed for each in report.checks if each.blocking]
    assert (report.verdict == "promote") == all(blocking)
    assert (report.verdict == "keep") == (False in blocking)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["verdict"] == report.verdict
    assert all(0 <= len(value) <= 250 for value in report.tags().values())
    assert report.verdict in render_markdown(report)
    if report.verdict == "promote":
        assert np.isfinite(challenger).all()
        assert np.ptp(challenger) > 0
        if champion is not None and np.isfinite(champion).all():
            compared = check(report, "better_than_champion")
            assert compared.value is not None
            assert compared.value > 0
            swapped = judge(
                replace(found, challenger=champion, champion=challenger), policy, task=named[0], metric=named[1], seed=0
            )
            assert swapped.verdict != "promote"
    brief = judge(found, policy, task=named[0], metric=named[1], seed=0, every_metric=False)
    whole, some = report.to_dict(), brief.to_dict()
    told, known = whole.pop("metrics"), some.pop("metrics")
    assert some == whole, "what is not told must not decide"
    assert all(set(table) == set(metric_names(named[0])) for table in told.values())
    assert known == {model: {name: told[model][name] for name in table} for model, table in known.items()}


def test_report_reads_well() -> None:
    report = decide(evidence(slices={"a|b": np.repeat(["x`y", "z"], 2000)}), limits={"roc_auc": Limit(min=0.6)})
    text = render_markdown(report)
    assert text.startswith("# Gate: promote\n")
    assert "| **log_loss** |" in text
    assert "`limit:roc_auc` | passed | 0.7" in text
    assert "≥ 0.6" in text
    assert "slice:a\\|b=x'y" in text
    tags = report.tags()
    assert tags["gate.verdict"] == "promote"
    assert tags["gate.improvement"].startswith("+")
    assert " to " in tags["gate.interval"]
