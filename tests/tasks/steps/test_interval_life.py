"""A regression's intervals through its life: made on the holdout, logged, written, watched, remade with a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_model
import yaml
from sklearn.datasets import load_digits

from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.rows.labels import add_labels
from tasks.steps import recalibrate as recalibrating
from tasks.steps.monitor import run_check
from tasks.steps.score import load_version, require_champion, score_file, score_unscored, version_intervals

pytestmark = pytest.mark.slow


def define(workspace: Workspace, **serving: Any) -> ModelDefinition:
    small_model.define(workspace)  # for its suite
    raw = small_model.RAW | {
        "task": "regression", "gate": {"minimum_rows": 50}, "serving": serving,
        "training": {"estimator": "linear", "minimum_rows": 100, "tuning": {"trials": 2}},
    }  # fmt: skip
    path = workspace.settings.model_folders[0] / "digits.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return workspace.definition("digits")


def rows(first: float, last: float) -> pd.DataFrame:
    frame = small_model.rows(first, last)
    return frame.assign(even=load_digits().target[frame["row"].str[1:].astype(int)].astype(float))


def test_intervals_from_the_holdout_to_the_check(workspace: Workspace, tmp_path: Path) -> None:
    definition = define(workspace, interval=0.8)
    small_model.add(workspace, definition, rows(0, 15), as_of=small_model.day(15), history=True)
    trained = small_model.retrain(workspace, definition, as_of=small_model.day(15))
    made = version_intervals(trained.version, definition)
    assert made is not None
    held = trained.judged
    assert made.rows == len(held.truth)
    lower, upper = made.bounds(held.challenger)
    assert 0.8 <= ((lower <= held.truth) & (held.truth <= upper)).mean() <= 0.86

    fresh = rows(15, 24)
    small_model.add(workspace, definition, fresh.drop(columns="even"), as_of=small_model.day(24))
    champion = require_champion(workspace.registry, "digits")
    pipeline = load_version(workspace.registry, champion, definition)
    counted = score_unscored(
        workspace.store, definition, pipeline, version=champion.number, as_of=small_model.day(24),
        intervals=version_intervals(champion, definition),
    )  # fmt: skip
    log = workspace.store.frame("digits", "predictions")
    assert counted == len(log) > 100
    np.testing.assert_allclose(np.stack(made.bounds(log["score"].to_numpy())), log[["lower", "upper"]].to_numpy().T)

    source, target = tmp_path / "rows.parquet", tmp_path / "scored.csv"
    fresh.to_parquet(source)
    list(score_file(pipeline, definition, source, target, version=champion.number, intervals=made))
    written = pd.read_csv(target)
    assert list(written) == ["row", "score", "lower", "upper", "version"]
    np.testing.assert_allclose(made.bounds(written["score"].to_numpy())[1], written["upper"])

    truth = fresh["even"].to_numpy(dtype=np.float64)
    add_labels(workspace.store, definition, fresh["row"], truth, labelled_at=small_model.day(24), author="test")
    (signal,) = [item for item in check(workspace, definition, 24.5) if item.name == "interval"]
    known = log.set_index("id").join(fresh.set_index("row")["even"])
    known = known[known["time"] < pd.Timestamp(small_model.day(23.5))]
    share = float(((known["lower"] <= known["even"]) & (known["even"] <= known["upper"])).mean())
    assert signal.value == pytest.approx(share, abs=0.1)
    assert not signal.fired
    assert "80% that it promises" in signal.detail

    # The world moves: every digit is three more than it was; the check says that the intervals are off.
    moved = truth + 3.0
    add_labels(workspace.store, definition, fresh["row"], moved, labelled_at=small_model.day(24.6), author="test")
    (signal,) = [item for item in check(workspace, definition, 25) if item.name == "interval"]
    assert signal.fired
    assert not signal.persistent
    assert "fewer than" in signal.detail

    found = recalibrating.fit_map(workspace, definition, as_of=small_model.day(25))
    report = recalibrating.judge_map(found)
    record = recalibrating.describe_map(workspace, found, report, decision_id=None)
    remade = json.loads(record.lineage["interval"])
    mapped = found.map.apply(log.set_index("id").loc[found.rows["id"], "raw_score"].to_numpy(dtype=np.float64))
    truths = found.rows["truth"].to_numpy(dtype=np.float64)
    level = np.searchsorted(remade["edges"], mapped, side="right")
    inside = (mapped + np.take(remade["below"], level) <= truths) & (truths <= mapped + np.take(remade["above"], level))
    assert inside.mean() >= 0.78


def check(workspace: Workspace, definition: ModelDefinition, day: float) -> tuple[Any, ...]:
    return run_check(workspace, definition, as_of=small_model.day(day)).signals


def test_intervals_belong_to_a_regression_and_a_share() -> None:
    raw = small_model.RAW
    with pytest.raises(ValueError, match=r"serving\.interval belongs to task: regression"):
        ModelDefinition.model_validate(raw | {"serving": {"interval": 0.9}})
    regression = raw | {"task": "regression", "gate": {}, "training": {}}
    assert ModelDefinition.model_validate(regression | {"serving": {"interval": "90%"}}).serving.interval == 0.9
    with pytest.raises(ValueError, match="less than 1"):
        ModelDefinition.model_validate(regression | {"serving": {"interval": 1}})
