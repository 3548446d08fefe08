"""Late truth: added once, corrected with a date, never of the wrong kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import RAW, START, add, day, define, merge, rows

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError
from perennial.model.truth import Classes
from perennial.state.store import Store
from perennial.workspace import Workspace
from tasks.rows.classes import known_coding, require_settled, settle
from tasks.rows.files import read_file
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


def words(store: Store, definition: ModelDefinition, at: datetime, **truths: str) -> LabelReceipt:
    frame = pd.DataFrame({"row": list(truths), "even": list(truths.values())})
    return label_frame(store, definition, frame, as_of=at, author="x")


def declare(*classes: str) -> ModelDefinition:
    return ModelDefinition.model_validate(merge(RAW, {"classes": list(classes)}))


def test_a_word_that_is_no_class_any_more_is_taken_back_and_comes_again(store: Store) -> None:
    words(store, DIGITS, day(1), a="no", b="unknown", c="unknown")
    receipt = words(store, declare("no", "yes"), day(2), c="yes")
    assert "2 labels say 'unknown', which is no class any more: taken back" in receipt.told
    assert truths(store, day(3)) == {"a": 0, "c": 1}
    again = words(store, declare("no", "unknown"), day(4), d="no")
    assert "1 labels say 'yes', which is no class any more: taken back" in again.told
    assert truths(store, day(5)) == {"a": 0, "b": 1, "d": 0}  # c was corrected to yes


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([("no", "yes"), ("yes", "no"), ("no", "maybe")]), min_size=1, max_size=5))
def test_however_often_classes_are_mended_the_labels_say_what_was_said(
    tmp_path_factory: pytest.TempPathFactory, declared: list[tuple[str, str]]
) -> None:
    store, said = Store(str(tmp_path_factory.mktemp("tables"))), {"a": "no", "b": "yes", "c": "yes"}
    words(store, declare("no", "yes"), day(1), **said)
    for number, pair in enumerate(declared):
        definition = declare(*pair)
        settle(store, definition, known_coding(store, definition), at=day(2 + number), batch_id="")
    known = {name: float(word == pair[1]) for name, word in said.items() if word in pair}
    assert truths(store, day(1)) == known  # each at its own moment
    assert truths(store, day(20)) == known


def test_what_versions_answer_by_stays(store: Store) -> None:
    words(store, DIGITS, day(1), a="no", b="yes")
    history = {"sequence": 1, "version": 1, "previous": None, "action": "promote", "at": day(1), "recorded_at": day(1)}
    reign = pd.DataFrame([history | {"by": "x", "reason": "x", "decision_id": "x"}])
    reign["previous"] = reign["previous"].astype("float64")
    store.append("digits", "history", reign)
    for definition in (declare("yes", "no"), declare("no", "maybe")):
        with pytest.raises(ConflictError, match="versions of digits answer how likely 'yes' is and not 'no'") as caught:
            words(store, definition, day(2), a="no")
        assert '`classes: ["no", "yes"]` back' in str(caught.value.remedy)
        with pytest.raises(ConflictError):
            require_settled(store, definition)
    assert truths(store, day(3)) == {"a": 0, "b": 1}


def test_labels_of_other_classes_are_not_read(store: Store) -> None:
    words(store, DIGITS, day(1), a="no", b="yes")
    require_settled(store, DIGITS)
    with pytest.raises(DataError, match=r"coded with 1 for 'yes' and 0 for 'no'.*Code them anew"):
        require_settled(store, declare("yes", "no"))


def test_a_settlement_of_the_past_is_the_newest_all_the_same(store: Store) -> None:
    words(store, DIGITS, day(9), a="no", b="yes")
    words(store, declare("yes", "no"), day(2), c="no")
    assert known_coding(store, declare("yes", "no")).stored
    assert truths(store, day(10)) == {"a": 1, "b": 0, "c": 1}


def test_labels_that_are_all_refused_teach_no_classes(store: Store) -> None:
    frame = pd.DataFrame({"row": ["a", "b"], "even": ["x", "y"], "labelled_at": ["2034-01-01", "2034-01-01"]})
    with pytest.raises(DataError, match="lies in the future"):
        label_frame(store, DIGITS, frame, as_of=day(1), author="x")
    assert known_coding(store, DIGITS).classes is None


def test_ids_alone_take_back(store: Store) -> None:
    label(store, {"a": 1, "b": 0}, day(1))
    frame = pd.DataFrame({"row": ["a", "b"], "take_back": [True, False]})
    assert label_frame(store, DIGITS, frame, as_of=day(2), author="ada").taken_back == 1
    assert truths(store, day(3)) == {"b": 0}


def test_what_a_delivery_repeats_does_not_undo_a_correction(store: Store) -> None:
    def deliver(truth: float, at: datetime, source: str) -> LabelReceipt:
        return add_labels(
            store, DIGITS, pd.Series(["a"]), np.array([truth]), labelled_at=at, author=source,
            deliveries={"week1.csv", "week2.csv", "week3.csv"},
        )  # fmt: skip

    assert deliver(1, day(1), "week1.csv").new == 1
    label(store, {"a": 0}, day(2))
    assert deliver(1, day(3), "week2.csv").unchanged == 1
    assert truths(store, day(3)) == {"a": 0}
    assert deliver(0, day(4), "week3.csv").unchanged == 1
    label(store, {"a": 1}, day(5))
    assert deliver(0, day(6), "week2.csv").corrected == 1  # the feed has changed its mind, and this is news
    assert truths(store, day(6)) == {"a": 0}


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("cells", "positive"),
    [
        ([1, 2, None], "2"), ([1.0, 2.0, None], "2"), (["no", "yes", None], "yes"), ([False, True, None], "true"),
        ([Decimal("1.00"), Decimal("2.00"), None], "2"), (["1", "2", ""], "2"), (["NA", "None", None], "None"),
    ],
)  # fmt: skip
def test_a_label_file_says_the_same_in_every_form(
    store: Store, tmp_path: Path, ending: str, cells: list[Any], positive: str
) -> None:
    definition = ModelDefinition.model_validate(merge(RAW, {"positive": positive}))
    frame, path = pd.DataFrame({"row": ["a", "b", "c"], "even": cells}), tmp_path / f"labels.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True, default_handler=str)
    receipt = label_frame(store, definition, read_file(path, definition), as_of=day(1), author="x")
    assert (receipt.new, receipt.missing, receipt.refused) == (2, 1, ())
    assert truths(store, day(1)) == {"a": 0, "b": 1}


def test_a_word_that_comes_again_is_said_by_who_said_it(store: Store) -> None:
    def deliver(word: str, at: datetime) -> LabelReceipt:
        frame = pd.DataFrame({"row": ["a"], "even": [word]})
        return label_frame(store, DIGITS, frame, as_of=at, author="feed", deliveries={"feed"})

    words(store, DIGITS, day(0), z="no", y="yes")
    deliver("no", day(1))
    words(store, DIGITS, day(2), a="yes")
    for number, definition in enumerate((declare("no", "maybe"), declare("no", "yes"))):
        settle(store, definition, known_coding(store, definition), at=day(3 + number), batch_id="")
    assert deliver("no", day(6)).unchanged == 1  # it is behind the person's correction, as before
    assert truths(store, day(7)) == {"a": 1, "z": 0, "y": 1}
