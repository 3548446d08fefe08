"""Tests of two versions side by side: the same rows, told what each has learned from, and refused where it can't be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_model
from small_model import World, day

from perennial.errors import ConflictError, DataError, NotFoundError
from perennial.model.features import feature_frame
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.steps.score import load_version
from tasks.steps.shown.compared import compare_versions, newest_judged, write_comparison

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> World:
    """Two versions, trained on ten and on fourteen days."""
    workspace = make_workspace(tmp_path_factory.mktemp("compared"))
    definition = small_model.define(workspace, gate={"slice_minimum_rows": 20})
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    small_model.retrain(workspace, definition, as_of=day(10))
    small_model.add(workspace, definition, small_model.rows(10, 14), as_of=day(14))
    second = small_model.retrain(workspace, definition, as_of=day(14))
    small_model.add(workspace, definition, small_model.rows(14, 18), as_of=day(18))
    return World(workspace, definition, second)


def test_both_answer_the_same_newest_rows(world: World) -> None:
    found = compare_versions(world.workspace, world.definition, 1, 2, as_of=day(18))
    rows = newest_judged(world.workspace.store, world.definition, as_of=day(18))
    assert found.rows == len(rows)
    assert rows["_time"].max() < day(17)  # what is younger is not mature
    registry = world.workspace.registry
    features, truth = feature_frame(rows, world.definition.features), rows["truth"].to_numpy(float)
    scores = [
        predict_score(
            load_version(registry, registry.version("digits", number), world.definition), features, "classification"
        )
        for number in (1, 2)
    ]
    briers = [float(np.mean((score - truth) ** 2)) for score in scores]
    assert found.left.metrics["brier"] == pytest.approx(briers[0], abs=1e-9)
    assert found.difference == pytest.approx(briers[1] - briers[0], abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.difference <= found.high
    assert found.disagreements[0].left != found.disagreements[0].right
    widest = max(abs(scores[0] - scores[1]))
    assert abs(found.disagreements[0].left - found.disagreements[0].right) == pytest.approx(widest)
    assert {item.part for item in found.slices} <= {f"shade = {name}" for name in ("light", "middle", "dark")}


def test_it_is_told_who_has_learned_from_the_rows(world: World) -> None:
    found = compare_versions(world.workspace, world.definition, 1, 2, as_of=day(14))
    assert found.left.learned == 0
    assert found.right.learned > 0


def test_a_comparison_is_kept_as_json(world: World) -> None:
    found = compare_versions(world.workspace, world.definition, 2, 1, as_of=day(18))
    path = write_comparison(world.workspace, found)
    assert path.name == "compare-2-1.json"
    assert json.loads(path.read_text())["difference"] == found.difference


def test_what_can_not_be_compared_is_refused(world: World) -> None:
    with pytest.raises(ConflictError, match="can't be compared with itself"):
        compare_versions(world.workspace, world.definition, 1, 1, as_of=day(18))
    with pytest.raises(NotFoundError, match="has no version 9"):
        compare_versions(world.workspace, world.definition, 1, 9, as_of=day(18))
    with pytest.raises(DataError, match="rows of digits have their truth"):
        compare_versions(world.workspace, world.definition, 1, 2, as_of=day(0.2))
