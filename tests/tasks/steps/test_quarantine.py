"""Refused rows have a life: tried again after a mend, once; discarded for good; and no row is ever lost or changed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import add, day, define, rows, suite, write_source

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.state.store import Store
from perennial.state.tables import ROW_ID
from perennial.workspace import Workspace
from tasks.intake.quarantine import entries, entry_name, overview, row_lines, rows_of
from tasks.intake.twins import CONTRADICTS_DELIVERY, CONTRADICTS_STORED
from tasks.rows.frames import known_labels
from tasks.rows.labels import label_frame
from tasks.steps.ingest import ingest_batch
from tasks.steps.quarantine import Chosen, Released, discard, release
from tasks.steps.source import read_new


@pytest.fixture
def definition(workspace: Workspace) -> ModelDefinition:
    return define(workspace)


def mend_suite(workspace: Workspace, before: str, after: str) -> None:
    path = workspace.settings.expectation_folders[0] / "digits.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def try_again(workspace: Workspace, definition: ModelDefinition, at: float, chosen: Chosen = Chosen()) -> Released:  # noqa: B008
    return release(
        workspace.store, definition, suite(workspace), chosen, as_of=day(at), by="ann", reason="the suite was wrong"
    )


def states(workspace: Workspace, definition: ModelDefinition) -> dict[str, int]:
    found: dict[str, int] = entries(workspace.store, definition)["state"].value_counts().to_dict()
    return found


def stored(workspace: Workspace) -> pd.DataFrame:
    return workspace.store.frame("digits", "batches")


# --- rows of one id ---


def test_another_row_of_a_stored_id_is_a_conflict_that_is_told(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    add(workspace, definition, rows(0, 1), as_of=day(1))
    before = stored(workspace)
    later = rows(0, 1)
    later.loc[3, "ink_11"] += 1
    later.loc[4, "when"] = day(0.9)
    receipt = add(workspace, definition, later, as_of=day(2))
    assert (receipt.verdict, receipt.kept, receipt.duplicates, receipt.quarantined) == ("accepted", 0, 70, 2)
    assert receipt.conflicts == 2
    assert receipt.told[0].startswith(f"{CONTRADICTS_STORED} (2 rows, such as the id r0003 is stored with ink_11 ")
    pd.testing.assert_frame_equal(stored(workspace), before)
    found = entries(workspace.store, definition)
    assert found["id"].tolist() == ["r0003", "r0004"]
    assert "when" in found["reasons"][1]


def test_ids_of_customers_are_refused_whole_and_the_remedy_works(workspace: Workspace) -> None:
    definition = define(workspace)
    frame = rows(0, 5).assign(row=lambda made: "c" + (np.arange(len(made)) % 60).astype(str))
    months = [frame.iloc[start : start + 60].reset_index(drop=True) for start in range(0, 300, 60)]
    assert add(workspace, definition, months[0], as_of=day(5)).kept == 60
    for month in months[1:]:
        receipt = add(workspace, definition, month, as_of=day(5))
        assert (receipt.verdict, receipt.kept, receipt.conflicts) == ("refused", 0, 60)
        assert "data.refused_share = 0.2" in receipt.reasons[0]
        assert "`data: {id: [row, when]}`" in receipt.reasons[0]
    assert len(stored(workspace)) == 60
    whole = pd.concat(months[2:], ignore_index=True).assign(more=1)
    other = define(workspace, name="whole")
    receipt = add(workspace, other, whole, as_of=day(5))
    assert (receipt.verdict, receipt.kept, receipt.conflicts) == ("refused", 0, 180)
    assert CONTRADICTS_DELIVERY in receipt.reasons[0]
    mended = define(workspace, name="whole", data={"id": ["row", "when"]})
    done = release(workspace.store, mended, suite(workspace, "whole"), Chosen(), as_of=day(6), by="ann", reason="")
    assert (done.tried, done.released, done.held) == (180, 180, 0)


def test_contradicting_rows_of_one_delivery_are_none_of_them_taken(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = pd.concat([rows(0, 1), rows(0, 1).iloc[[5, 6, 6]]], ignore_index=True)
    frame.loc[72, "shade"] = "green"
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.kept, receipt.duplicates, receipt.quarantined) == (71, 2, 2)
    assert "r0005" not in stored(workspace)[ROW_ID].tolist()
    found = entries(workspace.store, definition)
    assert found["reasons"].str.contains("the id r0005 names different rows here: shade is").all()
    assert try_again(workspace, definition, 2).released == 0
    wrong = found.loc[[json.loads(line)["shade"] == "green" for line in _rows(workspace, definition)], "entry"]
    discard(workspace.store, definition, Chosen(tuple(wrong)), at=day(2), by="ann", reason="the lamp was off")
    assert try_again(workspace, definition, 2).released == 1
    assert "r0005" in stored(workspace)[ROW_ID].tolist()


def _rows(workspace: Workspace, definition: ModelDefinition) -> list[str]:
    return entries(workspace.store, definition, with_rows=True)["row"].tolist()


def test_single_precision_and_a_feature_that_came_later_contradict_nothing(workspace: Workspace) -> None:
    old = define(workspace, features={"numeric": ["ink_11", "ink_12"]})
    add(workspace, old, rows(0, 1).assign(ink_12=0.1), as_of=day(1))
    new = define(workspace)
    frame = rows(0, 1.5).assign(ink_12=np.float32(0.1), ink_11=lambda made: made["ink_11"].astype("float32"))
    receipt = add(workspace, new, frame, as_of=day(2))
    assert (receipt.kept, receipt.duplicates, receipt.conflicts) == (36, 72, 0)
    assert add(workspace, new, frame.assign(more=1, ink_12=0.2), as_of=day(2)).conflicts == 108


def test_a_source_whose_rows_change_is_told_once(workspace: Workspace, definition: ModelDefinition) -> None:
    write_source(workspace, rows(0, 3))
    found = read_new(workspace.store, definition, as_of=day(2))
    add(workspace, definition, found.rows, as_of=day(2), history=True)
    changed = rows(0, 3)
    changed.loc[changed["row"] == "r0140", "ink_11"] += 1
    write_source(workspace, changed)
    again = read_new(workspace.store, definition, as_of=day(2))
    assert again.rows["row"].tolist() == ["r0140"]
    assert add(workspace, definition, pd.concat([again.rows, rows(2, 2.1)]), as_of=day(2)).conflicts == 1
    assert "r0140" not in read_new(workspace.store, definition, as_of=day(2.2)).rows["row"].tolist()


# --- by row, or whole ---


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("row", None, "row: the row has no id"),
        ("row", "", "row: the row has no id"),
        ("row", ["r1"], "row: ['r1'] is neither text nor a number"),
        ("when", None, "when: the row has no time"),
        ("when", "now", "when: 'now' is no ISO 8601 time"),
        ("when", 5, "when: 5 is no ISO 8601 time"),
        ("shade", {"a": 1}, "shade: {'a': 1} is neither text nor a number"),
        ("shade", 2.0**60, "shade: 1.152921504606847e+18 is held as float64"),
        ("even", "banana", "even: 'banana' is neither '0' nor '1'"),
        ("even", 2, "even: 2 is neither '0' nor '1'"),
        ("ink_22", "n/a", "ink_22: 'n/a' is no finite number"),
        ("ink_22", np.inf, "ink_22: 'inf' is no finite number"),
    ],
)
def test_one_bad_cell_costs_one_row(
    workspace: Workspace, definition: ModelDefinition, column: str, cell: object, reason: str
) -> None:
    frame = rows(0, 1).astype({column: object})
    frame.at[5, column] = cell
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.kept, receipt.quarantined) == ("accepted", 71, 1)
    (line,) = workspace.store.read("digits", "quarantine").to_pylist()
    assert line["position"] == 5
    assert line["reasons"].startswith(reason)
    assert len(known_labels(workspace.store, "digits", as_of=day(1))) == 71


def test_above_the_definition_s_share_the_batch_is_refused(workspace: Workspace) -> None:
    definition = define(workspace, data={"refused_share": 0.05})
    frame = rows(0, 1).astype({"ink_22": object})
    frame.loc[:2, "ink_22"] = "broken"
    assert add(workspace, definition, frame, as_of=day(1)).quarantined == 3
    frame.loc[:3, "ink_22"] = "broken"
    receipt = add(workspace, definition, frame, as_of=day(1))
    assert (receipt.verdict, receipt.quarantined) == ("refused", 72)
    assert receipt.reasons[0].startswith("4 of 72 rows are refused, more than data.refused_share = 0.05 allows: ink_22")
    alone = rows(1, 2).head(2).astype({"ink_22": object})
    alone.at[0, "ink_22"] = "broken"
    assert add(workspace, definition, alone, as_of=day(1)).kept == 1


# --- release and discard ---


def test_a_mended_suite_releases_what_passes_now_once(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    frame.loc[[3, 7], "ink_11"] = [17.0, 99.0]
    add(workspace, definition, frame, as_of=day(1))
    assert try_again(workspace, definition, 2) == Released(2, held=2, told=try_again(workspace, definition, 2).told)
    mend_suite(workspace, '"max_value": 16', '"max_value": 18')
    done = try_again(workspace, definition, 3)
    assert (done.tried, done.released, done.held, done.labels) == (2, 1, 1, 1)
    assert "ink_11" in done.told[0]
    again = try_again(workspace, definition, 4)
    assert (again.tried, again.released, again.held) == (1, 0, 1)
    found = stored(workspace).set_index(ROW_ID)
    assert len(found) == 71
    assert found.loc["r0003", "ink_11"] == 17.0
    assert found.loc["r0003", "_ingested_at"] == day(3)
    assert states(workspace, definition) == {"open": 1, "released": 1}
    assert add(workspace, definition, frame.iloc[::-1], as_of=day(5)).duplicates == 71


def test_a_refused_batch_is_tried_whole(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    frame.loc[:20, "ink_11"] = 17.0
    assert add(workspace, definition, frame, as_of=day(1)).verdict == "refused"
    done = try_again(workspace, definition, 2, Chosen(ids=("r0050",)))
    assert (done.tried, done.released, done.held) == (72, 0, 72)
    mend_suite(workspace, '"max_value": 16', '"max_value": 18')
    done = try_again(workspace, definition, 3, Chosen(ids=("r0050",)))
    assert (done.released, done.held) == (72, 0)
    assert states(workspace, definition) == {"released": 72}


def test_rows_of_a_refused_batch_that_still_fail_stay_by_themselves(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = rows(0, 1)
    frame.loc[:20, "ink_11"] = 17.0
    frame.loc[30, "ink_11"] = 50.0
    add(workspace, definition, frame, as_of=day(1))
    mend_suite(workspace, '"max_value": 16', '"max_value": 18')
    done = try_again(workspace, definition, 2)
    assert (done.released, done.held) == (71, 1)
    (open_one,) = overview(workspace.store, definition).rules
    assert (open_one.rows, open_one.scope) == (1, "row")


def test_a_mended_file_supersedes_what_it_mends(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1).astype({"ink_11": object})
    frame.loc[[3, 7], "ink_11"] = "broken"
    add(workspace, definition, frame, as_of=day(1))
    frame.loc[3, "ink_11"] = 4.0
    receipt = add(workspace, definition, frame, as_of=day(2))
    assert (receipt.kept, receipt.duplicates, receipt.quarantined, receipt.superseded) == (1, 70, 1, 1)
    assert states(workspace, definition) == {"open": 1, "superseded": 1}


def test_a_later_truth_is_not_undone_by_a_release(workspace: Workspace, definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    frame.loc[3, "ink_11"] = 17.0
    add(workspace, definition, frame, as_of=day(1))
    truth = 1 - frame.loc[3, "even"]
    label_frame(
        workspace.store, definition, pd.DataFrame({"row": ["r0003"], "even": [truth]}), as_of=day(2), author="ann"
    )
    mend_suite(workspace, '"max_value": 16', '"max_value": 18')
    assert try_again(workspace, definition, 3).released == 1
    known = known_labels(workspace.store, "digits", as_of=day(4)).set_index("id")["truth"]
    assert known["r0003"] == truth


def test_discarded_rows_stay_discarded_however_often_they_come(
    workspace: Workspace, definition: ModelDefinition
) -> None:
    frame = rows(0, 1)
    frame.loc[3, "ink_11"] = -1.0
    write_source(workspace, frame)
    add(workspace, definition, frame, as_of=day(1))
    with pytest.raises(DataError, match="the reason is empty"):
        discard(workspace.store, definition, Chosen(), at=day(1), by="ann", reason=" ")
    with pytest.raises(NotFoundError, match="no open entry in the quarantine of digits is meant by that; 1 are open"):
        discard(workspace.store, definition, Chosen(ids=("r9",)), at=day(1), by="ann", reason="a test print")
    assert discard(workspace.store, definition, Chosen(ids=("r0003",)), at=day(1), by="ann", reason="a test print") == 1
    receipt = add(workspace, definition, frame.assign(more=2).drop(columns="more").iloc[::-1], as_of=day(2))
    assert (receipt.duplicates, receipt.quarantined) == (71, 1)
    assert states(workspace, definition) == {"discarded": 1}
    assert len(read_new(workspace.store, definition, as_of=day(2)).rows) == 0
    assert try_again(workspace, definition, 3).tried == 0
    (line,) = entries(workspace.store, definition).to_dict("records")
    assert (line["by"], line["why"]) == ("ann", "a test print")


@pytest.mark.parametrize("step", ["batches", "labels", "receipts", "quarantine_states"])
def test_a_kill_within_a_release_is_finished_by_the_next(
    workspace: Workspace, definition: ModelDefinition, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = rows(0, 1)
    frame.loc[3, "ink_11"] = 17.0
    add(workspace, definition, frame, as_of=day(1))
    mend_suite(workspace, '"max_value": 16', '"max_value": 18')
    append = Store._append

    def die(self: Store, model: str, table: str, *arguments: Any) -> Any:
        done = append(self, model, table, *arguments)
        if table == step:
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_append", die)
        with pytest.raises(KeyboardInterrupt):
            try_again(workspace, definition, 2)
    try_again(workspace, definition, 3)
    assert len(stored(workspace)) == 72
    assert len(workspace.store.read("digits", "labels")) == 72
    assert states(workspace, definition) == {"released": 1}


def test_a_row_comes_back_out_of_quarantine_as_it_was(workspace: Workspace) -> None:
    definition = define(workspace, features={"image": ["scan"]})
    frame = pd.DataFrame(
        {
            "row": [2**60 + 1, "007"], "shade": [np.float32(0.1), True], "ink_11": [0.1 + 0.2, np.nan],
            "scan": [b"\x89PNG", "a.png"], "when": [pd.Timestamp(day(0)), "2024-01-01T00:00:00.000001Z"],
            "far": [{"a": [1]}, None],
        },
        dtype=object,
    )  # fmt: skip
    again = rows_of(row_lines(frame, definition), definition)
    assert again["row"].tolist() == [str(2**60 + 1), "007"]
    assert again["shade"].tolist() == ["0.1", "True"]
    assert again["ink_11"].tolist() == [0.1 + 0.2, None]
    assert again["scan"].tolist() == [b"\x89PNG", "a.png"]
    assert pd.to_datetime(again["when"], utc=True, format="ISO8601").tolist()[1] == pd.Timestamp(frame["when"][1])
    assert again["far"].tolist() == [{"a": [1]}, None]


# --- nothing is lost, nothing is changed ---

CELLS = {
    "row": st.one_of(st.sampled_from([f"r{number}" for number in range(12)]), st.none()),
    "when": st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "soon"]),
    "ink_11": st.sampled_from([1.0, 2.0, 17.0, None, "broken", "inf"]),
    "shade": st.sampled_from(["dark", "light", "3.0"]),
    "even": st.sampled_from([0, 1, None, "banana"]),
}
BATCHES = st.lists(st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=12), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory, make_workspace: Any) -> tuple[Workspace, ModelDefinition]:
    made: Workspace = make_workspace(tmp_path_factory.mktemp("law"))
    return made, define(made, features={"numeric": ["ink_11"]}, data={"refused_share": 0.6})


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=BATCHES)
def test_rows_in_are_rows_kept_known_or_in_quarantine(
    law: tuple[Workspace, ModelDefinition], tmp_path_factory: pytest.TempPathFactory, batches: list[Any]
) -> None:
    made, definition = law
    store = Store(str(tmp_path_factory.mktemp("tables")))
    before = store.frame("digits", "batches")
    for number, batch in enumerate(batches):
        frame = pd.DataFrame(batch, dtype=object)
        parts = [frame.iloc[:5], frame.iloc[5:]] if len(frame) > 5 else [frame]
        receipt, _ = ingest_batch(
            store, definition, partial(iter, parts), suite(made), source=str(number), as_of=day(number),
        )  # fmt: skip
        after = store.frame("digits", "batches")
        if receipt.verdict != "known":
            assert receipt.rows == len(frame) == receipt.kept + receipt.duplicates + receipt.quarantined
        assert len(after) - len(before) == receipt.kept
        assert after[ROW_ID].is_unique
        if len(before):
            same = after.set_index(ROW_ID).loc[before[ROW_ID]].reset_index()[list(before.columns)]
            pd.testing.assert_frame_equal(same, before)
        if receipt.verdict == "refused":
            names = {entry_name(line, "even") for line in row_lines(frame, definition)}
            assert names <= set(entries(store, definition)["entry"])
        before = after
    open_ones = int((entries(store, definition)["state"] == "open").sum())
    done = release(store, definition, suite(made), Chosen(), as_of=day(9), by="law", reason="")
    assert done.tried == open_ones == done.released + done.known + done.held
    assert store.frame("digits", "batches")[ROW_ID].is_unique


def test_parts_are_judged_as_the_whole_is(workspace: Workspace, definition: ModelDefinition, tmp_path: Path) -> None:
    frame = pd.concat([rows(0, 2), rows(0, 2).iloc[[3, 140]]], ignore_index=True)
    frame.loc[[20, 100], "ink_11"] = 99.0
    frame.loc[145, "shade"] = "green"
    whole = add(workspace, definition, frame, as_of=day(1))
    parted = define(workspace, name="parted")
    receipt, report = ingest_batch(
        workspace.store, parted, lambda: (frame.iloc[start : start + 50] for start in range(0, len(frame), 50)),
        suite(workspace, "parted"), source="test", as_of=day(1),
    )  # fmt: skip
    assert receipt == whole
    assert report is not None
    columns = [ROW_ID, "_time", "ink_11", "shade"]
    one, other = (workspace.store.frame(name, "batches", columns=columns) for name in ("digits", "parted"))
    pd.testing.assert_frame_equal(*(made.sort_values(ROW_ID, ignore_index=True) for made in (one, other)))
    held = [
        workspace.store.frame(name, "quarantine").sort_values("position", ignore_index=True)
        for name in ("digits", "parted")
    ]
    pd.testing.assert_frame_equal(*held)


def test_rows_of_unclear_classes_bring_their_truth_when_the_definition_is_mended(workspace: Workspace) -> None:
    frame = rows(0, 1).assign(even=lambda made: made["even"].map({0: "no", 1: "yes"}))
    receipt = add(workspace, define(workspace, positive="Yes"), frame, as_of=day(1))
    assert receipt.verdict == "refused"
    assert "positive: 'Yes' never occurs in even" in receipt.reasons[0]
    mended = define(workspace, positive="yes")
    done = try_again(workspace, mended, 2)
    assert (done.released, done.labels) == (72, 72)
    assert done.learnt[0].startswith("the classes of even are 'no' and 'yes' (positive)")
    known = known_labels(workspace.store, "digits", as_of=day(3)).set_index("id")["truth"]
    assert known.reindex(frame["row"]).tolist() == (frame["even"] == "yes").tolist()


def test_a_row_that_was_refused_for_its_truth_brings_it_when_the_classes_are_mended(workspace: Workspace) -> None:
    frame = rows(0, 1).astype({"even": "object"})
    frame.loc[3, "even"] = "2"
    definition = define(workspace)
    assert add(workspace, definition, frame, as_of=day(1)).quarantined == 1
    assert try_again(workspace, definition, 2).held == 1
    done = try_again(workspace, define(workspace, classes=["1", "2"]), 3)
    assert (done.released, done.labels) == (1, 1)
    known = known_labels(workspace.store, "digits", as_of=day(4)).set_index("id")["truth"]
    assert known["r0003"] == 1
    assert (known.drop("r0003") == 0).all()  # the zeros are no class any more, the ones are the negative class
