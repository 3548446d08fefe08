"""The fast path of many classes gives scikit-learn's probabilities, with a map and without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from many_model import MANY, many_rows
from small_model import merge

from perennial.definition import ModelDefinition
from perennial.model.calibrated import Recalibrated
from perennial.model.features import feature_frame
from perennial.serving.protocol.columns import columns_of
from perennial.serving.protocol.schema import Kind, Schema
from perennial.serving.scoring.encoder import known_categories
from perennial.serving.scoring.scorer import Scorer
from perennial.serving.versions.model import golden_rows
from tasks.learning.fitting import fit

DIGITS = tuple(str(digit) for digit in range(10))
PARAMETERS = {
    "hist_gradient_boosting": {"max_iter": 10},
    "random_forest": {"n_estimators": 15},
    "linear": {"C": 0.1},
}


@pytest.mark.parametrize("estimator", PARAMETERS)
@pytest.mark.parametrize("mapped", [False, True])
def test_ten_digits_are_answered_fast_and_alike(estimator: str, mapped: bool) -> None:
    raw = merge(MANY, {"classes": DIGITS, "data": {"target": "digit"}})
    definition = ModelDefinition.model_validate(raw | {"training": {"estimator": estimator}})
    frame = many_rows(0, 12)
    pipeline = fit(definition, frame, PARAMETERS[estimator], 0).pipeline
    features = feature_frame(frame.tail(300), definition.features)
    kinds: tuple[Kind, ...] = (*["numeric"] * len(definition.features.numeric), "categorical")
    bare = Schema(tuple(definition.features.columns), kinds, {}, ("row",), "when")
    schema = replace(bare, known=known_categories(pipeline["preprocess"], bare))
    served = Recalibrated(pipeline, "shifted", [0.8, *np.linspace(-1, 1, 10)], "classification") if mapped else pipeline
    rows = golden_rows(features, schema)
    scorer = Scorer(served, schema, "classification", rows[:60])
    assert scorer.proof.kind == ("linear" if estimator == "linear" else "treelite"), scorer.proof
    assert scorer.proof.largest_difference <= 1e-9
    found = scorer.fast(rows)
    assert found.shape == (300, 10)
    np.testing.assert_allclose(found, served.predict_proba(features), atol=1e-9)
    np.testing.assert_allclose(scorer.score(rows), found, atol=1e-9)
    by_column = columns_of(rows)
    schema.clean(by_column)
    for scores in (scorer.score(by_column), scorer.fast(by_column), scorer.mapped(scorer.raw_slow(by_column))):
        np.testing.assert_allclose(scores, found, atol=1e-9)
