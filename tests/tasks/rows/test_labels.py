"""Late truth: added once, corrected with a date, never of the wrong kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import RAW, START, add, day, define, merge, rows

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import Classes
from perennial.state.store import Store
from perennial.workspace import Workspace
from tasks.rows.classes import known_coding
from tasks.rows.frames import known_labels
from tasks.rows.labels import LabelReceipt, add_labels, label_frame

DIGITS = ModelDefinition.model_validate(RAW)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "tables"))


def label(store: Store, truths: dict[str, Any], at: datetime) -> LabelReceipt:
    frame = pd.DataFrame({"row": list(truths), "even": list(truths.values())})
    return replace(label_frame(store, DIGITS, frame, as_of=at, author="test"), unknown=(), told=())


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


def test_of_two_at_one_moment_the_last_in_the_file_counts(store: Store) -> None:
    frame = pd.DataFrame({"row": ["a", "a"], "even": [1, 0]})
    receipt = label_frame(store, DIGITS, frame, as_of=day(1), author="x")
    assert (receipt.new, receipt.corrected, receipt.unknown) == (1, 1, ("a",))
    assert receipt.told == ("the classes of even are '0' and '1' (positive): '1' (50.0%), '0' (50.0%)",)
    assert truths(store, day(1) + timedelta(milliseconds=1)) == {"a": 0}


def test_of_corrections_in_one_file_the_newest_counts_and_all_are_kept(store: Store) -> None:
    moments = ["2024-05-03", "2024-05-02", "2024-05-01"]
    frame = pd.DataFrame({"row": ["r1"] * 3, "even": [1, 0, 1], "labelled_at": moments})
    receipt = label_frame(store, DIGITS, frame, as_of=day(300), author="x")
    assert (receipt.new, receipt.corrected) == (1, 2)
    assert [truths(store, datetime.fromisoformat(f"{at}T12:00:00Z"))["r1"] for at in moments] == [1, 0, 1]
    assert label_frame(store, DIGITS, frame, as_of=day(301), author="x").unchanged == 3
    assert len(store.read("digits", "labels")) == 3


def test_two_people_within_a_second_both_stay(store: Store) -> None:
    for number, author in enumerate(("ada", "ben", "cleo")):
        frame = pd.DataFrame({"row": ["a"], "even": [min(number, 1)]})
        label_frame(store, DIGITS, frame, as_of=day(1) + timedelta(seconds=number / 4), author=author, witness=True)
    assert store.frame("digits", "labels").sort_values("labelled_at")["author"].tolist() == ["ada", "ben", "cleo"]


def test_a_truth_can_be_taken_back_and_given_again(store: Store) -> None:
    label(store, {"a": 1, "b": 0}, day(1))
    frame = pd.DataFrame({"row": ["a", "c"], "even": [None, None], "take_back": ["true", "true"]})
    receipt = label_frame(store, DIGITS, frame, as_of=day(2), author="ada")
    assert (receipt.taken_back, receipt.unchanged) == (1, 1)
    assert truths(store, day(1)) == {"a": 1, "b": 0}
    assert truths(store, day(2)) == {"b": 0}
    assert label(store, {"a": 1}, day(3)).corrected == 1
    assert truths(store, day(3)) == {"a": 1, "b": 0}


def test_what_can_not_be_is_refused_by_row_and_the_rest_goes_in(store: Store) -> None:
    label(store, {"x": 1, "y": 0}, day(1))
    frame = pd.DataFrame(
        {
            "row": ["a", "b", None, "d", "e"],
            "even": [1, 7, 0, 1, 0],
            "labelled_at": ["2024-01-02", "2024-01-02", "2024-01-02", "2034-01-01", "now"],
        }
    )
    receipt = label_frame(store, DIGITS, frame, as_of=day(9), author="x")
    assert receipt.new == 1
    reasons = dict(receipt.refused)
    assert sorted(reasons) == [1, 2, 3, 4]
    assert "neither '0' nor '1'" in reasons[1]
    assert "no id" in reasons[2]
    assert "lies in the future" in reasons[3]
    assert "'now' is no ISO 8601 time" in reasons[4]


def test_a_truth_before_its_event_is_refused(workspace: Workspace) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(2, 3).drop(columns="even"), as_of=day(3))
    frame = pd.DataFrame({"row": rows(2, 3)["row"].head(2), "even": [1, 0]}).assign(labelled_at=["2024-01-01", day(3)])
    frame["labelled_at"] = frame["labelled_at"].astype("str")
    receipt = label_frame(workspace.store, definition, frame, as_of=day(4), author="x")
    assert (receipt.new, len(receipt.refused)) == (1, 1)
    assert "lies before its event" in receipt.refused[0][1]


def test_a_turned_positive_class_turns_the_labels(store: Store) -> None:
    frame = pd.DataFrame({"row": ["a", "b"], "even": ["yes", "no"]})
    label_frame(store, DIGITS, frame, as_of=day(1), author="x")
    assert truths(store, day(1)) == {"a": 1, "b": 0}
    turned = ModelDefinition.model_validate(merge(RAW, {"positive": "no"}))
    label_frame(store, turned, frame, as_of=day(2), author="x")
    assert truths(store, day(2)) == {"a": 0, "b": 1}
    assert known_coding(store, turned).classes == Classes("yes", "no")
    wrong = ModelDefinition.model_validate(merge(RAW, {"positive": "maybe"}))
    with pytest.raises(DataError, match="'maybe' is no class of even, which has 'yes' and 'no'"):
        label_frame(store, wrong, frame, as_of=day(3), author="x")


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
        ({"row": [None], "even": [1]}, "no label can be taken; row 0: row: the row has no id. Correct"),
        ({"row": ["a"], "even": ["yes"]}, "even has one class so far, 'yes': the other can't be known. Name both"),
        ({"row": ["a"], "even": [1], "take_back": ["perhaps"]}, "take_back: row 0 has 'perhaps'. Write true, false"),
    ],
)  # fmt: skip
def test_what_is_no_label(store: Store, frame: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        label_frame(store, DIGITS, pd.DataFrame(frame), as_of=day(1), author="x")
    assert str(caught.value).startswith(problem)
    assert store.version("digits", "labels") is None
