"""A batch goes in once and whole, or by rows, or not at all; and what the source still owes is found again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_model import NUMERIC, add, day, define, rows, suite, write_source

from perennial.definition import ModelDefinition
from perennial.state.store import ROW_ID, ROW_INGESTED_AT, Store
from perennial.workspace import Workspace
from tasks.rows.frames import known_labels
from tasks.rows.labels import label_frame
from tasks.steps.ingest import ingest_batch, read_new

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
        ({"even": 2}, "even: row 0 has np.int64(2), which is not 0 or 1"),
        ({"ink_22": "broken"}, "'broken' is not a number"),
        ({"ink_22": np.inf}, "inf is not finite"),
        ({"row": None}, "column row: row 0 has no id"),
        ({"when": "soon"}, "column when: row 0 has 'soon', which is no time"),
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
    append = Store.append

    def die(self: Store, model: str, table: str, *arguments: Any, **more: Any) -> Any:
        if table == step and not after:
            raise KeyboardInterrupt
        done = append(self, model, table, *arguments, **more)
        if table == step:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", die)
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
    assert json.loads(quarantine(workspace)["row"][0])["scan"] == "iVBORwA="
    add(workspace, definition, frame.assign(ink_11=1.0), as_of=day(1))
    assert workspace.store.frame("digits", "batches")["scan"].tolist() == [b"\x89PNG\x00"] * 72


# --- from the source ---


def fetch(workspace: Workspace, definition: ModelDefinition, at: float) -> dict[str, int]:
    """What the ingest flow does with the source."""
    found = read_new(workspace.store, definition, as_of=day(at))
    labels = label_frame(workspace.store, definition, found.truths, as_of=day(at), author="source")
    kept = 0
    if len(found.rows):
        receipt, _ = ingest_batch(
            workspace.store, definition, found.rows, suite(workspace), source="source", as_of=day(at),
            history=found.history,
        )  # fmt: skip
        kept = receipt.kept
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
