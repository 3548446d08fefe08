"""Acting on predictions makes outcomes: figures over all rows are wrong then, those of rows left alone right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from acted_on import FEATURES, PREVENTED, Served, define, served_world

from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.backtest.run import _left_out
from tasks.check.decision import Decision, check
from tasks.check.plain import summary
from tasks.check.text import render_markdown, render_text
from tasks.gate.report import render_markdown as gate_text
from tasks.measures.quality import row_losses
from tasks.rows.experiment import read_experiment
from tasks.rows.reviewed import ROW_WEIGHT
from tasks.steps import retrain as retraining
from tasks.steps.monitor import count_labelled, gather_inputs, run_check
from tasks.steps.retrain import Prepared
from tasks.steps.score import load_version, log_predictions, require_champion, score_file
from tasks.steps.trial.shadow import rows_of_both


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Served:
    return served_world(make_workspace(tmp_path_factory.mktemp("acted")))


@pytest.fixture(scope="module")
def decision(served: Served) -> Decision:
    return run_check(served.workspace, served.definition, as_of=served.now)


def test_the_naive_figure_is_wrong_and_that_of_rows_left_alone_is_right(served: Served, decision: Decision) -> None:
    """The truth of the simulation: what would have become of all machines, had nobody acted on one."""
    rows, known = served.rows, decision.evidence["intervention"]
    would = row_losses(rows["would"].to_numpy(float), rows["score"].to_numpy(), "log_loss").mean()
    naive, weighted = known["naive"], known["weighted"]
    loss, low, high = weighted["loss"]
    assert low < would < high
    assert abs(loss - would) < 0.03
    assert naive["loss"][1] > would + 0.1
    assert weighted["seen"][1] < rows["would"].mean() < weighted["seen"][2]
    assert naive["seen"][2] < rows["would"].mean() - 0.15
    assert weighted["gap"][1] < 0 < weighted["gap"][2], "the model is calibrated where nobody acts"
    assert naive["gap"][2] < -0.1, "and looks as if it said too much where they do"
    assert naive["calibration_error"][1] > 2 * weighted["calibration_error"][2]
    assert known["differs"] == ["loss", "seen"]
    inside = rows[rows["at"] >= served.now - served.definition.monitoring.window]
    assert (known["acted_on"], known["control"]) == ((~inside["control"]).sum(), inside["control"].sum())
    assert known["control"] == pytest.approx(weighted["effective_rows"])


def test_what_was_left_alone_decides_and_the_record_says_so(served: Served, decision: Decision) -> None:
    loss = next(signal for signal in decision.signals if signal.name == "loss")
    known = decision.evidence["intervention"]
    assert decision.verdict == "hold"
    assert not loss.fired
    assert loss.value == pytest.approx(known["weighted"]["loss"][0])
    truth = next(signal for signal in decision.signals if signal.name == "truth")
    assert f"{known['weighted']['seen'][0]:.4g}" in truth.detail
    text = " ".join(render_text(decision).split())
    assert "Acting on predictions changes what happens: the truth's mean is" in text
    assert "what was left alone counts" in text
    assert f"worth {known['control']} by their weights; they alone judge quality" in text
    assert "all rows, the naive figures, which judge nothing: log_loss" in text
    assert "Acting on predictions changes" in render_markdown(decision)
    stored = Decision.from_dict(decision.to_dict())
    assert summary(stored) == summary(decision)


def test_without_the_log_of_groups_the_naive_figure_would_have_asked_for_a_training(served: Served) -> None:
    champion = require_champion(served.workspace.registry, "machines")
    inputs = gather_inputs(served.workspace, served.definition, champion, as_of=served.now)
    assert inputs.experiment is not None
    naive = check(replace(inputs, experiment=None), served.definition.monitoring, as_of=served.now)
    assert next(signal for signal in naive.signals if signal.name == "loss").fired
    assert naive.verdict in ("retrain", "recalibrate")
    assert "intervention" not in naive.evidence


def test_a_scored_file_marks_the_group_as_the_api_does_and_the_log_knows_it(
    served: Served, workspace: Workspace, tmp_path: Path
) -> None:
    registry, definition = served.workspace.registry, served.definition
    champion = require_champion(registry, "machines")
    pipeline = load_version(registry, champion, definition)
    sample, target = served.rows.head(300), tmp_path / "scored.csv"
    sample[["machine", "at", *FEATURES]].to_parquet(tmp_path / "rows.parquet")

    def record(rows: pd.DataFrame, score: np.ndarray, raw: np.ndarray) -> None:
        log_predictions(
            workspace.store, "machines", rows, score, raw=raw, version=1, as_of=served.now, origin="rows.parquet",
            serving=definition.serving,
        )  # fmt: skip

    list(score_file(pipeline, definition, tmp_path / "rows.parquet", target, version=1, record=record))
    written = pd.read_csv(target)
    assert list(written) == ["machine", "score", "version", "control"]
    assert written["control"].tolist() == sample["control"].tolist()
    assert 0 < written["control"].sum() < 300
    found = read_experiment(workspace.store, definition, as_of=served.now + timedelta(seconds=1))
    assert found is not None
    assert set(found.chances) == set(sample.loc[sample["control"], "machine"])
    assert set(found.chances.values()) == {definition.serving.control_group}
    assert found.treated == set(sample.loc[~sample["control"], "machine"])


def test_too_few_rows_left_alone_judge_nothing_and_the_share_that_would_do_is_told(served: Served) -> None:
    champion = require_champion(served.workspace.registry, "machines")
    inputs = gather_inputs(served.workspace, served.definition, champion, as_of=served.now)
    left = len(served.rows) * 0.3
    policy = served.definition.monitoring.model_copy(update={"minimum_rows": int(2 * left)})
    found = check(inputs, policy, as_of=served.now)
    known = found.evidence["intervention"]
    assert not known["judges"]
    assert not found.evidence["judged"]
    assert found.verdict != "recalibrate"
    assert 0.55 < known["share_needed"] < 0.65
    text = " ".join(render_text(found).split())
    assert f"serving.control_group: {known['share_needed']:.0%} would do at this traffic" in text
    assert "too little was left alone to judge by" in text
    loss = next(signal for signal in found.signals if signal.name == "loss")
    assert "mature rows on which nobody acted have labels" in loss.detail


def test_weights_hold_where_some_rows_are_left_alone_less_often(served: Served) -> None:
    """The control group by itself has too few of the hot machines then, which fail; by their weights, they are all."""
    champion = require_champion(served.workspace.registry, "machines")
    inputs = gather_inputs(served.workspace, served.definition, champion, as_of=served.now)
    experiment, rows = inputs.experiment, served.rows.sort_values("at")
    assert experiment is not None
    hot = rows["heat"] > 0.5
    keeps = dict(zip(rows["machine"], ~hot | (np.random.default_rng(0).random(len(rows)) < 1 / 6), strict=True))
    is_hot = dict(zip(rows["machine"], hot, strict=True))
    chances = {name: 0.05 if is_hot[name] else 0.3 for name in experiment.chances if keeps[name]}
    gone = frozenset(set(experiment.chances) - set(chances))
    changed = replace(experiment, treated=experiment.treated | gone, chances=chances)
    policy = served.definition.monitoring
    found = check(replace(inputs, experiment=changed), policy, as_of=served.now)
    known = found.evidence["intervention"]
    would = rows["would"].mean()
    assert known["weighted"]["seen"][1] < would < known["weighted"]["seen"][2]
    assert known["control_group"]["seen"][0] < would - 0.05
    assert abs(known["weighted"]["seen"][0] - would) < would - known["control_group"]["seen"][0]
    assert known["weighted"]["effective_rows"] < 0.95 * known["weighted"]["rows"]
    assert "the control group by itself" in render_text(found)


def test_the_simulation_prevents_what_it_says(served: Served) -> None:
    rows = served.rows
    acted = ~rows["control"] & (rows["score"] > 0.3)
    assert rows.loc[~acted, "failed"].equals(rows.loc[~acted, "would"])
    assert rows.loc[acted, "failed"].sum() == pytest.approx(rows.loc[acted, "would"].sum() * (1 - PREVENTED), rel=0.6)


def _prepared(served: Served, intervention: str, **training: Any) -> tuple[ModelDefinition, Prepared]:
    changes = {"intervention": intervention, "window": "14d", **training}
    definition = define(
        served.workspace, training=changes, gate={"minimum_rows": 60, "holdout_window": "7d", "doubt": "keep"}
    )
    return definition, retraining.prepare(served.workspace, definition, as_of=served.now)


def test_a_challenger_that_would_undo_itself_wins_by_the_naive_figure_alone(served: Served) -> None:
    """It has learned that hot machines do not fail, since they were serviced: nobody would service them any more."""
    _, prepared = _prepared(served, "ignore")
    treated = set(served.rows.loc[~served.rows["control"], "machine"])
    ids, split = prepared.frame["_id"], prepared.split
    judging, learning = set(ids.iloc[split.holdout]), set(ids.iloc[split.aside])
    assert not judging & treated
    assert learning <= treated
    assert set(prepared.frame["_id"].iloc[prepared.split.learning]) & treated
    challenger = retraining.train(prepared, retraining.search(served.workspace, prepared))
    judged = retraining.judge_challenger(served.workspace, prepared, challenger)
    checks = {check.name: check for check in judged.report.checks}
    alone, naive = checks["better_than_champion"].interval, checks["naive_comparison"].interval
    assert alone is not None
    assert naive is not None
    assert judged.report.verdict in ("keep", "insufficient evidence")
    assert alone.estimate < -0.05
    assert naive.low > max(0.1, alone.high)
    assert not checks["naive_comparison"].blocking
    assert judged.report.rows == len(judging)
    text = gate_text(judged.report)
    assert "rows could be acted on, and judge nothing" in text
    assert "surely another" in text
    outcome = retraining.record_outcome(
        served.workspace, prepared, judged, by="test", decision_id=None, version=1
    )  # fmt: skip
    assert (outcome["left_out_acted_on"], outcome["not_judged_acted_on"]) == (0, len(prepared.acted_on))


def test_training_may_leave_out_what_was_acted_on(served: Served) -> None:
    definition, prepared = _prepared(served, "control")
    control = set(served.rows.loc[served.rows["control"], "machine"])
    assert set(prepared.frame["_id"]) <= control
    assert prepared.acted_on_rows > 900
    assert not len(prepared.acted_on)
    assert ROW_WEIGHT not in prepared.frame
    _, plain = _prepared(served, "ignore")
    assert prepared.key != plain.key
    champion = require_champion(served.workspace.registry, "machines")
    counted = count_labelled(served.workspace.store, definition, champion, as_of=served.now)
    everything = count_labelled(served.workspace.store, plain.definition, champion, as_of=served.now)
    assert everything - counted == (~served.rows["control"]).sum()


def test_training_may_let_the_control_group_stand_for_all(served: Served) -> None:
    """Of history and control group together, each row of the latter counts as the many that it stands for."""
    _, prepared = _prepared(served, "weighted", window="40d")
    control = prepared.frame["_id"].isin(served.rows["machine"]).to_numpy()
    weights = prepared.frame[ROW_WEIGHT].to_numpy()
    assert 0 < control.sum() < len(control)
    np.testing.assert_allclose(weights[control].mean() / weights[~control].mean(), 1 / 0.3)
    assert weights.mean() == pytest.approx(1)
    judging = retraining._judging_weights(prepared, prepared.rows(prepared.split.holdout))
    assert judging is None, "the newest week has the control group alone: all stand for as many"
    _, narrow = _prepared(served, "weighted")
    assert ROW_WEIGHT not in narrow.frame


def test_where_the_log_is_a_sample_rows_without_a_group_do_not_judge(served: Served) -> None:
    definition = define(served.workspace, serving={"control_group": 0.3, "log_share": 0.9})
    found = read_experiment(served.workspace.store, definition, as_of=served.now)
    assert found is not None
    rows = served.rows
    unlogged = replace(found, treated=frozenset(), chances={})
    assert (unlogged.weights(rows["machine"], rows["at"]) == 0).all()
    assert (unlogged.weights(rows["machine"], rows["at"] - pd.Timedelta(days=30)) == 1).all()
    assert (replace(unlogged, whole_log=True).weights(rows["machine"], rows["at"]) == 1).all()


def test_later_looks_are_at_rows_left_alone_too(served: Served) -> None:
    definition = define(served.workspace)
    champion = require_champion(served.workspace.registry, "machines")
    found = rows_of_both(served.workspace, definition, champion, champion, as_of=served.now)
    assert len(found) == served.rows["control"].sum()
    np.testing.assert_allclose(found["weight"], 1 / 0.3)
    without = define(served.workspace, serving={})
    whole = rows_of_both(served.workspace, without, champion, champion, as_of=served.now)
    assert len(whole) == len(served.rows)
    assert "weight" not in whole


def test_a_backtest_says_that_its_figures_are_naive(served: Served) -> None:
    (note,) = _left_out(define(served.workspace))
    assert "naive figures" in note
    assert _left_out(define(served.workspace, serving={})) == []
