"""A truth is understood however it is held, or refused by name; nothing is folded into the other class."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import RAW, merge

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import ZERO_ONE, Classes, code_one, code_truth, learn_classes


def define(**more: Any) -> ModelDefinition:
    return ModelDefinition.model_validate(merge(RAW, more))


def coded(values: Any, classes: Classes) -> list[float]:
    truth, refused = code_truth(pd.Series(values), define(), classes)
    assert np.isnan(truth[list(refused)]).all()
    return [round(value, 3) for value in truth.tolist()]


ONE_TWO, YES_NO = Classes("1", "2"), Classes("no", "yes")


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 2], [1.0, 2.0, 2.0], ["1", "2", "2"], ["1.0", "2.0", "2"], [Decimal("1.00"), Decimal(2), Decimal("2.0")],
        np.array([1, 2, 2], dtype=np.float32), pd.array([1, 2, 2], dtype="Int64"), pd.Categorical(["1", "2", "2"]),
    ],
)  # fmt: skip
def test_a_class_is_the_same_however_it_is_held(values: Any) -> None:
    assert coded(values, ONE_TWO) == [0, 1, 1]


def test_a_gap_makes_no_other_class() -> None:
    truth, refused = code_truth(pd.Series([1.0, np.nan, 2.0]), define(), ONE_TWO)
    np.testing.assert_array_equal(truth, [0, np.nan, 1])
    assert refused == {}


@pytest.mark.parametrize(
    ("value", "classes", "code"),
    [
        (1, YES_NO, 1.0), (True, YES_NO, 1.0), ("true", YES_NO, 1.0), (0, YES_NO, 0.0), (False, YES_NO, 0.0),
        ("yes", YES_NO, 1.0), ("Yes", YES_NO, None), ("banana", YES_NO, None), (2, YES_NO, None),
        (True, ONE_TWO, None), (0, ONE_TWO, None), (1, ONE_TWO, 0.0), (True, ZERO_ONE, 1.0), ("False", ZERO_ONE, 0.0),
        (True, Classes("1", "0"), None), (1, Classes("false", "true"), 1.0), ("TRUE", Classes("false", "true"), 1.0),
        (False, Classes("false", "true"), 0.0), (None, YES_NO, None), ("", YES_NO, None), ([], YES_NO, None),
        (1, Classes("-1", "1"), 1.0), (0, Classes("-1", "1"), None),
    ],
)  # fmt: skip
def test_shorthand_is_understood_where_it_can_only_mean_one(value: Any, classes: Classes, code: float | None) -> None:
    assert code_one(value, "classification", classes) == code


@given(st.sampled_from(["no", "yes", "1", "2", "x"]), st.sampled_from(["Yes", "maybe", "3", "2.5", "0x1", "nein"]))
def test_what_is_no_class_is_never_folded(first: str, other: str) -> None:
    classes = Classes(first, "zebra")
    truth, refused = code_truth(pd.Series([first, other, "zebra"]), define(), classes)
    assert truth[0] == 0
    assert np.isnan(truth[1])
    assert truth[2] == 1
    assert list(refused) == [1]
    assert repr(other) in refused[1]


def test_two_classes_are_learnt_and_told() -> None:
    values = pd.Series(["no"] * 6 + ["yes"] * 3 + [None])
    assert learn_classes(values, define()) == (YES_NO, {"no": pytest.approx(2 / 3), "yes": pytest.approx(1 / 3)})
    assert learn_classes(values, define(positive="no")) == (
        Classes("yes", "no"),
        pytest.approx({"no": 2 / 3, "yes": 1 / 3}),
    )
    assert learn_classes(pd.Series([2.0, 1.0, np.nan]), define())[0] == ONE_TWO  # type: ignore[index]
    assert learn_classes(pd.Series([0, 0]), define()) == (ZERO_ONE, {"0": 1.0})
    assert learn_classes(pd.Series([None, None]), define()) is None


def test_a_rare_third_value_is_left_to_be_refused_by_row() -> None:
    values = pd.Series(["no"] * 60 + ["yes"] * 38 + ["unknown", "Yes"])
    learnt = learn_classes(values, define(positive="yes"))
    assert learnt is not None
    assert learnt[0] == YES_NO


@pytest.mark.parametrize(
    ("values", "positive", "problem"),
    [
        (["no", "yes"], "Yes", r"positive: 'Yes' never occurs in even, which has 'no' \(50.0%\), 'yes' \(50.0%\)"),
        (["a", "b", "c"] * 5, None, "even has 3 values and which two are the classes is not clear"),
        (["setosa", "virginica", "versicolor"], "setosa", "which two are the classes is not clear"),
        (["late"], None, "even has one class so far, 'late': the other can't be known"),
    ],
)
def test_classes_that_are_not_clear_are_refused_with_a_remedy(values: Any, positive: str | None, problem: str) -> None:
    more = {} if positive is None else {"positive": positive}
    with pytest.raises(DataError, match=problem) as caught:
        learn_classes(pd.Series(values), define(**more))
    assert "top level of the definition" in str(caught.value.remedy)


def test_a_regressions_truth_is_a_finite_number() -> None:
    raw = merge(RAW, {"task": "regression", "training": {"tuning": {"metric": None}}})
    definition = ModelDefinition.model_validate(raw | {"gate": {}})
    truth, refused = code_truth(pd.Series(["1.5", None, "inf", "x", ""], dtype=object), definition, None)
    np.testing.assert_array_equal(truth, [1.5, np.nan, np.nan, np.nan, np.nan])
    assert sorted(refused) == [2, 3]
    assert code_one(True, "regression", None) is None
    assert code_one(float("inf"), "regression", None) is None


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"positive": True}, "quote it"),
        ({"classes": [False, True]}, "quote it"),
        ({"classes": ["a"]}, "a target has two, not 1"),
        ({"classes": ["a", "b", "c"]}, "a target has two, not 3"),
        ({"classes": ["a", "b"], "positive": "c"}, "'c' is none of classes: a, b"),
    ],
)
def test_what_a_definition_may_say_of_classes(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        define(**more)


def test_numbers_name_classes_too() -> None:
    assert define(classes=[1, 2.0]).classes == ("1", "2")
    assert define(positive=2).positive == "2"
