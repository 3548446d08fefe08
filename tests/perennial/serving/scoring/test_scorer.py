"""Tests of the fast path: equal to scikit-learn for every built-in estimator, or not taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_world import PARAMETERS, definition_of, rows_of
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from perennial.definition import ESTIMATORS, ModelDefinition
from perennial.model.calibrated import Recalibrated
from perennial.model.features import feature_frame
from perennial.serving.protocol.columns import columns_of
from perennial.serving.protocol.problems import Problem
from perennial.serving.protocol.schema import Schema
from perennial.serving.scoring.encoder import known_categories
from perennial.serving.scoring.scorer import PROOF_TOLERANCE, Scorer, pipeline_scores
from perennial.serving.versions.model import golden_rows
from tasks.learning.fitting import fit

KINDS = {"a": "numeric", "b": "numeric", "empty": "numeric", "colour": "categorical", "code": "categorical",
         "note": "text", "picture": "image"}  # fmt: skip

KNOWN = {"tables": 64, "treelite": 64, "linear": 64}  # what would else be measured


def fitted(estimator: str, task: str, wide: bool = False) -> tuple[Any, Schema, ModelDefinition, pd.DataFrame]:
    definition = ModelDefinition.model_validate(definition_of(task=task, estimator=estimator, wide=wide))
    frame = rows_of(400, 0, task, wide)
    pipeline = fit(definition, frame, PARAMETERS[estimator], 0).pipeline
    columns = definition.features.columns
    bare = Schema(columns, tuple(KINDS[name] for name in columns), {}, ("row",), "at")  # type: ignore[arg-type]
    known = known_categories(pipeline.named_steps["preprocess"], bare)
    schema = Schema(bare.columns, bare.kinds, {}, ("row",), "at", known)
    return pipeline, schema, definition, feature_frame(rows_of(120, 7, task, wide), definition.features)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_fast_path_equals_scikit_learn(estimator: str, task: str) -> None:
    pipeline, schema, definition, rows = fitted(estimator, task)
    probes = golden_rows(rows, schema)
    scorer = Scorer(pipeline, schema, definition.task, probes, fast_rows=KNOWN)

    kinds = {"linear": "linear", "random_forest": "treelite", "hist_gradient_boosting": "tables"}
    assert scorer.proof.kind == kinds[estimator], scorer.proof
    wanted = pipeline_scores(pipeline, rows, definition.task)
    scale = max(1.0, float(np.abs(wanted).max()))
    assert np.abs(scorer.fast(probes) - wanted).max() <= PROOF_TOLERANCE * scale
    by_column = columns_of(probes)
    schema.clean(by_column)
    assert np.abs(scorer.fast(by_column) - wanted).max() <= PROOF_TOLERANCE * scale
    pd.testing.assert_frame_equal(schema.frame(by_column), schema.frame(probes))
    assert scorer.proof.rows > len(probes)
    assert scorer.proof.fast_rows >= 1


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "linear"])
def test_texts_and_images_have_a_fast_path_too(estimator: str) -> None:
    pipeline, schema, definition, rows = fitted(estimator, "classification", wide=True)
    scorer = Scorer(pipeline, schema, definition.task, golden_rows(rows, schema)[:40], fast_rows=KNOWN)

    assert scorer.proof.kind != "none", scorer.proof
    assert scorer.proof.largest_difference <= PROOF_TOLERANCE


def test_a_recalibrated_version_is_mapped_after_the_fast_path() -> None:
    pipeline, schema, definition, rows = fitted("hist_gradient_boosting", "classification")
    mapped = Recalibrated(pipeline, "platt", [1.4, -0.3], "classification")
    probes = golden_rows(rows, schema)
    scorer = Scorer(mapped, schema, definition.task, probes, fast_rows=KNOWN)

    assert scorer.proof.kind == "tables"
    assert np.abs(scorer.fast(probes) - mapped.predict_proba(rows)[:, 1]).max() <= PROOF_TOLERANCE
    assert np.abs(scorer.raw(probes) - pipeline.predict_proba(rows)[:, 1]).max() <= PROOF_TOLERANCE
    assert np.abs(scorer.score(probes) - scorer.raw(probes)).max() > 0.01


def test_an_unknown_estimator_is_answered_by_its_pipeline_and_says_so() -> None:
    definition = ModelDefinition.model_validate(definition_of())
    frame = rows_of(100)
    rows = feature_frame(frame, definition.features)
    pipeline = make_pipeline(FunctionTransformer(lambda f: f[["a"]].to_numpy()), DecisionTreeClassifier(max_depth=2))
    pipeline.fit(rows, frame["y"].astype(int))
    schema = Schema(
        definition.features.columns, tuple(KINDS[n] for n in definition.features.columns), {}, ("row",), "at"
    )  # type: ignore[arg-type]
    scorer = Scorer(pipeline, schema, "classification", golden_rows(rows, schema))

    assert scorer.proof.kind == "none"
    assert "fast path" in scorer.proof.reason
    assert np.array_equal(scorer.score(golden_rows(rows, schema)), pipeline.predict_proba(rows)[:, 1])


def test_an_unequal_fast_path_is_refused() -> None:
    pipeline, schema, definition, rows = fitted("linear", "classification")
    estimator = pipeline.named_steps["estimator"]

    class Drifted(type(estimator)):  # type: ignore[misc]
        """Its own arithmetic differs from what its coefficients say."""

        def predict_proba(self, values: Any) -> Any:
            return super().predict_proba(values) * np.array([1.0, 0.999])

    Drifted.__name__ = "LogisticRegression"
    estimator.__class__ = Drifted
    scorer = Scorer(pipeline, schema, definition.task, golden_rows(rows, schema))

    assert scorer.proof.kind == "none"
    assert "differs" in scorer.proof.reason


def test_the_path_is_chosen_by_a_measured_size() -> None:
    pipeline, schema, definition, rows = fitted("hist_gradient_boosting", "classification")
    scorer = Scorer(pipeline, schema, definition.task, golden_rows(rows, schema))

    assert scorer.fast_rows > 1
    many = [list(row) for row in golden_rows(rows, schema)] * 20
    assert np.abs(scorer.score(many) - scorer.mapped(scorer.raw_slow(many))).max() <= PROOF_TOLERANCE


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(width=64), st.text(max_size=6),
    st.sampled_from(["red", "5", "NaN", "inf", " ", "1e400", "٣", "1_0"]),
    st.lists(st.integers(), max_size=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    pipeline, schema, definition, rows = fitted("hist_gradient_boosting", "classification")
    return Scorer(pipeline, schema, definition.task, golden_rows(rows, schema), fast_rows=KNOWN)


@settings(max_examples=80, deadline=None)
@given(row=st.tuples(*[SCALARS] * 5))
def test_any_row_is_scored_as_the_pipeline_scores_it_or_refused_with_its_rule(
    scorer: Scorer, row: tuple[Any, ...]
) -> None:
    cells = list(row)
    problem = None
    try:
        scorer.schema.clean([cells])
    except Problem as refusal:
        problem = refusal
    if problem is not None:
        assert problem.status == 422
        assert {"column", "row", "value", "rule", "example"} <= set(problem.details)
        return
    frame = scorer.schema.frame([cells])
    assert (
        abs(float(scorer.fast([cells])[0]) - float(pipeline_scores(scorer.pipeline, frame, "classification")[0]))
        <= 1e-9
    )


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(st.one_of(st.none(), st.floats(-1e30, 1e30), st.integers(-9, 9), st.just("2.5")), min_size=1),
    codes=st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(-3, 3), st.floats(-9, 9)), min_size=1),
)
def test_clean_cells_are_those_of_the_feature_frame(numbers: list[Any], codes: list[Any]) -> None:
    count = min(len(numbers), len(codes))
    numbers, codes = numbers[:count], codes[:count]
    definition = ModelDefinition.model_validate(
        definition_of() | {"features": {"numeric": ["a"], "categorical": ["c"]}}
    )
    wanted = feature_frame(
        pd.DataFrame({"a": pd.Series(numbers, dtype=object), "c": pd.Series(codes, dtype=object)}), definition.features
    )
    schema = Schema(("a", "c"), ("numeric", "categorical"), {}, ("row",), "at")
    rows = [[a, c] for a, c in zip(numbers, codes, strict=True)]
    schema.clean(rows)

    pd.testing.assert_frame_equal(schema.frame(rows), wanted)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_truth_values_and_moments_have_a_fast_path_too(estimator: str) -> None:
    raw = definition_of(estimator=estimator)
    raw["features"] |= {"boolean": ["member", "never"], "datetime": ["seen", "gone"], "timezone": "Europe/Rome"}
    definition = ModelDefinition.model_validate(raw)
    frame = rows_of(400)
    generator = np.random.default_rng(1)
    hours = pd.to_timedelta(generator.integers(-(10**6), 10**6, len(frame)), unit="h")
    frame["member"] = np.where(frame["a"] > 0.1, "yes", "no")
    frame["never"] = pd.Series(pd.NA, frame.index, dtype="str")
    frame["seen"] = (frame["at"] + hours).where(generator.random(len(frame)) > 0.2)
    frame["gone"] = pd.Series(pd.NaT, frame.index, dtype="datetime64[us, UTC]")
    pipeline = fit(definition, frame, PARAMETERS[estimator], 0).pipeline
    columns = definition.features.columns
    kinds = KINDS | {"member": "boolean", "never": "boolean", "seen": "datetime", "gone": "datetime"}
    bare = Schema(columns, tuple(kinds[name] for name in columns), {}, ("row",), "at")  # type: ignore[arg-type]
    known = known_categories(pipeline.named_steps["preprocess"], bare)
    schema = Schema(bare.columns, bare.kinds, {}, ("row",), "at", known)
    rows = feature_frame(frame.tail(60), definition.features)
    probes = golden_rows(rows, schema)

    scorer = Scorer(pipeline, schema, definition.task, probes, fast_rows=KNOWN)

    assert scorer.proof.kind != "none", scorer.proof
    wanted = pipeline_scores(pipeline, rows, definition.task)
    assert np.abs(scorer.fast(probes) - wanted).max() <= PROOF_TOLERANCE
    assert np.abs(scorer.fast(schema.by_column(probes)) - wanted).max() <= PROOF_TOLERANCE
    pd.testing.assert_frame_equal(schema.frame(schema.by_column(probes)), rows)
    unmoved = [[*row[:-2], None, None] for row in probes]
    assert np.ptp(scorer.fast(probes) - scorer.fast(unmoved)) > 0  # the moments are read
