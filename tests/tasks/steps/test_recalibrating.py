"""A recalibration as a whole: fitted on matured labels, gated, registered with the champion's lineage, promoted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_model
from copies import copy_workspace

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.calibrated import Recalibrated, apply_map
from perennial.workspace import Workspace
from tasks.calibration.fit import Recalibrator
from tasks.calibration.maps import base_versions, map_in_force, same_model
from tasks.rows.labels import add_labels
from tasks.steps import recalibrate as recalibrating
from tasks.steps.monitor import run_check
from tasks.steps.register import register_training
from tasks.steps.score import load_version, log_predictions, require_champion, score_rows, score_unscored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    """A champion whose last days' answers were far too sure, with their truth known."""
    workspace = make_workspace(tmp_path_factory.mktemp("drifted"))
    definition = small_model.define(workspace)
    small_model.add(workspace, definition, small_model.rows(0, 15), as_of=small_model.day(15), history=True)
    small_model.retrain(workspace, definition, as_of=small_model.day(15))
    fresh = small_model.rows(15, 24)
    small_model.add(workspace, definition, fresh.drop(columns="even"), as_of=small_model.day(24))
    champion = require_champion(workspace.registry, "digits")
    frame = pd.DataFrame({"_id": fresh["row"], "_time": fresh["when"].dt.tz_convert("UTC")})
    pipeline = load_version(workspace.registry, champion, definition)
    score, _ = score_rows(pipeline, definition, fresh)
    sure = apply_map(score, "platt", [4.0, 1.5], "classification")
    made = {"version": champion.number, "as_of": small_model.day(24), "origin": "test"}
    log_predictions(workspace.store, "digits", frame, sure, raw=sure, **made)
    truth = fresh["even"].to_numpy(dtype=np.float64)
    add_labels(workspace.store, definition, fresh["row"], truth, labelled_at=small_model.day(25), author="test")
    return workspace


@pytest.fixture
def drifted(once: Workspace, tmp_path: Path) -> tuple[Workspace, ModelDefinition, datetime]:
    workspace = copy_workspace(once, tmp_path)
    return workspace, workspace.definition("digits"), small_model.day(25)


def recalibrate(workspace: Workspace, definition: ModelDefinition, as_of: datetime) -> tuple[str, int]:
    found = recalibrating.fit_map(workspace, definition, as_of=as_of)
    report = recalibrating.judge_map(found)
    record = recalibrating.describe_map(workspace, found, report, decision_id=None)
    version = register_training(workspace.registry, record)
    recalibrating.promote_map(workspace, found, version, report, by="test", decision_id=None)
    recalibrating.record_recalibration(
        workspace, found, report, by="test", decision_id=None, version=version.number
    )  # fmt: skip

    return report.verdict, version.number


def test_a_new_map_for_too_sure_answers(drifted: tuple[Workspace, ModelDefinition, datetime]) -> None:
    workspace, definition, as_of = drifted
    assert "recalibration" in {signal.name for signal in run_check(workspace, definition, as_of=as_of).signals}
    assert recalibrate(workspace, definition, as_of) == ("promote", 2)
    champion = require_champion(workspace.registry, "digits")
    assert champion.number == 2
    first = workspace.registry.version("digits", 1)
    for name in ("trained_rows", "trained_until", "parameters"):
        assert champion.tag(name) == first.tag(name)
    assert champion.tag("base_version") == "1"
    assert same_model(workspace.registry, champion) == ("1",)
    assert base_versions(workspace.registry, champion.model) == {"1": "1", "2": "1"}
    found = map_in_force(champion)
    assert isinstance(found, Recalibrator)
    pipeline = load_version(workspace.registry, champion, definition)
    assert isinstance(pipeline, Recalibrated)
    rows = small_model.rows(24, 25)
    score, raw = score_rows(pipeline, definition, rows)
    np.testing.assert_allclose(score, found.apply(raw))
    # The map takes the certainty back: the answers lie nearer to the middle than what was logged.
    assert np.abs(score - 0.5).mean() < np.abs(apply_map(raw, "platt", [4.0, 1.5], "classification") - 0.5).mean()


def test_killed_after_its_promotion_and_run_again_it_is_the_same(
    drifted: tuple[Workspace, ModelDefinition, datetime],
) -> None:
    workspace, definition, as_of = drifted
    assert recalibrate(workspace, definition, as_of) == recalibrate(workspace, definition, as_of)
    assert len(workspace.registry.versions("digits")) == 2
    assert [line.version for line in workspace.registry.history("digits")] == [1, 2]


def test_the_next_predictions_carry_both_scores(drifted: tuple[Workspace, ModelDefinition, datetime]) -> None:
    workspace, definition, as_of = drifted
    recalibrate(workspace, definition, as_of)
    small_model.add(workspace, definition, small_model.rows(24, 25).drop(columns="even"), as_of=as_of)
    champion = require_champion(workspace.registry, "digits")
    pipeline = load_version(workspace.registry, champion, definition)
    assert score_unscored(workspace.store, definition, pipeline, version=2, as_of=as_of) > 0
    logged = workspace.store.frame("digits", "predictions")
    mapped = logged[logged["version"] == 2]
    assert (mapped["score"] != mapped["raw_score"]).any()


def test_too_few_mature_labels_say_so(drifted: tuple[Workspace, ModelDefinition, datetime]) -> None:
    workspace, definition, _ = drifted
    with pytest.raises(DataError, match=r"has 0 mature labels, and monitoring\.minimum_rows is 50"):
        recalibrating.fit_map(workspace, definition, as_of=small_model.day(16))
