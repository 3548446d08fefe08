"""A truth is understood however it is held, or refused by name; nothing is folded into the other class."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import RAW, merge

from perennial.definition import ModelDefinition
from perennial.definition.values import class_word
from perennial.errors import DataError
from perennial.model.truth import ZERO_ONE, Classes, code_one, code_truth, learn_classes, standing


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


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["setosa", "virginica", "versicolor"] * 5, ("setosa", "versicolor", "virginica")),
        ([10, 9, 2] * 5 + [None], ("2", "9", "10")),
        (["b"] * 60 + ["a"] * 40 + ["c"] * 129 + ["slip"], ("a", "b", "c")),  # a rarity is no class
    ],
)
def test_many_classes_are_learnt_in_order(values: Any, names: tuple[str, ...]) -> None:
    learnt = learn_classes(pd.Series(values, dtype=object), define())
    assert learnt is not None
    assert learnt[0] == Classes(*names)
    assert coded(list(names), learnt[0]) == list(range(len(names)))


def test_of_many_classes_nothing_is_folded_or_shortened() -> None:
    classes = Classes("0", "1", "2")
    assert [classes.code(value) for value in (0, 2.0, "1", True, 3, None)] == [0, 2, 1, None, None, None]
    truth, refused = code_truth(pd.Series(["0", "3", True], dtype=object), define(), classes)
    assert np.isnan(truth[1:]).all()
    assert "'3' is none of the 3 classes: '0', '1', '2'" in refused[1]
    assert classes.means(Classes("0", "1", "2"))
    assert not classes.means(Classes("1", "0", "2"))
    assert not ZERO_ONE.means(classes)
    assert not classes.means(ZERO_ONE)
    with pytest.raises(ValueError, match="too many values"):
        _ = classes.positive


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": ["a", "b", "c"], "positive": "a"}, "of 3 classes none is the positive one"),
        ({"classes": ["a", "b", "c"], "serving": {"threshold": 0.5}}, "serving.threshold belongs to two classes"),
        ({"classes": ["a", "b", "a"]}, "classes: a is named twice"),
        ({"classes": ["a"]}, "a target has two to 200, not 1"),
    ],
)
def test_what_many_classes_can_not_mean_is_refused_by_name(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        define(**changes)


def test_a_threshold_is_refused_where_many_classes_are_learnt() -> None:
    with pytest.raises(DataError, match=r"even has 3 classes: .*serving\.threshold is for two"):
        learn_classes(pd.Series(["a", "b", "c"] * 5), define(serving={"threshold": 0.4}))


def test_a_rare_third_value_is_left_to_be_refused_by_row() -> None:
    values = pd.Series(["no"] * 60 + ["yes"] * 38 + ["unknown", "Yes"])
    learnt = learn_classes(values, define(positive="yes"))
    assert learnt is not None
    assert learnt[0] == YES_NO


@pytest.mark.parametrize(
    ("values", "positive", "problem"),
    [
        (["no", "yes"], "Yes", r"positive: 'Yes' never occurs in even, which has 'no' \(50.0%\), 'yes' \(50.0%\)"),
        (["a"] * 12 + ["b"] * 7 + ["c"], None, "even has 3 values: .* Whether 'c' is a class is not clear"),
        ([f"value {number}" for number in range(300)], None, "even has 300 values, too many and too rare each"),
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
        ({"classes": ["a"]}, "a target has two to 200, not 1"),
        ({"classes": [str(number) for number in range(201)]}, "a target has two to 200, not 201"),
        ({"classes": ["a", "b"], "positive": "c"}, "'c' is none of classes: a, b"),
    ],
)
def test_what_a_definition_may_say_of_classes(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        define(**more)


def test_numbers_name_classes_too() -> None:
    assert define(classes=[1, 2.0]).classes == ("1", "2")
    assert define(positive=2).positive == "2"


def regression() -> ModelDefinition:
    raw = merge(RAW, {"task": "regression", "training": {"tuning": {"metric": None}}})
    return ModelDefinition.model_validate(raw | {"gate": {}})


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (1.5, 1.5), ("1.5", 1.5), (" 1.5 ", 1.5), (Decimal("1.5"), 1.5), (2, 2.0), (np.float32(1.5), 1.5),
        (float("inf"), None), ("-inf", None), (True, None), ("true", None), ("1_000", None), ("0x10", None),
        (10**400, None), (b"1", None), ([1], None), ({"a": 1}, None), (pd.Timestamp("2024-01-01"), None),
        (pd.Timedelta(1, unit="s"), None), (1j, None), ("nan", None),
    ],
)  # fmt: skip
def test_a_number_is_the_same_in_a_column_and_alone(cell: Any, number: float | None) -> None:
    columns = [pd.Series([cell, 1.5], dtype=object)]
    columns += [] if isinstance(cell, int) and cell > 2 else [pd.Series([cell])]  # pandas holds no such integer
    for values in columns:
        truth, refused = code_truth(values, regression(), None)
        assert truth[0] == number or (number is None and np.isnan(truth[0]))
        assert list(refused) == ([0] if number is None else [])
    assert code_one(cell, "regression", None) == number


@pytest.mark.parametrize("kind", ["bool", "boolean", "datetime64[us]", "timedelta64[us]", "complex128"])
def test_columns_that_hold_no_numbers_are_refused_row_by_row(kind: str) -> None:
    truth, refused = code_truth(pd.Series([0, 1]).astype(kind), regression(), None)
    assert np.isnan(truth).all()
    assert sorted(refused) == [0, 1]


def test_cells_of_two_types_are_not_taken_for_one_another() -> None:
    mixed = pd.Series([1, True, 2.0, "2", 2, False, [2], b"2", Decimal("Infinity"), 2.0**53], dtype=object)
    truth, refused = code_truth(mixed, define(), ONE_TWO)
    np.testing.assert_array_equal(truth, [0, np.nan, 1, 1, 1, *[np.nan] * 5])
    assert sorted(refused) == [1, 5, 6, 7, 8, 9]


def test_floats_keep_the_precision_that_held_them() -> None:
    assert coded(np.array([0.1, 0.9], dtype=np.float32), Classes("0.1", "0.9")) == [0, 1]
    assert coded([Decimal("0.10"), 0.9], Classes("0.1", "0.9")) == [0, 1]
    huge = Classes("9007199254740992", "9007199254740993")
    truth, refused = code_truth(pd.Series([9007199254740993.0, np.nan]), define(), huge)
    assert np.isnan(truth).all()
    assert list(refused) == [0]  # a float of that size may have been either
    assert coded([9007199254740992, 9007199254740993], huge) == [0, 1]


@pytest.mark.parametrize(
    "values",
    [[True, False], ["True", "False"], ["TRUE", "false", None], pd.array([True, None, False], dtype="boolean")],
)
def test_truth_values_are_the_same_classes_however_they_are_written(values: Any) -> None:
    learnt = learn_classes(pd.Series(values), define(positive="True"))
    assert learnt is not None
    assert learnt[0] == Classes("false", "true")
    assert learn_classes(pd.Series(["TRUE"]), define()) == (Classes("false", "true"), {"true": 1.0})


def test_two_codings_mean_the_same_or_not() -> None:
    assert ZERO_ONE.means(Classes("false", "true"))
    assert Classes("false", "true").means(ZERO_ONE)
    assert not YES_NO.means(Classes("yes", "no"))
    assert not YES_NO.means(Classes("no", "unknown"))


WRITINGS: dict[str, Any] = {
    "int": int, "float": float, "text": str, "text of a float": lambda value: str(float(value)),
    "decimal": Decimal, "decimal with zeros": lambda value: Decimal(f"{value}.00"), "numpy": np.int64,
    "single": np.float32,
}  # fmt: skip


@given(
    pair=st.lists(st.integers(-(2**23), 2**23), min_size=2, max_size=2, unique=True),
    said=st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(WRITINGS))), min_size=1, max_size=8),
)
def test_whole_numbers_are_one_class_in_every_writing(pair: list[int], said: list[tuple[bool, str]]) -> None:
    classes = Classes(str(pair[0]), str(pair[1]))
    cells = [WRITINGS[how](pair[int(positive)]) for positive, how in said]
    expected = [float(positive) for positive, _ in said]
    assert coded(pd.Series(cells, dtype=object), classes) == expected
    assert [code_one(cell, "classification", classes) for cell in cells] == expected
    for how in {how for _, how in said}:  # and a whole column of one kind, with a gap
        column = pd.Series([*(WRITINGS[how](pair[int(positive)]) for positive, _ in said), None])
        truth, refused = code_truth(column, define(), classes)
        np.testing.assert_array_equal(truth, [*expected, np.nan])
        assert refused == {}


@given(
    st.lists(st.text(min_size=1, max_size=6).map(str.strip).filter(bool), min_size=3, max_size=3, unique_by=str.lower),
    st.sampled_from([lambda text: text, lambda text: f" {text} "]),
)
def test_a_text_is_its_class_and_no_other(words: list[str], how: Any) -> None:
    classes = Classes(class_word(words[0]), class_word(words[1]))
    if len({*classes.names, class_word(words[2])}) < 3:
        return
    truth, refused = code_truth(pd.Series([how(word) for word in words]), define(), classes)
    np.testing.assert_array_equal(truth[:2], [0, 1])
    shorthand = class_word(words[2]) in ("0", "1", "true", "false")
    assert (list(refused) == [2]) is bool(np.isnan(truth[2]))
    assert np.isnan(truth[2]) or shorthand


def test_ids_whose_truth_stands() -> None:
    at = pd.date_range("2024-01-01", periods=5, tz="UTC").as_unit("us")
    labels = pa.table(
        {"id": ["a", "b", "a", "c", "b"], "truth": [1.0, 0.0, None, 1.0, 1.0], "labelled_at": at[[0, 1, 2, 3, 4]]}
    )
    assert sorted(standing(labels).to_pylist()) == ["b", "c"]
    again = pa.concat_tables([labels, pa.table({"id": ["a"], "truth": [0.0], "labelled_at": at[[4]]})])
    assert sorted(standing(again).to_pylist()) == ["a", "b", "c"]
    assert standing(labels.slice(0, 2)).to_pylist() == ["a", "b"]
