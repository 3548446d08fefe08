"""A run worth comparing and a version that says where it comes from; stored safely or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import World

from perennial.errors import DefinitionError
from perennial.model.artifacts import trusted_types
from perennial.model.features import feature_frame
from perennial.state.registry import Version
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.steps.register import (
    GOLDEN_FILE,
    REFERENCE_FILE,
    SAMPLE_FILE,
    code_version,
    register_training,
    requirements,
)
from tasks.steps.score import load_version


def run_of(world: World) -> Any:
    return world.workspace.registry.client.get_run(world.training.version.run_id)


def test_lineage_is_complete(trained: World) -> None:
    version, prepared = trained.training.version, trained.training.prepared
    expected = {
        "as_of": "2024-03-01T00:00:00+00:00",
        "data_version": prepared.data.data_version,
        "definition_hash": trained.definition.hash,
        "code_version": code_version(),
        "trained_rows": str(trained.training.final.trained_rows),
        "decision_id": "first",
        "beaten_version": "",
        "gate.verdict": "promote",
    }
    assert {name: version.tag(name) for name in expected} == expected
    assert version.tag("environment")
    assert version.tags["perennial.training_key"] == prepared.key
    assert json.loads(version.tag("parameters")) == trained.training.final.parameters


def test_the_run_is_worth_comparing(trained: World) -> None:
    run = run_of(trained)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["roc_auc"] > 0.6
    for name in (
        "log_loss",
        "brier",
        "baseline.log_loss",
        "seconds/train",
        "rows.trained",
        "rows.holdout",
        "tuning.best",
    ):
        assert np.isfinite(run.data.metrics[name]), name
    assert {name for name in run.data.metrics if name.startswith("importance/")} == {
        f"importance/{name}" for name in trained.definition.features.columns
    }
    assert any(name.startswith("slice/shade/") for name in run.data.metrics)
    assert run.data.params["estimator"] == "linear"
    assert run.data.params["definition_hash"] == trained.definition.hash
    client = trained.workspace.registry.client
    assert len(client.get_metric_history(run.info.run_id, "curve/roc")) == 101
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == trained.training.prepared.data.digest[:36]


def test_its_files(trained: World) -> None:
    registry, version = trained.workspace.registry, trained.training.version
    client = registry.client
    names = {item.path for item in client.list_artifacts(version.run_id)}
    wanted = {
        GOLDEN_FILE,
        REFERENCE_FILE,
        SAMPLE_FILE,
        "gate.json",
        "gate.md",
        "environment.json",
        "tuning.json",
        "images",
    }
    assert wanted <= names
    images = [Path(item.path).name for item in client.list_artifacts(version.run_id, "images")]
    for figure in ("gate", "importance", "tuning", "roc", "precision_recall", "calibration"):
        assert any(image.startswith(figure) for image in images), images
    gate = json.loads(registry.run_artifact(version, "gate.json").read_text())
    assert gate["verdict"] == "promote"
    sample = pd.read_parquet(registry.run_artifact(version, SAMPLE_FILE))
    assert len(sample) == trained.definition.monitoring.report_rows
    assert "_score" in sample


def test_golden_rows_give_golden_scores(trained: World) -> None:
    registry, version = trained.workspace.registry, trained.training.version
    golden = pd.read_parquet(registry.run_artifact(version, GOLDEN_FILE))
    pipeline = load_version(registry, version, trained.definition)
    features = feature_frame(golden.drop(columns="_score"), trained.definition.features)
    np.testing.assert_array_equal(predict_score(pipeline, features, "classification"), golden["_score"])


def test_signature_example_and_requirements(trained: World) -> None:
    import yaml

    folder = trained.workspace.registry.artifacts(trained.training.version)
    meta = yaml.safe_load((folder / "MLmodel").read_text())
    assert meta["flavors"]["sklearn"]["serialization_format"] == "skops"
    inputs = {item["name"]: item["type"] for item in json.loads(meta["signature"]["inputs"])}
    assert inputs["ink_00"] == "double"
    assert list(inputs) == list(trained.definition.features.columns)
    assert (folder / "input_example.json").is_file()
    assert set(requirements()) <= set((folder / "requirements.txt").read_text().split())
    assert (folder / "model.skops").is_file()
    assert not (folder / "model.pkl").exists()


def test_registering_again_gives_the_same_version(trained: World) -> None:
    registry = trained.workspace.registry
    before = len(registry.client.search_runs([registry.experiment_id("digits")]))
    assert register_training(registry, trained.training.record) == trained.training.version
    assert len(registry.client.search_runs([registry.experiment_id("digits")])) == before


def odd(values: Any) -> Any:
    """A team's own function, which no list of ours trusts."""
    return values


def test_an_untrusted_type_is_not_stored_but_by_name(trained: World, workspace: Workspace) -> None:
    record = replace(
        trained.training.record, pipeline=FunctionTransformer(odd), key="other",
    )  # fmt: skip
    with pytest.raises(DefinitionError, match=rf"types that nobody trusts: {odd.__module__}.odd. If you do, write"):
        register_training(workspace.registry, record)
    assert workspace.registry.versions("digits") == []
    assert f"{odd.__module__}.odd" not in trusted_types(trained.definition.training)


def test_a_pickle_where_the_definition_allows_it(trained: World, workspace: Workspace) -> None:
    definition = trained.definition
    allowed = definition.model_copy(update={"training": definition.training.model_copy(update={"allow_pickle": True})})
    record = trained.training.record
    # Of a module that another process finds: a function of a test's is not there.
    pipeline = make_pipeline(FunctionTransformer(pd.DataFrame.copy), record.pipeline)
    record = replace(record, pipeline=pipeline, key="other", definition=allowed)
    version: Version = register_training(workspace.registry, record)
    folder = workspace.registry.artifacts(version)
    assert (folder / "model.pkl").is_file()
    golden = record.golden[0]
    found = load_version(workspace.registry, version, allowed).predict_proba(golden)
    np.testing.assert_array_equal(found[:, 1], record.golden[1])
