"""Tests of the pipelines that definitions mean: all kinds of columns, unseen values, storage, the fast path."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import treelite
from PIL import Image
from sklearn.metrics import r2_score, roc_auc_score

from perennial.definition import ESTIMATORS, ModelDefinition
from perennial.errors import DataError, DefinitionError
from perennial.model.features import feature_frame
from perennial.model.transformers import TRUSTED_TYPES, ImageStatistics, TextVectors
from tasks.learning.estimators import (
    MOST_CATEGORIES,
    SEARCH_SPACES,
    Choice,
    Range,
    build_pipeline,
    built_in_space,
    default_parameters,
    parameter_suggestion,
)
from tasks.learning.fitting import fit_pipeline, predict_score

KINDS = {"numeric": ["a", "b"], "categorical": ["c"], "text": ["t"], "image": ["i"]}
FAST = {
    "hist_gradient_boosting": {"max_iter": 20, "min_samples_leaf": 10},
    "random_forest": {"n_estimators": 20, "min_samples_leaf": 2},
    "linear": {},
}


def definition(
    estimator: str = "hist_gradient_boosting", task: str = "classification", features: Any = None, **training: Any
) -> ModelDefinition:
    return ModelDefinition.model_validate(
        {
            "name": "m",
            "task": task,
            "data": {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y"},
            "features": features or KINDS,
            "training": {"estimator": estimator, **training},
        }
    )


def picture(brightness: int, size: tuple[int, int] = (12, 9)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


PICTURES = {level: picture(level) for level in (10, 60, 120, 200)}


def mixed(rows: int = 400, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows in which every kind of column carries a part of the signal, and values are missing in each."""
    rng = np.random.default_rng(seed)
    a, bright = rng.normal(size=rows), rng.choice(list(PICTURES), size=rows)
    c, good = rng.choice(["k", "l", "m"], size=rows), rng.random(rows) < 0.5
    signal = a + (c == "k") * 1.5 + good * 1.5 + bright / 80 + rng.normal(size=rows) * 0.3
    noise = rng.choice(["red", "green", "blue", "stone"], size=rows)
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(rows) < 0.05, np.nan, a),
            "b": rng.normal(size=rows),
            "c": pd.Series(c).where(rng.random(rows) > 0.05, None),
            "t": [f"{word} was {'fine' if ok else 'poor'} indeed" for word, ok in zip(noise, good, strict=True)],
            "i": [PICTURES[level] for level in bright],
        }
    )
    frame.loc[0, ["t", "i"]] = None
    return frame, signal


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_learns_from_every_kind_of_column(estimator: str, task: str) -> None:
    model = definition(estimator, task)
    frame, signal = mixed()
    target = (signal > np.median(signal)).astype(float) if task == "classification" else signal
    features = feature_frame(frame, model.features)
    pipeline = build_pipeline(model, FAST[estimator], seed=1)
    assert list(pipeline.named_steps) == ["preprocess", "estimator"]
    fit_pipeline(pipeline, features[:300], target[:300], model)
    score = predict_score(pipeline, features[300:], model.task)
    quality = roc_auc_score if task == "classification" else r2_score
    assert quality(target[300:], score) > (0.9 if task == "classification" else 0.6)

    strange = feature_frame(
        pd.DataFrame(
            {"a": [None, 1.0], "b": [1e6, None], "c": ["new", None], "t": ["unheard", None], "i": [None, None]}
        ),
        model.features,
    )
    assert np.isfinite(predict_score(pipeline, strange, model.task)).all()

    again = build_pipeline(model, FAST[estimator], seed=1)
    fit_pipeline(again, features[:300], target[:300], model)
    np.testing.assert_array_equal(predict_score(again, features[300:], model.task), score)

    stored = skops.io.dumps(pipeline)
    untrusted = skops.io.get_untrusted_types(data=stored)
    assert set(untrusted) <= set(TRUSTED_TYPES)
    loaded = skops.io.loads(stored, trusted=untrusted)
    np.testing.assert_array_equal(predict_score(loaded, features[300:], model.task), score)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("features", [{"numeric": ["a"]}, {"categorical": ["c"]}, {"text": ["t"]}], ids=str)
def test_a_single_kind_of_column_is_enough(estimator: str, features: dict[str, list[str]]) -> None:
    model = definition(estimator, features=features)
    frame, signal = mixed(120)
    pipeline = build_pipeline(model, FAST[estimator], seed=0)
    prepared = feature_frame(frame, model.features)
    fit_pipeline(pipeline, prepared, (signal > np.median(signal)).astype(float), model)
    assert predict_score(pipeline, prepared, "classification").shape == (120,)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("filling", ["one", None])
def test_a_column_that_is_all_missing_or_constant_does_no_harm(estimator: str, filling: str | None) -> None:
    model = definition(estimator, features={"numeric": ["a", "b"], "categorical": ["c", "d"]})
    frame, signal = mixed(120)
    features = feature_frame(frame.assign(b=np.nan, d=filling), model.features)
    pipeline = build_pipeline(model, FAST[estimator], seed=0)
    fit_pipeline(pipeline, features, (signal > np.median(signal)).astype(float), model)
    present = feature_frame(frame.assign(b=1.0, d="two"), model.features)
    assert np.isfinite(predict_score(pipeline, present, "classification")).all()


def test_more_categories_than_the_boosting_holds_are_grouped() -> None:
    model = definition(features={"categorical": ["c"]})
    names = [f"k{number}" for number in range(1000)]
    frame = pd.DataFrame({"c": names * 2 + names[:50] * 20})
    pipeline = build_pipeline(model, {"max_iter": 5}, seed=0)
    features = feature_frame(frame, model.features)
    fit_pipeline(pipeline, features, (frame["c"].str[1:].astype(int) % 2).to_numpy(float), model)
    codes = pipeline[:-1].transform(features)
    assert np.nanmax(codes) == MOST_CATEGORIES - 1
    assert np.isnan(pipeline[:-1].transform(feature_frame(pd.DataFrame({"c": ["new", None]}), model.features))).all()


def test_the_fitted_trees_go_through_treelite_and_the_encoder_is_readable() -> None:
    model = definition(features={"numeric": ["a", "b"], "categorical": ["c"]})
    frame, signal = mixed()
    features = feature_frame(frame, model.features)
    pipeline = build_pipeline(model, {"max_iter": 30}, seed=0)
    fit_pipeline(pipeline, features, (signal > np.median(signal)).astype(float), model)
    encoder = pipeline.named_steps["preprocess"].named_transformers_["categorical"]
    assert [list(values[:3]) for values in encoder.categories_] == [["k", "l", "m"]]
    encoded = np.ascontiguousarray(pipeline.named_steps["preprocess"].transform(features), dtype=np.float64)
    # The importer casts the category codes, missing among them, to integers, and puts missing back afterwards.
    with np.errstate(invalid="ignore"):
        trees = treelite.sklearn.import_model(pipeline.named_steps["estimator"])
    fast = treelite.gtil.predict(trees, encoded).reshape(-1)
    np.testing.assert_allclose(fast, predict_score(pipeline, features, "classification"), atol=1e-12)


def test_fixed_parameters_win_and_leave_the_search() -> None:
    model = definition(parameters={"max_leaf_nodes": 5})
    pipeline = build_pipeline(model, {"max_leaf_nodes": 60, "learning_rate": 0.2}, seed=0)
    assert pipeline["estimator"].max_leaf_nodes == 5
    assert pipeline["estimator"].learning_rate == 0.2
    assert "max_leaf_nodes" not in built_in_space(model)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"has no leaf_nodes; it has .*max_leaf_nodes"):
        build_pipeline(definition(parameters={"leaf_nodes": 5}), {}, seed=0)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_search_spaces_hold_their_defaults_and_name_real_parameters(estimator: str, task: str) -> None:
    model = definition(estimator, task)
    space = built_in_space(model)
    assert space
    assert set(SEARCH_SPACES) == set(ESTIMATORS)
    assert set(space) <= set(build_pipeline(model, {}, 0)["estimator"].get_params())
    assert all(item.nearest(item.default) == item.default for item in space.values())
    assert default_parameters(model) == {name: item.default for name, item in space.items()}


def test_values_move_to_the_nearest_allowed_one() -> None:
    assert Range(1, 10, 5, whole=True).nearest(99) == 10
    assert Range(1, 10, 5, whole=True).nearest(3.6) == 4
    assert Range(0.1, 1, 0.5).nearest(0.0) == 0.1
    assert [Range(0.1, 1, 0.5).nearest(value) for value in (None, "x", float("nan"), True)] == [None] * 4
    assert Choice(("a", "b"), "a").nearest("c") is None


CUSTOM = """
from sklearn.dummy import DummyClassifier, DummyRegressor

def build(definition, parameters, seed):
    return DummyClassifier(strategy="prior", random_state=seed)

def no_probability(definition, parameters, seed):
    return DummyRegressor()

def wrong(x):
    return None

def search_space(trial):
    return {"depth": trial.suggest_int("depth", 1, 3)}

"""


def custom(folder: Path, name: str) -> ModelDefinition:
    (folder / "own.py").write_text(CUSTOM)
    return definition(f"own.py:{name}").model_copy(update={"path": folder / "m.yaml"})


def test_a_custom_estimator_and_its_search_space(tmp_path: Path) -> None:
    model = custom(tmp_path, "build")
    assert list(build_pipeline(model, {}, 0).named_steps) == ["estimator"]
    suggest = parameter_suggestion(model)
    assert suggest is not None

    class Trial:
        def suggest_int(self, name: str, low: int, high: int) -> int:
            return high

    assert suggest(Trial()) == {"depth": 3}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_probability", "DummyRegressor, which has no predict_proba"),
        ("wrong", r"function\(definition, parameters, seed\)"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_wrong_custom_function_is_explained(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        build_pipeline(custom(tmp_path, name), {}, 0)


def test_text_of_a_tiny_or_empty_vocabulary() -> None:
    for texts in (["", None], ["a", "b"], ["word", "word"], ["one two", "two three"]):
        column = pd.Series(texts, dtype=object)
        dense = TextVectors(components=4).fit(column).transform(column)
        assert dense.shape == (2, 4)
        assert np.isfinite(dense).all()
        assert TextVectors().fit(column).transform(column).shape[0] == 2


def test_images_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(picture(100, (20, 10)))
    made = ImageStatistics(thumbnail=2).fit(None).transform(pd.Series([str(tmp_path / "p.png"), None, picture(7)]))
    assert made.shape == (3, 8)
    assert made[0].tolist() == [100, 0, 20, 10, 100, 100, 100, 100]
    assert np.isnan(made[1]).all()
    assert made[2, 0] == 7
    for wrong in (b"no image", "/no/such/file.png", picture(1)[:40]):
        with pytest.raises(DataError, match=r"row 0.*can't be read as an image"):
            ImageStatistics().fit(None).transform(pd.Series([wrong]))
