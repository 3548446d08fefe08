"""Late truth: added once, corrected with a date, never of the wrong kind."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import RAW, START, day, merge

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.state.store import Store
from tasks.rows.frames import known_labels
from tasks.rows.labels import LabelReceipt, add_labels, encode_truth, label_frame

DIGITS = ModelDefinition.model_validate(RAW)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "tables"))


def label(store: Store, truths: dict[str, Any], at: datetime) -> LabelReceipt:
    frame = pd.DataFrame({"row": list(truths), "even": list(truths.values())})
    return label_frame(store, DIGITS, frame, as_of=at, author="test")


def truths(store: Store, at: datetime) -> dict[str, float]:
    frame = known_labels(store, "digits", as_of=at)
    return dict(zip(frame["id"], frame["truth"], strict=True))


def test_new_corrected_unchanged_and_missing(store: Store) -> None:
    assert label(store, {"a": 1, "b": 0, "c": None}, day(1)) == LabelReceipt(2, 0, 0, 1)
    assert label(store, {"a": 1, "b": 1, "c": 0}, day(2)) == LabelReceipt(1, 1, 1, 0)
    assert truths(store, day(1)) == {"a": 1, "b": 0}
    assert truths(store, day(2)) == {"a": 1, "b": 1, "c": 0}
    assert truths(store, START) == {}


def test_the_same_again_changes_nothing(store: Store) -> None:
    label(store, {"a": 1, "b": 0}, day(1))
    version = store.version("digits", "labels")
    assert label(store, {"a": 1, "b": 0}, day(5)) == LabelReceipt(0, 0, 2, 0)
    assert store.version("digits", "labels") == version


def test_there_and_back(store: Store) -> None:
    for number, truth in enumerate((1, 0, 1)):
        label(store, {"a": truth}, day(number))
    assert [truths(store, day(number))["a"] for number in range(3)] == [1, 0, 1]


def test_a_correction_at_the_very_moment_wins(store: Store) -> None:
    for truth in (1, 0, 1):
        label(store, {"a": truth}, day(1))
        assert truths(store, day(1) + timedelta(milliseconds=1)) == {"a": truth}
    assert label(store, {"a": 1}, day(1)) == LabelReceipt(0, 0, 1, 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6))
def test_the_last_word_counts(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, float]]) -> None:
    store = Store(str(tmp_path_factory.mktemp("tables")))
    for number, (name, truth) in enumerate(said):
        label(store, {name: truth}, day(number))
    for number in range(len(said)):
        assert truths(store, day(number)) == dict(said[: number + 1])


def test_each_row_may_have_its_own_moment(store: Store) -> None:
    frame = pd.DataFrame({"row": ["a", "b"], "even": [1, 0], "labelled_at": ["2024-01-02", "2024-01-14T12:00:00Z"]})
    label_frame(store, DIGITS, frame, as_of=day(9), author="ada")
    assert truths(store, day(1)) == {"a": 1}
    assert truths(store, day(2.5)) == {"a": 1, "b": 0}
    assert store.frame("digits", "labels")["author"].unique().tolist() == ["ada"]


def test_the_last_of_two_in_one_file_counts(store: Store) -> None:
    frame = pd.DataFrame({"row": ["a", "a"], "even": [1, 0]})
    assert label_frame(store, DIGITS, frame, as_of=day(1), author="x") == LabelReceipt(1, 0, 0, 0)
    assert truths(store, day(1)) == {"a": 0}


def test_a_key_makes_it_happen_once(store: Store) -> None:
    for _ in range(2):
        add_labels(
            store, DIGITS, pd.Series(["a"]), np.array([1.0]), labelled_at=day(1), author="x", key="batch",
        )  # fmt: skip
    assert len(store.read("digits", "labels")) == 1


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ({"row": ["a"]}, "the labels lack even. Give the columns row and even."),
        ({"row": ["a", None], "even": [1, 0]}, "column row: row 1 has no id. Every row needs its id."),
        ({"row": ["a", "b"], "even": [1, 2]}, "even: row 1 has np.int64(2), which is not 0 or 1. Name the positive"),
        ({"row": ["a"], "even": ["yes"]}, "even: row 0 has 'yes', which is not 0 or 1. Name the positive class in the"),
        (
            {"row": ["a", "b"], "even": [1, 0], "labelled_at": ["2024-01-01", None]},
            "column labelled_at: row 1 has no time.",
        ),
    ],
)  # fmt: skip
def test_what_is_no_label(store: Store, frame: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        label_frame(store, DIGITS, pd.DataFrame(frame), as_of=day(1), author="x")
    assert str(caught.value).startswith(problem)
    assert store.version("digits", "labels") is None


def test_a_named_positive_class() -> None:
    definition = ModelDefinition.model_validate(merge(RAW, {"positive": "yes"}))
    encoded = encode_truth(pd.Series(["yes", "no", None]), definition)
    np.testing.assert_array_equal(encoded, [1.0, 0.0, np.nan])


def test_regression_takes_finite_numbers() -> None:
    raw = merge(RAW, {"task": "regression", "training": {"tuning": {"metric": None}}})
    definition = ModelDefinition.model_validate(raw | {"gate": {}})
    np.testing.assert_array_equal(encode_truth(pd.Series(["1.5", None]), definition), [1.5, np.nan])
    with pytest.raises(DataError, match=r"even: row 1 has np.float64\(inf\), which is not a finite number. Correct or"):
        encode_truth(pd.Series([1.0, np.inf]), definition)
