"""What is written down of a training agrees with what happened in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_model import World, day

from tasks.steps.describe import describe, draw_tuning, tuning_table
from tasks.steps.monitor import champion_reference, reference_sample


def test_the_tables_hold_every_trial_and_every_check(trained: World) -> None:
    tuning, judged = trained.training.tuning, trained.training.judged
    trials = tuning_table(tuning)
    assert trials["trial"].tolist() == [trial.number for trial in tuning.trials]
    assert trials["log_loss"].min() == pytest.approx(tuning.value)
    assert judged.report.table()["check"].tolist() == [check.name for check in judged.report.checks]
    assert draw_tuning(tuning).axes


def test_metrics_are_those_of_the_rows_that_judged(trained: World) -> None:
    record, judged = trained.training.record, trained.training.judged
    assert record.metrics["brier"] == pytest.approx(float(np.mean((judged.challenger - judged.truth) ** 2)))
    assert record.metrics["rows.holdout"] == len(judged.truth)
    assert record.metrics["rows.trained"] == trained.training.final.trained_rows
    assert not any(name.startswith("champion.") for name in record.metrics)
    assert {name.split("/")[2] for name in record.metrics if name.startswith("slice/shade/")} <= {
        "light", "middle", "dark",
    }  # fmt: skip
    assert record.parameters["data_version"] == trained.training.prepared.data.data_version


def test_describing_twice_says_the_same(trained: World) -> None:
    training = trained.training
    final = training.final
    again = describe(training.prepared, training.tuning, final, training.judged, seconds={}, decision_id="first")
    assert dict(again.lineage) == dict(training.record.lineage)
    assert again.key == training.record.key
    np.testing.assert_array_equal(again.golden[1], training.record.golden[1])


def test_reports_are_json_and_the_reference_reads_back(trained: World) -> None:
    for name, content in trained.training.record.reports.items():
        if not isinstance(content, str):
            assert json.loads(json.dumps(content, allow_nan=False)), name
    registry, version = trained.workspace.registry, trained.training.version
    reference = champion_reference(registry, version)
    assert reference.to_dict() == trained.training.record.reports["reference.json"]
    sample = reference_sample(registry, version)
    assert sample["when"].min() < day(1) < day(8) < sample["when"].max()
    assert sample["_score"].notna().any()
    assert sample["_score"].isna().any()
