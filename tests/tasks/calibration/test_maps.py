"""A champion's maps: which counts as fair in front of the gate, and a world in which the other one decides wrongly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import backtest_world
import numpy as np
import pandas as pd
import pytest
from backtest_world import day

from perennial.model.features import feature_frame
from perennial.state.registry import Version
from perennial.workspace import Workspace
from tasks.calibration.fit import Recalibrator
from tasks.calibration.maps import ReignedMap, judged_score, reigned_maps
from tasks.learning.fitting import predict_score
from tasks.rows.labels import label_frame
from tasks.steps import recalibrate as recalibrating
from tasks.steps import retrain as retraining
from tasks.steps.describe import describe, with_twin
from tasks.steps.ingest import ingest_batch
from tasks.steps.register import register_training
from tasks.steps.score import load_version, score_unscored

START = datetime(2024, 1, 1, tzinfo=UTC)
RAW = np.array([1.0, 2.0])


def reigned(days: float, shift: float) -> ReignedMap:
    return ReignedMap(START + timedelta(days=days), Recalibrator("regression", "affine", (1.0, shift)))


def test_the_newest_map_that_has_not_seen_the_holdout_judges() -> None:
    maps = (reigned(3, 30), reigned(1, 10), reigned(2, 20))
    for days, shift in ((0.5, 0), (1, 0), (1.5, 10), (2.5, 20), (3, 20), (9, 30)):
        judged = judged_score(RAW, maps, START + timedelta(days=days))
        assert judged.tolist() == (RAW + shift).tolist(), days
    assert judged_score(RAW, (), START).tolist() == RAW.tolist()


def versions(workspace: Workspace, *tags: dict[str, str]) -> list[Version]:
    """Versions 1, 2, …, each champion a day after the one before it; no model that anybody would load."""
    registry, made = workspace.registry, []
    for number, each in enumerate(tags, 1):
        run = registry.run_for("toy", str(number), name="toy", tags={})
        registry.client.log_text(run, str(number), "model/weights.txt")
        version = registry.register("toy", training_key=str(number), run_id=run, source=f"runs:/{run}/model", tags=each)
        at = START + timedelta(days=number)
        registry.promote(version, action="promote", at=at, recorded_at=at, by="test", reason="")
        made.append(version)
    return made


def mapped(base: int, shift: float, until: float) -> dict[str, str]:
    """The tags of a recalibrated version."""
    given = Recalibrator("regression", "affine", (1.0, shift)).to_dict()
    tags = {"base_version": str(base), "recalibration": str(given).replace("'", '"')}
    return tags | {"mapped_until": (START + timedelta(days=until)).isoformat()}


def test_only_maps_that_reigned_over_this_model_and_stood_count(workspace: Workspace) -> None:
    found = versions(workspace, {}, mapped(1, 2, 1.5), mapped(1, 3, 2.5), {}, mapped(4, 5, 4.5))
    registry = workspace.registry

    def shifts(version: Version, days: float = 99) -> list[float]:
        maps = reigned_maps(registry, version, as_of=START + timedelta(days=days))
        return [item.map.parameters[1] for item in maps]

    assert shifts(found[0]) == []
    assert shifts(found[1]) == [2]
    assert shifts(found[2]) == [2, 3]
    assert shifts(found[2], 2.5) == [2, 3]  # the champion's own map counts, whatever the history says yet
    assert shifts(found[3]) == []
    assert shifts(found[4]) == [5]
    at = START + timedelta(days=9)
    registry.rollback("toy", to=1, at=at, recorded_at=at, by="test", reason="")
    registry.promote(found[2], action="promote", at=at, recorded_at=at, by="test", reason="")
    registry.rollback("toy", to=2, at=at, recorded_at=at, by="test", reason="")
    assert shifts(found[1]) == [2]
    assert shifts(found[0]) == []


def between(first: int, last: int) -> pd.DataFrame:
    frame = backtest_world.rows(95, shift=53, seed=1)
    return frame[(frame["when"] >= day(first)) & (frame["when"] < day(last))].reset_index(drop=True)


@pytest.fixture
def mapped_shop(workspace: Workspace) -> Workspace:
    """A shop whose world changed on day 53; champion is a model of day 49 behind a map of the rows until day 62."""
    training = {"window": "21d"}
    definition = backtest_world.define(workspace, training=backtest_world.RAW["training"] | training)
    past, new = between(0, 49), between(49, 64)
    backtest_world.ingest_past(workspace, definition, past, as_of=day(49))
    prepared = retraining.prepare(workspace, definition, as_of=day(49))
    tuning = retraining.search(workspace, prepared)
    challenger = retraining.train(prepared, tuning)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    record = describe(prepared, tuning, challenger, judged, seconds={}, decision_id=None)
    record = with_twin(record, retraining.refit(prepared, tuning))
    version = register_training(workspace.registry, replace(record, figures={}, tables={}, curves={}))
    assert retraining.promote(workspace, prepared, version, judged.report, by="test", decision_id=None)
    suite = backtest_world.suite(workspace)
    ingest_batch(workspace.store, definition, new.drop(columns="sales"), suite, source="new", as_of=day(64))
    label_frame(workspace.store, definition, new[new["when"] < day(62)], as_of=day(63), author="test")
    pipeline = load_version(workspace.registry, version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(64))
    found = recalibrating.fit_map(workspace, definition, as_of=day(64))
    report = recalibrating.judge_map(found)
    described = recalibrating.describe_map(workspace, found, report, decision_id=None)
    version = register_training(workspace.registry, replace(described, figures={}))
    assert recalibrating.promote_map(workspace, found, version, report, by="test", decision_id=None)
    return workspace


def test_a_map_that_has_seen_the_holdout_does_not_keep_a_better_challenger_out(mapped_shop: Workspace) -> None:
    """By the live champion's answers it would have been; on the rows that came afterwards its twin is better."""
    workspace, definition = mapped_shop, mapped_shop.definition("shop")
    as_of = day(64) + timedelta(hours=1)
    prepared = retraining.prepare(workspace, definition, as_of=as_of)
    champion = prepared.champion
    assert champion is not None
    assert champion.tag("base_version") == "1"
    assert datetime.fromisoformat(champion.tag("mapped_until")) > prepared.split.holdout_from
    tuning = retraining.search(workspace, prepared)
    challenger = retraining.train(prepared, tuning)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    assert judged.report.verdict == "promote"
    # Where no maps are made, the champion's from elsewhere has seen the holdout, and is left out.
    still = definition.model_copy(
        update={"monitoring": definition.monitoring.model_copy(update={"recalibrate": False})}
    )
    prepared = replace(prepared, definition=still)
    judged = retraining.judge_challenger(workspace, prepared, challenger)
    assert judged.report.verdict == "promote"
    told = next(check for check in judged.report.checks if check.name == "champion_map")
    assert "has seen" in told.detail

    live, task = load_version(workspace.registry, champion, definition), definition.task
    holdout = feature_frame(prepared.rows(prepared.split.holdout).reset_index(drop=True), definition.features)
    measured = retraining.measure_challenger(prepared, challenger)
    seen = predict_score(live, holdout, task)
    unfair = retraining.judge_measured(prepared, measured, champion_score=seen, champion_until=None)
    assert unfair.report.verdict == "keep"

    later = between(64, 95)
    features, truth = feature_frame(later, definition.features), later["sales"].to_numpy()
    twin = retraining.refit(prepared, tuning)
    loss = [float(np.mean((predict_score(model, features, task) - truth) ** 2)) for model in (twin.pipeline, live)]
    assert loss[0] < 0.9 * loss[1]
