"""Tests of fitting one challenger, its target, and what identifies a training."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from deployments.flights_source import read_table
from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.features import feature_frame
from tasks.learning.fitting import (
    data_digest,
    encode_target,
    environment_fingerprint,
    fit,
    predict_score,
    target_classes,
    training_key,
)
from tasks.rows.split import split_by_time

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)


def definition(task: str = "classification", positive: str | None = None, **training: Any) -> ModelDefinition:
    return ModelDefinition.model_validate(
        {
            "name": "m",
            "task": task,
            "positive": positive,
            "data": {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y"},
            "features": {"numeric": ["x"], "categorical": ["c"]},
            "training": {"parameters": {"max_iter": 10}, **training},
        }
    )


def rows(count: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=count)
    times = pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", unit="us")
    label = np.where(x + rng.normal(size=count) * 0.5 > 0, "yes", "no")
    return pd.DataFrame({"time": times, "x": x, "c": rng.choice(["k", "l"], size=count), "y": label})


def test_a_fit_and_what_it_records() -> None:
    model, frame = definition(), rows()
    before = frame.copy(deep=True)
    fitted = fit(model, frame[:200], {"learning_rate": 0.3}, seed=4)
    pd.testing.assert_frame_equal(frame, before)
    assert fitted.classes == ("no", "yes")
    assert fitted.positive == "yes"
    assert fitted.parameters == {"learning_rate": 0.3, "max_iter": 10}
    assert fitted.trained_rows == 200
    assert fitted.trained_from == datetime(2024, 1, 1, tzinfo=UTC)
    assert fitted.trained_until == datetime(2024, 1, 9, 7, tzinfo=UTC)
    assert fitted.baseline == (frame["y"][:200] == "yes").mean()
    assert fitted.seconds > 0
    score = predict_score(fitted.pipeline, feature_frame(frame[200:], model.features), "classification")
    assert score.dtype == np.float64
    assert roc_auc_score(frame["y"][200:] == "yes", score) > 0.8


def test_the_positive_class_may_be_the_smaller_one() -> None:
    model, frame = definition(positive="no"), rows()
    fitted = fit(model, frame, {}, 0)
    assert fitted.classes == ("yes", "no")
    score = predict_score(fitted.pipeline, feature_frame(frame, model.features), "classification")
    assert roc_auc_score(frame["y"] == "no", score) > 0.8


def test_a_regression_fit() -> None:
    model = definition("regression")
    frame = rows().assign(y=lambda data: 3 * data["x"])
    fitted = fit(model, frame, {}, 0)
    assert (fitted.classes, fitted.positive) == ((), None)
    assert fitted.baseline == pytest.approx(frame["y"].mean())
    score = predict_score(fitted.pipeline, feature_frame(frame, model.features), "regression")
    assert np.corrcoef(score, frame["y"])[0, 1] > 0.8


def test_no_rows_give_no_scores() -> None:
    model, frame = definition(), rows()
    fitted = fit(model, frame, {}, 0)
    assert predict_score(fitted.pipeline, feature_frame(frame[:0], model.features), "classification").shape == (0,)


def test_a_refused_value_of_a_parameter_is_a_data_error_with_its_reason() -> None:
    with pytest.raises(DataError, match="learning_rate"):
        fit(definition(), rows(), {"learning_rate": -1.0}, 0)


def test_scores_that_are_not_finite_are_refused() -> None:
    class Broken:
        def predict(self, features: Any) -> np.ndarray:
            return np.array([1.0, np.nan])

    with pytest.raises(DataError, match="1 of them not finite"):
        predict_score(Broken(), np.zeros((2, 1)), "regression")


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        ([0, 1, 1], None, [0, 1, 1]),
        ([0.0, 1.0, 1.0], None, [0, 1, 1]),
        ([True, False, True], None, [1, 0, 1]),
        (["yes", "no", "yes"], None, [1, 0, 1]),
        (["yes", "no", "yes"], "no", [0, 1, 0]),
        ([10, 9, 9], None, [1, 0, 0]),
        ([2, 1, 2], "1", [0, 1, 0]),
        ([True, False, True], "false", [0, 1, 0]),
        ([1.0, 0.0, 1.0], "true", [1, 0, 1]),
    ],
)
def test_targets_become_zero_and_one(values: list[Any], positive: str | None, expected: list[float]) -> None:
    encoded = encode_target(pd.Series(values, name="y"), definition(positive=positive))
    assert encoded.dtype == np.float64
    assert encoded.tolist() == expected


def test_with_known_classes_a_window_of_one_class_reads_right() -> None:
    assert encode_target(pd.Series(["no", "no"]), definition(), ("no", "yes")).tolist() == [0, 0]
    assert encode_target(pd.Series([1.0, 1.0]), definition(), ("False", "True")).tolist() == [1, 1]
    with pytest.raises(DataError, match=r"row 1.*'maybe' is neither 'no' nor 'yes'"):
        encode_target(pd.Series(["no", "maybe"]), definition(), ("no", "yes"))


@pytest.mark.parametrize(
    ("values", "task", "positive", "words"),
    [
        (["a", "b", "c"], "classification", None, "3 classes: a, b, c"),
        (["a", "a"], "classification", None, "1 classes: a"),
        (["a", "b"], "classification", "z", "'z' is no class .*: a, b"),
        (["a", None], "classification", None, "row 1.*missing"),
        ([1.0, np.inf], "regression", None, "row 1.*no finite number"),
        ([1.0, "x"], "regression", None, "row 1.*'x' is no finite number"),
        ([1.0, np.nan], "regression", None, "row 1.*missing"),
    ],
)
def test_wrong_targets_are_named(values: list[Any], task: str, positive: str | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        encode_target(pd.Series(values, name="y"), definition(task, positive))


def test_numbers_are_ordered_as_numbers() -> None:
    assert target_classes(pd.Series([9, 10]), definition()) == ("9", "10")


def cells() -> pd.DataFrame:
    frame = rows(40)
    return frame.assign(n=np.where(np.arange(40) % 5 == 0, np.nan, 1.0), b=[b"x"] * 40, k=np.arange(40))


@settings(deadline=None, max_examples=60)
@given(row=st.integers(0, 39), column=st.sampled_from(["time", "x", "c", "y", "n", "b", "k"]))
def test_the_digest_covers_every_cell(row: int, column: str) -> None:
    frame = cells()
    other: dict[str, Any] = {"time": pd.Timestamp("1999-01-01", tz="UTC"), "c": "z", "y": "z", "b": b"y", "k": 99}
    changed = frame.copy()
    changed.loc[row, column] = other.get(column, 7.25)
    assert changed.dtypes.equals(frame.dtypes)
    assert data_digest(changed) != data_digest(frame)


def test_the_digest_knows_order_from_content() -> None:
    frame = cells()
    assert data_digest(frame.sample(frac=1, random_state=0)) == data_digest(frame)
    assert data_digest(frame[frame.columns[::-1]]) == data_digest(frame)
    assert data_digest(frame[:-1]) != data_digest(frame)
    assert data_digest(frame.rename(columns={"x": "z"})) != data_digest(frame)
    assert data_digest(pd.concat([frame, frame[:1]])) != data_digest(pd.concat([frame, frame[1:2]]))
    swapped = frame.assign(x=frame["n"], n=frame["x"])
    assert data_digest(swapped) != data_digest(frame)
    assert data_digest(pd.DataFrame()) == data_digest(pd.DataFrame())
    # Compared with the text "nan", missing is something else.
    assert data_digest(pd.DataFrame({"c": [None]}, dtype="str")) != data_digest(
        pd.DataFrame({"c": ["nan"]}, dtype="str")
    )


def test_the_training_key_covers_what_makes_a_training(tmp_path: Path) -> None:
    model = definition()
    key = training_key(model, "digest", AS_OF, 0)
    assert key == training_key(model, "digest", AS_OF.astimezone(), 0)
    later = datetime(2024, 5, 2, tzinfo=UTC)
    others = [
        training_key(definition(seed=1), "digest", AS_OF, 0),
        training_key(model, "other", AS_OF, 0),
        training_key(model, "digest", later, 0),
        training_key(model, "digest", AS_OF, 1),
    ]
    file = tmp_path / "own.py"
    custom = definition(estimator="own.py:build").model_copy(update={"path": tmp_path / "m.yaml"})
    for text in ("def build(): pass\n", "def build(): return 1\n"):
        file.write_text(text)
        others.append(training_key(custom, "digest", AS_OF, 0))
    assert len({key, *others}) == 7


def test_the_environment_is_the_same_twice_and_names_versions() -> None:
    fingerprint = environment_fingerprint()
    assert fingerprint == environment_fingerprint()
    assert {"python", "scikit-learn", "numpy", "pandas", "perennial", "platform", "hash"} <= set(fingerprint)
    assert len(fingerprint["hash"]) == 16


def flights(months: int) -> pd.DataFrame:
    keys = ["origin", "time_hour"]
    weather = read_table("weather.csv")[[*keys, "temp", "wind_speed", "precip", "pressure", "visib"]]
    rows = read_table("flights.csv.zip").query("month <= @months").merge(weather, on=keys, how="left")
    rows = rows[::3].reset_index(drop=True)
    late = (rows["arr_delay"] > 15).astype(float).where(rows["arr_delay"].notna())
    minutes = pd.to_timedelta(rows["minute"], unit="m")
    time = (pd.to_datetime(rows["time_hour"], utc=True) + minutes).astype("datetime64[us, UTC]")
    return rows.assign(y=late, time=time)


def test_it_predicts_delays_of_real_flights_in_time_order() -> None:
    model = ModelDefinition.model_validate(
        {
            "name": "m",
            "task": "classification",
            "data": {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y", "label_delay": "1d"},
            "features": {
                "numeric": ["hour", "distance", "temp", "wind_speed", "precip", "pressure", "visib"],
                "categorical": ["carrier", "origin", "dest"],
            },
        }
    )
    frame = flights(2)
    split = split_by_time(frame, model, datetime(2013, 3, 1, tzinfo=UTC))
    fitted = fit(model, frame.iloc[split.learning], {"max_iter": 60, "max_leaf_nodes": 15}, seed=0)
    assert fitted.trained_until < split.holdout_from
    holdout = frame.iloc[split.holdout]
    score = predict_score(fitted.pipeline, feature_frame(holdout, model.features), "classification")
    truth = encode_target(holdout["y"], model, fitted.classes)
    assert roc_auc_score(truth, score) > 0.6


def test_an_image_that_cannot_be_read_any_more_is_missing_to_a_training() -> None:
    """One broken file among the kept rows stops no training: the fit is that of the row without it."""
    from io import BytesIO

    from PIL import Image

    from perennial.definition import ModelDefinition
    from tasks.learning.fitting import fit

    def png(shade: int) -> bytes:
        made = BytesIO()
        Image.new("L", (8, 8), shade).save(made, "PNG")
        return made.getvalue()

    definition = ModelDefinition.model_validate({
        "name": "shades", "task": "regression", "features": {"image": ["photo"]},
        "data": {"source": {"parquet": "rows.parquet"}, "id": "id", "time": "time", "target": "y"},
        "training": {"estimator": "linear", "tuning": {"trials": 0}},
    })  # fmt: skip
    shades = np.arange(40) * 5
    times = pd.date_range("2024-01-01", periods=40, freq="D", tz="UTC")
    frame = pd.DataFrame({"time": times, "y": shades / 10, "photo": [png(int(shade)) for shade in shades]})
    answers = []
    for value in (b"broken", None):
        photos = frame["photo"].copy()
        photos.iloc[7] = value
        fitted = fit(definition, frame.assign(photo=photos), {}, 0)
        answers.append(fitted.pipeline.predict(frame[["photo"]]))
    assert np.allclose(answers[0], answers[1])
