"""A batch goes in once and whole, or by rows, or not at all; and what the source still owes is found again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_model import NUMERIC, add, day, define, rows, suite, write_source

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import Classes
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT
from perennial.workspace import Workspace
from tasks.intake.quarantine import entries
from tasks.rows.classes import known_coding
from tasks.rows.frames import known_labels
from tasks.rows.labels import label_frame
from tasks.steps.ingest import ingest_batch
from tasks.steps.quarantine import Chosen, release
from tasks.steps.source import add_source_truths, is_nothing_new, read_new

TABLES = ("batches", "labels", "quarantine", "receipts")


@pytest.fixture
def definition(workspace: Workspace) -> ModelDefinition:
    return define(workspace)


def versions(workspace: Workspace) -> dict[str, int | None]:
    return {name: workspace.store.version("digits", name) for name in TABLES}


def ids(workspace: Workspace) -> list[str]:
    return sorted(workspace.store.frame("digits", "batches")[ROW_ID])


def quarantine(workspace: Workspace) -> pd.DataFrame:
    return workspace.store.frame("digits", "quarantine").sort_values("position", ignore_index=True)


def test_a_good_batch(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.rows, receipt.kept, receipt.labels) == ("accepted", 72, 72, 72)
    assert (receipt.quarantined, receipt.duplicates) == (0, 0)
    assert (receipt.time_from, receipt.time_until) == (frame["when"].min(), frame["when"].max())
    assert ids(workspace) == frame["row"].tolist()
    (line,) = workspace.store.read("digits", "receipts").to_pylist()
    assert (line["batch_id"], line["verdict"], line["kept"]) == (receipt.batch_id, "accepted", 72)
    assert json.loads(line["report"])["verdict"] == "passed"


def test_the_same_batch_twice_changes_nothing(workspace: Workspace, definition: ModelDefinition) -> None:
    add(workspace, definition, rows(0, 1), as_of=day(1))
    before = versions(workspace)
    receipt = add(workspace, definition, rows(0, 1), as_of=day(2))
    assert (receipt.verdict, receipt.kept) == ("known", 0)
    assert versions(workspace) == before


def test_rows_that_are_there_are_duplicates(workspace: Workspace, definition: ModelDefinition) -> None:
    add(workspace, definition, rows(0, 1), as_of=day(1))
    again = pd.concat([rows(0.5, 1.5), rows(1.25, 1.5)], ignore_index=True)
    receipt = add(workspace, definition, again, as_of=day(2))
    assert (receipt.verdict, receipt.kept, receipt.duplicates) == ("accepted", 36, 36 + 18)
    assert ids(workspace) == rows(0, 1.5)["row"].tolist()


def test_a_refused_batch_leaves_the_tables_alone(workspace: Workspace, definition: ModelDefinition) -> None:
    add(workspace, definition, rows(0, 1), as_of=day(1))
    before = versions(workspace)
    frame = rows(1, 2).assign(ink_11=99.0)
    receipt = add(workspace, definition, frame, as_of=day(2))
    assert (receipt.verdict, receipt.kept, receipt.quarantined) == ("refused", 0, 72)
    assert "ink_11" in receipt.reasons[0]
    after = versions(workspace)
    assert (after["batches"], after["labels"]) == (before["batches"], before["labels"])
    held = quarantine(workspace)
    assert held["id"].tolist() == frame["row"].tolist()
    assert held["position"].tolist() == list(range(72))
    assert held["reasons"].str.contains("ink_11").all()
    whole = json.loads(held["row"][5])
    assert whole["ink_11"] == 99.0
    assert set(whole) == set(frame.columns)
    assert add(workspace, definition, frame, as_of=day(3)).verdict == "refused"
    assert versions(workspace) == after


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"even": 2}, "even has one class so far, '2': the other can't be known. Name both at the top level of the"),
        ({"ink_22": "broken"}, "ink_22: no finite number (72 rows, such as ink_22: 'broken' is no finite number)"),
        ({"ink_22": np.inf}, "every row is refused: ink_22: no finite number (72 rows, such as ink_22: 'inf' is no"),
        ({"row": None}, "every row is refused: row: no id (72 rows, such as row: the row has no id)"),
        ({"when": "soon"}, "every row is refused: when: no time (72 rows, such as when: 'soon' is no ISO 8601 time)"),
        ({"when": 5}, "column when: int64 holds no times"),
    ],
)  # fmt: skip
def test_what_no_training_could_read_is_refused_before_anything_is_written(
    workspace: Workspace, definition: ModelDefinition, change: dict[str, Any], reason: str
) -> None:
    receipt = add(workspace, definition, rows(0, 1).assign(**change), as_of=day(1))
    assert (receipt.verdict, receipt.quarantined) == ("refused", 72)
    assert reason in receipt.reasons[0]
    assert versions(workspace) | {"quarantine": 0, "receipts": 0} == {
        "batches": None, "labels": None, "quarantine": 0, "receipts": 0,
    }  # fmt: skip
    assert len(quarantine(workspace)) == 72


@pytest.mark.parametrize("cell", [np.inf, -np.inf, "inf", "broken", pd.Timedelta("1h")])
def test_one_broken_number_costs_one_row(workspace: Workspace, definition: ModelDefinition, cell: object) -> None:
    frame = rows(0, 1).astype({"ink_22": object})
    frame.loc[5, "ink_22"] = cell
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.quarantined) == ("accepted", 71, 1)
    held = quarantine(workspace)
    assert held["id"].tolist() == [frame["row"][5]]
    assert "ink_22" in held["reasons"][0]
    assert workspace.store.read("digits", "batches").schema.field("ink_22").type == "double"


def test_columns_that_nobody_reads_may_hold_anything(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    lists = frame.assign(emb=[[1.0, 2.0]] * 72, nested=[{"a": {"b": 1}}] * 72, more=[{1, 2}] * 72, when2=pd.NaT)
    lists.loc[3, "ink_11"] = np.inf
    receipt = add(workspace, definition, lists, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.quarantined) == ("accepted", 71, 1)
    assert json.loads(quarantine(workspace)["row"][0])["emb"] == [1.0, 2.0]
    # What nobody reads names no batch either.
    assert add(workspace, definition, lists.assign(emb=0), as_of=day(1)).verdict == "known"


def test_a_list_in_a_column_that_is_read_is_refused_with_its_row(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = rows(0, 1).astype({"shade": object})
    frame.at[7, "shade"] = ["dark"]
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.quarantined) == ("accepted", 71, 1)
    assert quarantine(workspace)["reasons"].tolist() == ["shade: ['dark'] is neither text nor a number"]
    assert json.loads(quarantine(workspace)["row"][0])["shade"] == ["dark"]


def test_nothing_new_beside_a_quarantine_is_nothing_and_late_truth_comes_in(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = rows(0, 2)
    frame.loc[3, "ink_11"] = np.inf
    write_source(workspace, frame.drop(columns="even").assign(even=np.nan))
    found = read_new(workspace.store, definition, as_of=day(2))
    assert add(workspace, definition, found.rows, as_of=day(2), history=True).quarantined == 1
    write_source(workspace, frame)
    again = read_new(workspace.store, definition, as_of=day(2))
    assert len(again.rows) == 0
    receipt = label_frame(workspace.store, definition, again.truths, as_of=day(2), author="source")
    assert receipt.new > 0
    write_source(workspace, frame.iloc[:0])
    assert len(read_new(workspace.store, definition, as_of=day(2)).rows) == 0


def test_ids_of_several_columns(workspace: Workspace) -> None:
    made = define(workspace, data={"id": ["customer", "month"]}, features={"categorical": ["shade", "customer"]})
    several = {"type": "expect_compound_columns_to_be_unique", "severity": "critical",
               "kwargs": {"column_list": ["customer", "month"]}}  # fmt: skip
    path = workspace.settings.expectation_folders[0] / "digits.json"
    path.write_text(json.dumps({"name": "digits", "expectations": [several]}))
    frame = rows(0, 1).assign(customer=[1, 2] * 36, month=[f"2024-{number // 2:02}" for number in range(72)])
    receipt = add(workspace, made, frame, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.labels) == ("accepted", 72, 72)
    assert ids(workspace)[0] == "1|2024-00"
    late = pd.DataFrame({"customer": ["2.0"], "month": ["2024-35"], "even": [1 - frame["even"][71]]})
    assert label_frame(workspace.store, made, late, as_of=day(2), author="file").corrected == 1
    # Numbers beside a gap are other numbers for pandas only.
    later = frame.assign(customer=frame["customer"].astype("float64"), more=1)
    assert add(workspace, made, later.iloc[::-1], as_of=day(2)).duplicates == 72
    receipt = add(workspace, made, frame.astype({"month": object}).assign(month=None), as_of=day(3))
    assert "month: no id (72 rows" in receipt.reasons[0]


def test_a_suite_s_sets_are_read_as_the_rows_are_spelled(workspace: Workspace, definition: ModelDefinition) -> None:
    path = workspace.settings.expectation_folders[0] / "digits.json"
    sets = {"type": "expect_column_values_to_be_in_set", "severity": "critical",
            "kwargs": {"column": "shade", "value_set": [3, 4.0, "5.0", True, "2024-01-01T00:00Z", "007"]}}  # fmt: skip
    path.write_text(json.dumps({"name": "digits", "expectations": [sets]}))
    frame = rows(0, 1).astype({"shade": object})
    frame["shade"] = ["3.0", 4, 5.0, "true", pd.Timestamp("2024-01-01"), "007"] * 12
    assert add(workspace, definition, frame, as_of=day(1)).kept == 72
    frame["shade"] = ["7"] * 72
    assert add(workspace, definition, frame.assign(ink_22=0.0), as_of=day(1)).verdict == "refused"


def test_missing_columns_refuse(workspace: Workspace, definition: ModelDefinition) -> None:
    receipt = add(workspace, definition, rows(0, 1).drop(columns=["row", "shade"]), as_of=day(1))
    assert receipt.verdict == "refused"
    assert receipt.reasons[0].startswith("the columns row, shade are missing; there are ")
    assert quarantine(workspace)["id"].isna().all()


def test_no_rows_are_refused(workspace: Workspace, definition: ModelDefinition) -> None:
    receipt = add(workspace, definition, rows(0, 1).head(0), as_of=day(1))
    assert (receipt.verdict, receipt.reasons) == ("refused", ("the batch has no rows",))


def test_bad_rows_go_into_quarantine_by_themselves(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    frame.loc[[3, 7], "ink_11"] = [-1.0, 99.0]
    # A later good row of a bad one's id is no repetition of it.
    frame.loc[8, "row"] = frame.loc[7, "row"]
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.quarantined, receipt.duplicates) == ("accepted", 70, 2, 0)
    held = quarantine(workspace)
    assert held["position"].tolist() == [3, 7]
    assert held["id"].tolist() == ["r0003", "r0007"]
    assert held["reasons"].str.contains("ink_11").all()
    assert "r0003" not in known_labels(workspace.store, "digits", as_of=day(1))["id"].tolist()


def test_a_mended_suite_lets_the_batch_in(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1).assign(ink_11=17.0)
    assert add(workspace, definition, frame, as_of=day(1)).verdict == "refused"
    path = workspace.settings.expectation_folders[0] / "digits.json"
    path.write_text(path.read_text().replace('"max_value": 16', '"max_value": 18'))
    assert add(workspace, definition, frame, as_of=day(2)).verdict == "accepted"
    assert len(ids(workspace)) == 72


@pytest.mark.parametrize("step", ["batches", "labels", "quarantine", "receipts"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_between_the_appends_is_finished_by_the_next_run(
    workspace: Workspace, definition: ModelDefinition, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = rows(0, 1)
    frame.loc[3, "ink_11"] = -1.0
    append = Store._append

    def die(self: Store, model: str, table: str, *arguments: Any, **more: Any) -> Any:
        if table == step and not after:
            raise KeyboardInterrupt
        done = append(self, model, table, *arguments, **more)
        if table == step:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_append", die)
        with pytest.raises(KeyboardInterrupt):
            add(workspace, definition, frame, as_of=day(1))
    receipt = add(workspace, definition, frame, as_of=day(2))
    assert receipt.verdict == ("known" if (step, after) == ("receipts", True) else "accepted")
    assert len(ids(workspace)) == len(set(ids(workspace))) == 71
    assert len(workspace.store.read("digits", "labels")) == 71
    assert len(quarantine(workspace)) == 1
    assert len(workspace.store.read("digits", "receipts")) == 1


def test_history_counts_as_known_when_it_happened(workspace: Workspace, definition: ModelDefinition) -> None:
    receipt = add(workspace, definition, rows(0, 5), as_of=day(5), history=True)
    stored = workspace.store.frame("digits", "batches")
    assert (stored["_time"] == stored[ROW_INGESTED_AT]).all()
    # The delay is a day: the last day's truth is not known yet.
    assert receipt.labels == len(rows(0, 4)) + 1
    assert len(known_labels(workspace.store, "digits", as_of=day(3))) == len(rows(0, 2)) + 1
    assert len(known_labels(workspace.store, "digits", as_of=day(9))) == receipt.labels


def test_images_survive_quarantine(workspace: Workspace) -> None:
    definition = define(workspace, features={"image": ["scan"]})
    frame = rows(0, 1).assign(scan=[b"\x89PNG\x00"] * 72, ink_11=99.0)
    assert add(workspace, definition, frame, as_of=day(1)).verdict == "refused"
    assert json.loads(quarantine(workspace)["row"][0])["scan"] == {"base64": "iVBORwA="}
    add(workspace, definition, frame.assign(ink_11=1.0), as_of=day(1))
    assert workspace.store.frame("digits", "batches")["scan"].tolist() == [b"\x89PNG\x00"] * 72


# --- truths ---


def truths(workspace: Workspace, at: float = 99) -> dict[str, float]:
    frame = known_labels(workspace.store, "digits", as_of=day(at))
    return dict(zip(frame["id"], frame["truth"], strict=True))


def in_words(frame: pd.DataFrame, no: str = "no", yes: str = "yes") -> pd.DataFrame:
    return frame.assign(even=frame["even"].map({0: no, 1: yes}))


@pytest.mark.parametrize("history", [False, True])
def test_rows_that_are_there_may_bring_their_truth_later(
    workspace: Workspace, definition: ModelDefinition, history: bool
) -> None:
    whole = rows(0, 3)
    early = whole.assign(even=whole["even"].where(whole["when"] < day(1)))
    assert add(workspace, definition, early, as_of=day(5), history=history).labels == 72
    receipt = add(workspace, definition, whole, as_of=day(6), history=history)
    assert (receipt.kept, receipt.duplicates, receipt.labels) == (0, 216, 144)
    assert truths(workspace) == dict(zip(whole["row"], whole["even"], strict=True))
    assert len(truths(workspace, 5.9)) == (216 if history else 72)  # of the past, known when it happened
    again = add(workspace, definition, pd.concat([whole, rows(3, 4)], ignore_index=True), as_of=day(7))
    assert (again.kept, again.duplicates, again.labels) == (72, 216, 72)


def test_an_export_that_is_behind_undoes_no_correction_but_a_new_truth_does(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = rows(0, 1).assign(even=1)
    frame.loc[5, "even"] = 0
    add(workspace, definition, frame, as_of=day(1))
    corrected = pd.DataFrame({"row": ["r0001", "r0002"], "even": [0, 0]})
    label_frame(workspace.store, definition, corrected, as_of=day(2), author="ann", witness=True)
    export = pd.concat([frame, rows(1, 2)], ignore_index=True)
    assert add(workspace, definition, export, as_of=day(3)).labels == 72
    assert (truths(workspace)["r0001"], truths(workspace)["r0003"]) == (0, 1)
    export.loc[3, "even"] = 0
    assert add(workspace, definition, export, as_of=day(4)).labels == 1
    assert truths(workspace)["r0003"] == 0


def test_a_refused_batch_teaches_no_classes(workspace: Workspace, definition: ModelDefinition) -> None:
    broken = in_words(rows(0, 1), "left", "right").assign(ink_11=99.0)
    assert add(workspace, definition, broken, as_of=day(1)).verdict == "refused"
    assert known_coding(workspace.store, definition).classes is None
    receipt = add(workspace, definition, in_words(rows(0, 1)), as_of=day(1))
    assert receipt.learnt == ("the classes of even are 'no' and 'yes' (positive): 'no' (51.4%), 'yes' (48.6%)",)
    assert add(workspace, definition, in_words(rows(1, 2)), as_of=day(2)).learnt == ()


def test_the_same_file_under_a_corrected_definition_is_coded_anew(workspace: Workspace) -> None:
    frame = in_words(rows(0, 2), "late", "on time")
    add(workspace, define(workspace), frame, as_of=day(2))
    assert truths(workspace) == dict(zip(frame["row"], (frame["even"] == "on time").astype(float), strict=True))
    corrected = define(workspace, positive="late")
    receipt = add(workspace, corrected, frame, as_of=day(3))
    assert receipt.learnt[1] == "144 labels were coded anew"
    assert truths(workspace) == dict(zip(frame["row"], (frame["even"] == "late").astype(float), strict=True))
    assert len(workspace.store.read("digits", "labels")) == 144
    before = workspace.store.frame("digits", "labels", version=1).set_index("id")["truth"]
    assert before.to_dict() == {name: 1 - truth for name, truth in truths(workspace).items()}
    assert add(workspace, corrected, frame, as_of=day(4)).verdict == "known"


def test_classes_that_were_learnt_too_early_are_mended_by_declaring_them(workspace: Workspace) -> None:
    frame = in_words(rows(0, 2))
    pending = frame.assign(even=frame["even"].where(frame["even"] == "no", "unknown"))
    add(workspace, define(workspace), pending, as_of=day(2))
    declared = define(workspace, classes=["no", "yes"])
    receipt = add(workspace, declared, frame, as_of=day(3))
    assert receipt.learnt[1].endswith("labels say 'unknown', which is no class any more: taken back")
    assert (receipt.duplicates, receipt.labels) == (144, (frame["even"] == "yes").sum())
    assert truths(workspace) == dict(zip(frame["row"], (frame["even"] == "yes").astype(float), strict=True))


def test_a_refused_truth_of_a_row_that_is_there_waits_in_quarantine_until_it_is_mended(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    add(workspace, definition, rows(0, 2).drop(columns="even"), as_of=day(2))
    wrong = rows(0, 2).astype({"even": "object"})
    wrong.loc[[3, 4], "even"] = "banana"
    receipt = add(workspace, definition, wrong, as_of=day(3))
    assert (receipt.duplicates, receipt.quarantined, receipt.labels) == (142, 2, 142)
    assert "'banana' is neither '0' nor '1' (positive)" in receipt.told[0]
    mended = add(workspace, definition, rows(0, 2), as_of=day(4))
    assert (mended.duplicates, mended.labels, mended.superseded) == (144, 2, 2)
    assert set(entries(workspace.store, definition)["state"]) == {"superseded"}


# --- from the source ---


def fetch(workspace: Workspace, definition: ModelDefinition, at: float) -> dict[str, int]:
    """What the ingest flow does with the source."""
    found = read_new(workspace.store, definition, as_of=day(at))
    kept = 0
    if len(found.rows):
        receipt, _ = ingest_batch(
            workspace.store, definition, found.rows, suite(workspace), source="source", as_of=day(at),
            history=found.history,
        )  # fmt: skip
        kept = receipt.kept
    labels, _ = add_source_truths(workspace.store, definition, found, as_of=day(at))
    return {"rows": len(found.rows), "kept": kept, "labels": labels.new, "corrected": labels.corrected}


def test_the_first_read_is_the_past(workspace: Workspace, definition: ModelDefinition) -> None:
    write_source(workspace, rows(0, 9))
    found = read_new(workspace.store, definition, as_of=day(5))
    assert found.history
    assert found.rows["row"].tolist() == rows(0, 5)["row"].tolist()
    assert len(found.truths) == 0


def test_later_reads_bring_new_rows_and_the_truth_that_is_due(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    write_source(workspace, rows(0, 9))
    fetch(workspace, definition, 5)
    assert fetch(workspace, definition, 5) == {"rows": 0, "kept": 0, "labels": 0, "corrected": 0}
    # Two days on, with a day's delay: the rows of two days, and the truth of two.
    assert fetch(workspace, definition, 7) == {"rows": 144, "kept": 144, "labels": 144, "corrected": 0}
    assert ids(workspace) == rows(0, 7)["row"].tolist()
    known = known_labels(workspace.store, "digits", as_of=day(7))
    assert sorted(known["id"]) == [*rows(0, 6)["row"], rows(6, 7)["row"][0]]


def test_late_rows_late_truth_and_corrections_are_found(workspace: Workspace, definition: ModelDefinition) -> None:
    whole = rows(0, 9)
    partial = whole.copy()
    partial["even"] = partial["even"].astype("float64")
    partial.loc[(partial["when"] >= day(4)) & (partial["when"] < day(4.5)), "even"] = np.nan
    late = (partial["when"] >= day(4.5)) & (partial["when"] < day(4.75))
    write_source(workspace, partial[~late])
    fetch(workspace, definition, 6)
    assert len(ids(workspace)) == 6 * 72 - 18
    mended = whole.copy()
    mended.loc[whole["row"] == "r0350", "even"] = 1 - whole.loc[whole["row"] == "r0350", "even"]
    write_source(workspace, mended)
    assert fetch(workspace, definition, 6.01) == {"rows": 19, "kept": 19, "labels": 36 + 18, "corrected": 1}
    assert ids(workspace) == rows(0, 6.01)["row"].tolist()


def test_rows_in_quarantine_don_t_come_again_until_mended(workspace: Workspace, definition: ModelDefinition) -> None:
    broken = rows(0, 9)
    broken.loc[broken["row"].isin(["r0400", "r0401"]), "ink_11"] = 99.0
    write_source(workspace, broken)
    fetch(workspace, definition, 6)
    assert fetch(workspace, definition, 6) == {"rows": 0, "kept": 0, "labels": 0, "corrected": 0}
    assert len(quarantine(workspace)) == 2
    broken.loc[broken["row"] == "r0400", "ink_11"] = 3.0
    write_source(workspace, broken)
    assert fetch(workspace, definition, 6)["kept"] == 1
    assert "r0400" in ids(workspace)
    assert "r0401" not in ids(workspace)


def test_features_are_what_is_stored(workspace: Workspace, definition: ModelDefinition) -> None:
    add(workspace, definition, rows(0, 1).assign(secret="x"), as_of=day(1))
    stored = workspace.store.frame("digits", "batches")
    assert {name for name in stored.columns if not name.startswith("_")} == {*NUMERIC, "shade"}


def test_truths_that_the_source_has_wrong_are_told_kept_and_closed_once_mended(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    wrong = rows(0, 9).astype({"even": "object"})
    write_source(workspace, wrong.assign(even=wrong["even"].astype("str")))
    fetch(workspace, definition, 5)
    wrong.loc[wrong["row"].isin(["r0400", "r0401"]), "even"] = "banana"
    write_source(workspace, wrong.assign(even=wrong["even"].astype("str")))
    found = read_new(workspace.store, definition, as_of=day(7))
    ingest_batch(workspace.store, definition, found.rows, suite(workspace), source="source", as_of=day(7))
    receipt, told = add_source_truths(workspace.store, definition, found, as_of=day(7))
    assert (receipt.new, receipt.unknown) == (142, ())
    assert told == ("even: no truth of this model (2 rows, such as even: 'banana' is neither '0' nor '1' (positive))",)
    assert not is_nothing_new(
        workspace.store, definition, read_new(workspace.store, definition, as_of=day(7)), as_of=day(7)
    )
    assert fetch(workspace, definition, 7) == {"rows": 0, "kept": 0, "labels": 0, "corrected": 0}
    assert entries(workspace.store, definition)["state"].tolist() == ["open", "open"]
    write_source(workspace, rows(0, 9))
    assert fetch(workspace, definition, 7)["labels"] == 2
    assert entries(workspace.store, definition)["state"].tolist() == ["superseded", "superseded"]
    assert is_nothing_new(
        workspace.store, definition, read_new(workspace.store, definition, as_of=day(7)), as_of=day(7)
    )


def test_truths_whose_classes_are_not_clear_hold_no_rows_back(workspace: Workspace) -> None:
    definition = define(workspace)
    write_source(workspace, rows(0, 9).assign(even=None))
    fetch(workspace, definition, 5)
    write_source(workspace, rows(0, 9).assign(even="late"))
    assert fetch(workspace, definition, 6) == {"rows": 72, "kept": 72, "labels": 0, "corrected": 0}
    found = entries(workspace.store, definition)
    assert found["reasons"].str.startswith("even has one class so far, 'late'").all()
    declared = define(workspace, classes=["on time", "late"])
    assert fetch(workspace, declared, 6)["labels"] == 74
    assert known_coding(workspace.store, declared).classes == Classes("on time", "late")
    # Older ones are not read again: they wait.
    done = release(workspace.store, declared, suite(workspace), Chosen(), as_of=day(6), by="ann", reason="declared")
    assert (done.known, done.labels) == (len(found) - 74, len(found) - 74)
    assert len(truths(workspace)) == len(found)


def test_a_correction_by_a_person_stays_although_the_source_says_what_it_said(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    write_source(workspace, rows(0, 9))
    fetch(workspace, definition, 5)
    other = 1 - truths(workspace)["r0280"]
    label_frame(workspace.store, definition, pd.DataFrame({"row": ["r0280"], "even": [int(other)]}), as_of=day(5),
                author="ann", witness=True)  # fmt: skip
    found = read_new(workspace.store, definition, as_of=day(5))
    assert "r0280" in set(found.truths["row"])
    assert is_nothing_new(workspace.store, definition, found, as_of=day(5))
    fetch(workspace, definition, 6)
    assert truths(workspace)["r0280"] == other


@pytest.mark.parametrize("column", ["shade", "row"])
def test_half_a_character_is_refused_by_its_column_and_nothing_is_kept(workspace: Workspace, column: str) -> None:
    definition = define(workspace)
    frame = rows(0, 1).astype({column: object})
    frame.loc[frame.index[0], column] = "half \ud800"
    with pytest.raises(DataError, match=rf"column {column} holds half a character: .*Give whole characters"):
        add(workspace, definition, frame, as_of=day(2))
    assert workspace.store.count("digits", "batches") == 0
