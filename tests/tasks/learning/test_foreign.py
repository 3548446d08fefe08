"""Classes by name and stored pipelines as estimators, rows that count differently, groups that stay whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_model import day, define, merge, rows

from perennial.definition import ModelDefinition
from perennial.errors import DataError, DefinitionError
from perennial.model.artifacts import how_to_store
from perennial.workspace import Workspace
from tasks.learning.estimators import build_pipeline, built_in_space
from tasks.learning.fitting import fit, predict_score, training_key
from tasks.learning.trials import FoldEvaluator
from tasks.rows.split import split_by_time


def defined(workspace: Workspace, **training: Any) -> ModelDefinition:
    return define(workspace, training=training)


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.ensemble.ExtraTreesClassifier",
        "sklearn.naive_bayes.GaussianNB",
        "sklearn.neighbors.KNeighborsClassifier",
        "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        "sklearn.ensemble.GradientBoostingClassifier",
    ],
)
def test_a_class_is_fitted_with_gaps_and_stored(workspace: Workspace, name: str) -> None:
    definition = defined(workspace, estimator=name)
    frame = rows(0, 6)
    frame.loc[::7, "ink_11"] = np.nan
    frame.loc[::9, "shade"] = np.nan
    fitted = fit(definition, frame, {}, 0)
    assert type(fitted.pipeline[-1]).__name__ == name.rpartition(".")[2]
    assert np.isfinite(predict_score(fitted.pipeline, frame[list(definition.features.columns)], "classification")).all()
    assert not how_to_store(fitted.pipeline, definition.training).pickled


def test_a_known_class_has_a_search_space_and_its_names_are_checked(workspace: Workspace) -> None:
    definition = defined(workspace, estimator="sklearn.ensemble.ExtraTreesClassifier", parameters={"max_features": 0.5})
    assert set(built_in_space(definition)) == {"n_estimators", "min_samples_leaf"}
    assert build_pipeline(definition, {"n_estimators": 7}, 3)[-1].get_params()["random_state"] == 3
    with pytest.raises(DefinitionError, match="ExtraTreesClassifier has no trees; it has bootstrap"):
        build_pipeline(
            defined(workspace, estimator="sklearn.ensemble.ExtraTreesClassifier", parameters={"trees": 1}), {}, 0
        )
    for name, told in (
        ("sklearn.ensemble.Nope", "sklearn.ensemble has no class Nope. It has AdaBoostClassifier"),
        ("nowhere.Model", "No module named 'nowhere'. Install its package"),
        ("sklearn.svm.LinearSVC", "it has no predict_proba. Name a scikit-learn estimator for classification"),
    ):
        with pytest.raises(DefinitionError, match=told):
            build_pipeline(defined(workspace, estimator=name), {}, 0)


def test_a_stored_pipeline_is_cloned(workspace: Workspace) -> None:
    numeric = [name for name in rows(0, 1).columns if name.startswith("ink")]
    made = define(
        workspace, features={"numeric": numeric, "categorical": []}, gate={"slices": []},
        training={"estimator": "mine.skops", "parameters": {"logisticregression__C": 0.5}},
    )  # fmt: skip
    path = made.folder / "mine.skops"
    with pytest.raises(DefinitionError, match="there is no file"):
        build_pipeline(made, {}, 0)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        rows(0, 2)[numeric], rows(0, 2)["even"]
    )
    skops.io.dump(fitted, path)
    built = build_pipeline(made, {}, 0)
    assert not hasattr(built[-1], "coef_")
    assert built[-1].get_params()["C"] == 0.5
    assert np.isfinite(fit(made, rows(0, 6), {}, 0).baseline)
    before = training_key(made, "rows", day(6), 0)
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression(max_iter=501)), path)
    assert training_key(made, "rows", day(6), 0) != before


def weighted() -> pd.DataFrame:
    frame = rows(0, 10)
    frame["weight"] = np.where(frame["even"] == 1, 9.0, 1.0)
    frame["writer"] = [f"w{number // 7 % 40}" for number in range(len(frame))]
    return frame


def test_weights_count_when_a_model_is_fitted(workspace: Workspace) -> None:
    frame = weighted()
    plain, heavy = (fit(defined(workspace, **given), frame, {}, 0) for given in ({}, {"weights": "weight"}))
    features = frame[list(define(workspace).features.columns)]
    means = [predict_score(made.pipeline, features, "classification").mean() for made in (plain, heavy)]
    assert means[1] > means[0] + 0.15
    definition = defined(workspace, weights="weight")
    with pytest.raises(DataError, match="weight is missing in 1 of 720 labelled rows, below 0 in 0"):
        fit(definition, frame.assign(weight=frame["weight"].where(frame.index > 0)), {}, 0)
    with pytest.raises(DataError, match="KNeighborsClassifier takes no weights"):
        fit(defined(workspace, weights="weight", estimator="sklearn.neighbors.KNeighborsClassifier"), frame, {}, 0)
    split = split_by_time(frame, definition, day(12))
    assert (
        FoldEvaluator(definition, frame, split.folds, 0)({}).value
        != FoldEvaluator(defined(workspace), frame, split.folds, 0)({}).value
    )


def test_groups_are_never_on_both_sides(workspace: Workspace) -> None:
    frame = weighted()
    definition = define(
        workspace, training=merge({"groups": "writer"}, {"tuning": {"folds": 2, "validation_share": 0.4}})
    )
    split = split_by_time(frame, definition, day(12))
    writers = frame["writer"].to_numpy()
    assert len(split.learning)
    assert not set(writers[split.learning]) & set(writers[split.holdout])
    for fold in split.folds:
        assert not set(writers[fold.train]) & set(writers[fold.validation])
    with pytest.raises(DataError, match=r"no labelled row has a value in writer, which training.groups names"):
        split_by_time(frame.drop(columns="writer"), definition, day(12))


def test_both_are_kept_with_their_rows(workspace: Workspace, tmp_path: Path) -> None:
    from small_model import add

    from tasks.rows.frames import labelled_rows

    definition = defined(workspace, weights="weight", groups="writer")
    add(workspace, definition, weighted(), as_of=day(13), history=True)
    found = labelled_rows(workspace.store, definition, as_of=day(13)).frame
    assert found["weight"].isin([1.0, 9.0]).all()
    assert found["writer"].str.fullmatch(r"w\d+").all()
    refused = add(workspace, definition, weighted().drop(columns="writer"), as_of=day(14))
    assert refused.verdict == "refused"
    assert "the columns writer are missing" in refused.reasons[0]
