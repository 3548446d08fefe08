"""Categories that a pipeline knows: in older spellings, as truth values or as 0 and 1, and none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from perennial.definition import Features
from perennial.model.artifacts import folder_digest, load_model
from perennial.model.calibrated import Recalibrated
from perennial.model.features import feature_frame
from perennial.model.known import (
    Unknown,
    as_known,
    frame_as_known,
    known_categories,
    nearest,
    respell_encoders,
    stored_frame,
    unknown_categories,
)

FEATURES = Features(categorical=("c",))


def pipeline_of(categories: list[str], encoder: Any) -> Any:
    """Fitted on the categories just as they are, as older versions fitted them."""
    frame = pd.DataFrame({"c": pd.Series(categories * 10, dtype="str")})
    target = np.arange(len(frame)) % len(categories) >= len(categories) / 2
    preprocess = ColumnTransformer([("c", encoder, ["c"])])
    return Pipeline([("preprocess", preprocess), ("model", LogisticRegression(C=100))]).fit(frame, target.astype(int))


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                                     OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)])  # fmt: skip
def test_a_model_of_older_spellings_keeps_its_categories(tmp_path: Path, encoder: Any) -> None:
    old = ["0.0", "1.0", "2012-12-21 00:00:00", "true", "007"]
    pipeline = pipeline_of(old, encoder)
    stored = pd.DataFrame({"c": pd.Series(old, dtype="str")})
    wanted = pipeline.predict_proba(stored)[:, 1]
    skops.io.dump(Recalibrated(pipeline, "platt", [1.0, 0.0], "classification"), tmp_path / "model.skops")

    loaded = load_model(tmp_path, digest=folder_digest(tmp_path))

    assert known_categories(loaded)["c"] == {"0", "1", "2012-12-21", "True", "007"}
    now = feature_frame(pd.DataFrame({"c": pd.Series([0, 1, pd.Timestamp("2012-12-21"), True, "007"])}), FEATURES)
    np.testing.assert_array_equal(loaded.pipeline.predict_proba(now)[:, 1], wanted)
    np.testing.assert_array_equal(loaded.pipeline.predict_proba(stored_frame(stored, FEATURES, loaded))[:, 1], wanted)


def test_two_spellings_that_a_model_tells_apart_stay_apart() -> None:
    pipeline = pipeline_of(["3", "3.0", "4.0", "4.00"], OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    stored = pd.DataFrame({"c": pd.Series(["3", "3.0", "4.0", "4.00"], dtype="str")})
    wanted = pipeline.predict_proba(stored)[:, 1]
    respell_encoders(pipeline)
    assert known_categories(pipeline)["c"] == {"3", "3.0", "4.0", "4.00"}
    np.testing.assert_array_equal(pipeline.predict_proba(stored_frame(stored, FEATURES, pipeline))[:, 1], wanted)


@pytest.mark.parametrize(
    ("value", "known", "word"),
    [
        ("False", {"0", "1"}, "0"), ("True", {"0", "1", "2"}, "1"), ("1", {"True", "False"}, "True"),
        ("0", {"False"}, "False"), ("False", {"0", "1", "True"}, "False"), ("0", {"1", "False"}, "0"),
        ("True", {"True", "0", "1"}, "True"), ("True", {"yes", "no"}, "True"), ("2", {"True", "False"}, "2"),
        ("x", set(), "x"),
    ],
)  # fmt: skip
def test_truth_values_and_0_1_are_understood_where_only_one_is_known(value: str, known: set[str], word: str) -> None:
    assert as_known(value, known) == word
    frame = pd.DataFrame({"c": pd.Series([value, None], dtype="str"), "d": pd.Series(["0", "0"], dtype="str")})
    made = frame_as_known(frame, {"c": frozenset(known), "gone": frozenset()})
    assert made["c"][0] == word
    assert made["c"].isna().tolist() == [False, True]
    assert made["d"].tolist() == ["0", "0"]
    assert str(made["c"].dtype) == "str"


def test_unknown_categories_are_told_with_the_nearest() -> None:
    frame = pd.DataFrame({"c": pd.Series(["Red", "rde", "rde", "blue", None, "x" * 300], dtype="str")})
    known = {"c": frozenset({"red", "blue"})}
    assert unknown_categories(frame, known) == [
        Unknown("c", "rde", 2, "red"), Unknown("c", "Red", 1, "red"), Unknown("c", "x" * 300, 1, None),
    ]  # fmt: skip
    many = frozenset(f"shop {number}" for number in range(1000))
    assert nearest("SHOP 7", many) == "shop 7"
    assert nearest("shop 7x", many) is None


@pytest.mark.parametrize("words", [["0", "1"], ["False", "True"]])
def test_a_model_that_learned_a_category_reads_it_as_a_truth_value_too(words: list[str]) -> None:
    """The definition calls the column boolean by now, the champion is from before."""
    pipeline = pipeline_of(words, OneHotEncoder(handle_unknown="ignore"))
    features = feature_frame(pd.DataFrame({"c": ["yes", "no", None]}), Features(boolean=("c",)))
    assert features["c"].dtype == np.float64
    read = frame_as_known(features, known_categories(pipeline))
    assert read["c"].tolist()[:2] == words[::-1]
    assert pd.isna(read["c"].iloc[2])
