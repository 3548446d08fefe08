"""The gate, probation and a map's court over more than two classes, and the figures of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.definition import GatePolicy
from perennial.errors import DataError
from perennial.model.scores import constant_scores, score_column
from tasks.gate.class_figures import class_figures
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence, behind_fair_maps
from tasks.gate.map_court import MapCourt, cross_fitted, judge_mapped
from tasks.gate.probation import Bout, judge_newcomer

ROWS, NAMES = 900, np.array(["a", "b", "c", "d"], dtype=object)


def world(sharpness: float, seed: int = 0, give_up: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and scores that know it so well; of one class nothing."""
    generator = np.random.default_rng(3)
    truth = generator.choice(4, ROWS, p=[0.4, 0.3, 0.2, 0.1]).astype(np.float64)
    raw = np.random.default_rng(seed + 7).normal(size=(ROWS, 4))
    raw[np.arange(ROWS), truth.astype(int)] += np.where(truth == give_up, -1.0, sharpness)
    made = np.exp(raw)
    return truth, made / made.sum(axis=1, keepdims=True)


def evidence(challenger: np.ndarray, champion: np.ndarray | None, truth: np.ndarray, **more: Any) -> Evidence:
    baseline = constant_scores(np.bincount(truth.astype(int), minlength=4) / ROWS, ROWS)
    return Evidence(truth, challenger, champion, baseline, 0, slices={"kind": NAMES[truth.astype(int)]}, **more)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "roc_auc", "f1"])
def test_the_better_of_two_is_let_in_and_the_worse_kept_out(metric: str) -> None:
    truth, good = world(1.5)
    _, poor = world(0.8, seed=1)
    policy = GatePolicy(slice_minimum_rows=50)
    found = judge(evidence(good, poor, truth), policy, task="classification", metric=metric)
    assert found.verdict == "promote", found.reasons
    assert {f"slice:kind={name}" for name in "abcd"} <= {check.name for check in found.checks}
    assert judge(evidence(poor, good, truth), policy, task="classification", metric=metric).verdict == "keep"
    first = judge(evidence(good, None, truth), policy, task="classification", metric=metric)
    assert first.verdict == "promote"


def test_who_gives_a_class_up_is_kept_out_though_better_in_all() -> None:
    truth, champion = world(1.2)
    _, challenger = world(4.0, seed=1, give_up=3)
    found = judge(
        evidence(challenger, champion, truth), GatePolicy(slice_minimum_rows=50), task="classification", metric="brier"
    )
    by_name = {check.name: check for check in found.checks}
    assert by_name["better_than_champion"].passed
    assert by_name["slice:kind=d"].passed is False
    assert found.verdict == "keep"


def test_models_are_judged_behind_maps_made_alike() -> None:
    truth, sharp = world(2.0)
    flat = sharp**0.3 / (sharp**0.3).sum(axis=1, keepdims=True)  # the same model, badly calibrated
    own = evidence(sharp, flat, truth)
    fair = behind_fair_maps(own, "classification", 1.0)
    gaps = [
        judge(each, GatePolicy(), task="classification", metric="log_loss").comparison.value  # type: ignore[union-attr]
        for each in (own, fair)
    ]
    assert gaps[0] > 0.2  # type: ignore[operator]
    assert abs(gaps[1]) < 0.03  # type: ignore[arg-type]
    calibration = {c.name: c for c in judge(fair, GatePolicy(), task="classification", metric="log_loss").checks}
    assert calibration["calibration"].value > 0.05  # type: ignore[operator]


def test_a_leak_one_class_alone_and_broken_scores_are_told() -> None:
    truth, good = world(2.0)
    perfect = 0.97 * np.eye(4)[truth.astype(int)] + 0.0075
    found = judge(evidence(perfect, good, truth), GatePolicy(), task="classification", metric="log_loss")
    assert found.verdict == "keep"
    assert "tell the truth with 1" in " ".join(found.reasons)
    alone = judge(evidence(good, None, np.ones(ROWS)), GatePolicy(), task="classification", metric="log_loss")
    assert {check.name: check for check in alone.checks}["classes"].passed is None
    broken = good.copy()
    broken[0] = [0.5, 0.5, 0.5, 0.5]
    told = judge(evidence(broken, good, truth), GatePolicy(), task="classification", metric="log_loss")
    assert "1 of 900 of the challenger's scores" in told.reasons[0]
    with pytest.raises(DataError, match="champion has scores of shape"):
        judge(evidence(good, good[:, 0], truth), GatePolicy(), task="classification", metric="log_loss")


def test_a_newcomer_that_is_surely_worse_is_rolled_back() -> None:
    truth, good = world(2.5)
    _, poor = world(0.5, seed=1)
    rows = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC"), "truth": truth})
    bout = Bout(GatePolicy(), "classification", "log_loss", 0, 0.7)
    for newcomer, former, verdict in ((poor, good, "roll back"), (good, poor, "stay")):
        both = rows.assign(score=score_column(newcomer), shadow=score_column(former))
        assert judge_newcomer(both, bout, version=2, former=1).verdict == verdict


def test_a_map_of_many_classes_stands_before_the_gate() -> None:
    truth, sharp = world(2.0)
    raw = sharp**3 / (sharp**3).sum(axis=1, keepdims=True)
    court = MapCourt(GatePolicy(), "classification", "log_loss", None, 0.8, 1.0, 50)
    rows = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC"), "truth": truth})
    rows = rows.assign(score=score_column(raw), raw_score=score_column(raw))
    assert judge_mapped(rows.assign(challenger=score_column(cross_fitted(rows, court))), court).verdict == "promote"
    assert judge_mapped(rows.assign(challenger=rows["score"]), court).verdict == "keep"


def test_figures_name_every_class() -> None:
    truth, score = world(2.0)
    names = ["setosa", "versicolor", "virginica", "a name that is much longer than a legend has room for"]
    drawn = class_figures(truth, {"challenger": score, "champion": score[:, [1, 0, 2, 3]]}, names)
    assert set(drawn) == {"roc", "precision_recall", "calibration", "confusion", "classes"}
    figures = {name: draw() for name, draw in drawn.items()}
    legend = [text.get_text() for text in figures["roc"].axes[0].get_legend().get_texts()]
    assert [line.split(":")[0] for line in legend[1:4]] == names[:3]
    cells = [text.get_text() for text in figures["confusion"].axes[0].texts]
    assert sum(int(cell.replace(",", "")) for cell in cells) == ROWS
    for figure in figures.values():
        figure.canvas.draw()
