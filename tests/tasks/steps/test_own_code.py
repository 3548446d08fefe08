"""A version counts only where a fresh process, without the team's files, loads it and gives its golden answers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from small_model import Trained, World, add, day, define, retrain, rows

from perennial.definition import ModelDefinition
from perennial.errors import DefinitionError, RegistryError
from perennial.model.artifacts import folder_digest, save_model
from perennial.model.features import feature_frame
from perennial.model.plugins import load_module
from perennial.operate.doctor import examine
from perennial.serving.versions.proving import prove
from perennial.workspace import Workspace
from tasks.learning.fitting import fit, predict_score
from tasks.steps.register import register_training
from tasks.steps.score import load_version

OWN = """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

SCALE = 16


def ratio(frame):
    return frame.fillna(0) / SCALE


class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, values, target=None):
        self.factor_ = 2
        return self

    def transform(self, values):
        return values * self.factor_


def build(definition, parameters, seed):
    numbers = make_column_transformer((FunctionTransformer(ratio), make_column_selector(dtype_include="number")))
    return make_pipeline(numbers, Doubled(), LogisticRegression())


def nameless(definition, parameters, seed):
    numbers = make_column_transformer(
        (FunctionTransformer(lambda frame: frame.fillna(0)), make_column_selector(dtype_include="number"))
    )
    return make_pipeline(numbers, LogisticRegression())


def failing(definition, parameters, seed):
    return {}["absent"]
"""
TRUSTED = ["churn_model.Doubled", "churn_model.ratio"]


def own(workspace: Workspace, name: str = "build", trusted: list[str] = TRUSTED) -> ModelDefinition:
    (workspace.settings.model_folders[0] / "churn_model.py").write_text(OWN)
    return define(workspace, training={"estimator": f"churn_model.py:{name}", "trusted_types": trusted})


def test_own_code_lives_on_in_its_version(workspace: Workspace) -> None:
    """The file is edited, then gone; the version answers as it was trained, here, elsewhere and to MLflow itself."""
    definition = own(workspace)
    add(workspace, definition, rows(0, 12), as_of=day(13), history=True)
    first: Trained = retrain(workspace, definition, as_of=day(13))
    assert first.reign is not None
    folder = workspace.registry.artifacts(first.version)
    assert (folder / "code" / "churn_model.py").read_text() == OWN
    file = workspace.settings.model_folders[0] / "churn_model.py"
    file.write_text(OWN.replace("SCALE = 16", "SCALE = 3"))
    golden = workspace.registry.run_artifact(first.version, "golden.parquet")
    stored = pd.read_parquet(golden)
    features = feature_frame(stored, definition.features)
    loaded = load_version(workspace.registry, first.version, definition)
    np.testing.assert_array_equal(predict_score(loaded, features, "classification"), stored["_score"])
    # A map around it is stored with the code that the champion was trained with, not with the file of today.
    save_model(make_pipeline(loaded), workspace.home / "again", definition.training)
    assert (workspace.home / "again" / "code" / "churn_model.py").read_text() == OWN
    file.unlink()
    found = [item for item in examine(workspace.settings) if item.check == "champions"]
    assert [(item.status, item.detail) for item in found] == [
        ("ok", f"digits: version 1 is whole; a fresh process answers its {len(stored)} golden rows")
    ]
    program = (
        "import sys, mlflow.sklearn, pandas as pd\n"
        f"golden = pd.read_parquet({str(golden)!r})\n"
        f"model = mlflow.sklearn.load_model({str(folder)!r})\n"
        "score = model.predict_proba(golden.drop(columns='_score'))[:, 1]\n"
        "assert abs(score - golden['_score']).max() == 0, score\n"
        "assert 'perennial.cli' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_nobody_trusts_is_refused_before_any_tuning(workspace: Workspace) -> None:
    definition = own(workspace, trusted=["churn_model.Doubled"])
    with pytest.raises(DefinitionError) as caught:
        retrain(workspace, definition, as_of=day(13))  # there are no rows yet
    assert str(caught.value) == (
        "the model holds types that nobody trusts: churn_model.ratio. If you do, write "
        "`training: {trusted_types: [churn_model.Doubled, churn_model.ratio]}`."
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nameless", r"holds <lambda> of .*churn_model.py, which does not stand at top level. Give it a name"),
        ("failing", r"churn_model.py: line \d+: failing fails: KeyError: 'absent'. Mend it there"),
    ],
)
def test_what_is_wrong_with_own_code_is_one_line(workspace: Workspace, name: str, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        retrain(workspace, own(workspace, name), as_of=day(13))


def test_a_file_named_as_a_library_is_refused(workspace: Workspace) -> None:
    definition = own(workspace, trusted=["statistics.Doubled", "statistics.ratio"])
    folder = workspace.settings.model_folders[0]
    (folder / "churn_model.py").rename(folder / "statistics.py")
    trusted = list(definition.training.trusted_types)
    definition = define(workspace, training={"estimator": "statistics.py:build", "trusted_types": trusted})
    pipeline = load_module(folder / "statistics.py").build(definition, {}, 0)
    with pytest.raises(DefinitionError, match=r"its name is that of the module statistics.*Rename the file"):
        save_model(pipeline, workspace.home / "model", definition.training)
    assert "churn_model" not in sys.modules


def test_who_answers_otherwise_in_another_process_is_not_registered(trained: World, workspace: Workspace) -> None:
    """What is not in its attributes is not stored: a type whose state lies elsewhere predicts otherwise there."""
    (workspace.settings.model_folders[0] / "forgetful.py").write_text(OWN + FORGETFUL)
    definition = define(
        workspace,
        training={"estimator": "forgetful.py:remembering", "trusted_types": ["forgetful.Remembering"]},
    )
    fitted = fit(definition, rows(0, 10), {}, 0)
    golden = feature_frame(rows(0, 1), definition.features)
    score = predict_score(fitted.pipeline, golden, "classification")
    record = replace(
        trained.training.record, definition=definition, pipeline=fitted.pipeline, golden=(golden, score), key="other"
    )
    with pytest.raises(RegistryError, match=r"a fresh process can't answer with the model: .*golden"):
        register_training(workspace.registry, record)
    assert workspace.registry.versions("digits") == []
    client = workspace.registry.client
    (run,) = client.search_runs([workspace.registry.experiment_id("digits")])
    assert run.info.status == "FAILED"


FORGETFUL = """
MEANS = []

class Remembering(LogisticRegression):
    def fit(self, features, target):
        MEANS.append(float(target.mean()))
        return super().fit(features, target)

    def predict_proba(self, features):
        found = super().predict_proba(features)
        return found * 0 + [[1 - MEANS[-1], MEANS[-1]]] if MEANS else found


def remembering(definition, parameters, seed):
    numbers = make_column_transformer(("passthrough", make_column_selector(dtype_include="number")))
    return make_pipeline(numbers, Remembering())
"""


def test_the_prover_outlives_a_version_that_ends_its_process(workspace: Workspace, tmp_path: Path) -> None:
    file = workspace.settings.model_folders[0] / "deadly.py"
    file.write_text(OWN)
    names = {"estimator": "deadly.py:build", "trusted_types": ["deadly.Doubled", "deadly.ratio"]}
    definition = define(workspace, training=names)
    fitted = fit(definition, rows(0, 10), {}, 0)
    features = feature_frame(rows(0, 1), definition.features)
    score = predict_score(fitted.pipeline, features, "classification")
    save_model(fitted.pipeline, tmp_path / "model", definition.training)
    golden = tmp_path / "golden.parquet"
    features.assign(_score=score).to_parquet(golden)

    def ask() -> str:
        digest = folder_digest(tmp_path / "model")
        try:
            return f"{prove(definition, model=tmp_path / 'model', golden=golden, digest=digest).rows} rows"
        except RegistryError as error:
            return error.problem

    assert ask() == f"{len(score)} rows"
    code = tmp_path / "model" / "code" / "deadly.py"
    code.write_text(OWN.replace("SCALE = 16", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert ask() == "a fresh process can't answer with the model: it was ended by signal 9"
    code.write_text(OWN)
    assert ask() == f"{len(score)} rows"
    code.unlink()
    assert "the model names what is not here: No module named 'deadly'" in ask()
