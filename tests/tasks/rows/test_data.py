"""Rows from any source in one normal form, and training frames that see the past as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from small_model import NUMERIC, RAW, START, day, define, merge, rows, write_source

from perennial.definition import ModelDefinition
from perennial.errors import DataError, DefinitionError, NotFoundError
from perennial.state.store import Store
from perennial.state.tables import ROW_ID, ROW_INGESTED_AT, ROW_TIME, ROW_TRUTH
from perennial.workspace import Workspace
from tasks.rows.frames import is_known, known_labels, labelled_rows, window_rows
from tasks.rows.normal_form import batch_digest, normalise, row_ids, time_column
from tasks.rows.source import read_source

LOADER = """
import pandas as pd

def load(start, end, path):
    frame = pd.read_parquet(path)
    return frame[frame["when"] < end]

def nothing(start, end):
    return None
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "tables"))


@pytest.fixture
def definition() -> ModelDefinition:
    return ModelDefinition.model_validate(RAW)


def source(workspace: Workspace, kind: str, value: str, **more: Any) -> ModelDefinition:
    return define(workspace, data={"source": {"parquet": None, kind: value, **more}})


# --- sources ---


def expect_days(frame: pd.DataFrame, first: float, last: float) -> None:
    wanted = rows(first, last)
    assert sorted(frame["row"]) == wanted["row"].tolist()
    assert sorted(frame.columns) == sorted(wanted.columns)


@pytest.mark.parametrize("kind", ["parquet", "csv", "delta", "loader", "sql"])
def test_each_kind_of_source(kind: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, frame = workspace.settings.model_folders[0], rows(0, 3)
    if kind == "parquet":
        made = define(workspace)
        write_source(workspace, frame)
    elif kind == "csv":
        made = source(workspace, "csv", "rows.csv")
        frame.to_csv(folder / "rows.csv", index=False)
    elif kind == "delta":
        made = source(workspace, "delta", "rows.delta")
        write_deltalake(folder / "rows.delta", frame)
    elif kind == "loader":
        made = source(workspace, "loader", "load.py:load", options={"path": str(write_source(workspace, frame))})
        (folder / "load.py").write_text(LOADER)
    else:
        made = source(
            workspace, "sql", 'select * from rows where datetime("when") < datetime(:end)', url_env="ROWS_URL"
        )
        monkeypatch.setenv("ROWS_URL", f"sqlite:///{folder / 'rows.db'}")
        with closing(sqlite3.connect(folder / "rows.db")) as connection:
            frame.assign(when=frame["when"].astype("str")).to_sql("rows", connection, index=False)
    expect_days(read_source(made, day(1), day(2)), 1, 2)
    expect_days(read_source(made, None, day(2)), 0, 2)
    assert len(read_source(made, day(50), day(51))) == 0


def test_a_glob_and_an_absolute_path(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        rows(number, number + 1).to_parquet(tmp_path / f"day-{number}.parquet")
    expect_days(read_source(source(workspace, "parquet", str(tmp_path / "day-*.parquet")), None, day(9)), 0, 3)
    monkeypatch.setenv("ROWS_FOLDER", str(tmp_path))
    expect_days(read_source(source(workspace, "parquet", "$ROWS_FOLDER/day-1.parquet"), None, day(9)), 1, 2)


def test_a_source_that_can_t_be_read(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace.settings.model_folders[0]

    def refused(made: ModelDefinition, kind: type[Exception] = DataError) -> str:
        with pytest.raises(kind) as caught:
            read_source(made, None, day(9))
        return str(caught.value)

    assert f"no file matches {folder}/none*.csv. Correct data.source" in refused(source(workspace, "csv", "none*.csv"))
    assert "there is no Delta table at" in refused(source(workspace, "delta", "none"), NotFoundError)
    (folder / "load.py").write_text(LOADER)
    told = refused(source(workspace, "loader", "load.py:nothing"))
    assert told == "load.py:nothing returned NoneType. Return a pandas DataFrame."
    made = source(workspace, "sql", "select * from none", url_env="ROWS_URL")
    assert "the environment variable ROWS_URL is not set" in refused(made, DefinitionError)
    monkeypatch.setenv("ROWS_URL", "sqlite:///")
    assert refused(made) == "the query of ROWS_URL failed: OperationalError. Run it by hand to see why."
    monkeypatch.setenv("ROWS_URL", "oracle+oracledb://scott:tiger@nowhere/x")
    told = refused(made)
    assert "the driver of ROWS_URL is missing" in told
    assert "tiger" not in told
    (folder / "rows.parquet").write_bytes(b"")
    pd.DataFrame({"other": [1]}).to_parquet(folder / "rows.parquet")
    assert refused(define(workspace)) == "the source has no column when. Correct data.time in the definition."


# --- the normal form ---


def test_normal_form(definition: ModelDefinition) -> None:
    frame = rows(0, 1).assign(extra=1)
    frame["ink_00"] = frame["ink_00"].astype("str")
    frame.loc[0, "shade"] = None
    made = normalise(frame.sample(frac=1, random_state=0), definition)
    assert list(made.columns) == [ROW_ID, ROW_TIME, *NUMERIC, "shade", "even"]
    assert {str(made[name].dtype) for name in NUMERIC} == {"float64"}
    assert (str(made[ROW_ID].dtype), str(made[ROW_TIME].dtype)) == ("str", "datetime64[us, UTC]")
    assert (str(made["shade"].dtype), int(made["shade"].isna().sum())) == ("str", 1)
    assert isinstance(made.index, pd.RangeIndex)
    pd.testing.assert_series_equal(
        made.sort_values(ROW_ID, ignore_index=True)["ink_33"], rows(0, 1)["ink_33"], check_names=False
    )
    assert list(normalise(frame[["row", "when"]], definition, with_features=False).columns) == [ROW_ID, ROW_TIME]


def test_text_in_a_number_stays_for_validation_to_see(definition: ModelDefinition) -> None:
    frame = rows(0, 1)
    frame["ink_11"] = frame["ink_11"].astype("str").mask(frame.index == 3, "broken")
    made = normalise(frame, definition)["ink_11"]
    assert made[3] == "broken"
    assert made[0] == str(rows(0, 1)["ink_11"][0])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.to_timedelta(range(72), unit="min"), "holds durations"),
        (pd.date_range("2024-01-01", periods=72), "holds times"),
        ([complex(0, 1)] * 72, "holds complex numbers"),
    ],
)
def test_durations_and_times_are_no_numbers(definition: ModelDefinition, column: Any, kind: str) -> None:
    with pytest.raises(DataError, match=rf"column 'ink_11' is .*, not numeric: it {kind}\. Give numbers in a unit"):
        normalise(rows(0, 1).assign(ink_11=column), definition)


def test_truth_values_and_decimals_are_numbers(definition: ModelDefinition) -> None:
    cells = [True, "true", "FALSE", Decimal("2.50"), " 1.5 ", "1e3", None, "", " ", pd.NA, np.float32(0.5), 7]
    frame = rows(0, 1).head(12).assign(ink_11=pd.Series(cells, dtype=object))
    found = normalise(frame, definition)["ink_11"]
    assert found.fillna(-1).tolist() == [1, 1, 0, 2.5, 1.5, 1000, -1, -1, -1, -1, 0.5, 7]


def test_missing_columns_are_named(definition: ModelDefinition) -> None:
    with pytest.raises(DataError, match=r"the columns row, shade are missing; there are when, .*Rename them in the"):
        normalise(rows(0, 1)[["when", *NUMERIC, "even"]], definition)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([7, 8], ["7", "8"]),
        (pd.Series([7.0, 8.0]), ["7", "8"]),
        (pd.Series([7, "x"], dtype=object), ["7", "x"]),
        (["007"], ["007"]),
        ([True], ["True"]),
        (pd.to_datetime(["2024-01-01"]), ["2024-01-01"]),
        (pd.to_datetime(["2024-01-01 00:00", "2024-01-01 05:00"]), ["2024-01-01", "2024-01-01 05:00:00"]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
    ],
)  # fmt: skip
def test_an_id_reads_the_same_whatever_stands_beside_it(
    definition: ModelDefinition, given: Any, text: list[str]
) -> None:
    assert row_ids(pd.DataFrame({"row": pd.Series(given)}), definition).tolist() == text


def test_a_row_without_id_is_named(definition: ModelDefinition) -> None:
    frame = pd.DataFrame({"row": ["a", None, ""]})
    with pytest.raises(DataError, match=r"column row: row 1 has no id. Every row needs its id"):
        row_ids(frame, definition)
    assert row_ids(frame, definition, complete=False).isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2024-03-01", datetime(2024, 3, 1, tzinfo=UTC)),
        ("2024-03-01T05:00:00.25", datetime(2024, 3, 1, 5, 0, 0, 250000, tzinfo=UTC)),
        ("2024-03-01T05:00:00+02:00", datetime(2024, 3, 1, 3, tzinfo=UTC)),
        (date(2024, 3, 1), datetime(2024, 3, 1, tzinfo=UTC)),
        (datetime(2024, 3, 1, 5), datetime(2024, 3, 1, 5, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_times_are_utc(given: Any, moment: datetime) -> None:
    # Beside another spelling of a time: one format is not guessed for all.
    plain = "2024-01-01 00:00:00" if isinstance(given, str) else given
    made = time_column(pd.Series([given, plain], index=[5, 6]))
    assert made[0] == moment
    assert str(made.dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["2024-01-01", None], "column when: row 1 has no time. Every row needs its event's time."),
        (["2024-01-01", "soon"], "column when: row 1 has 'soon', which is no time. Give ISO 8601 times."),
        (["01/02/2024"], "column when: row 0 has '01/02/2024', which is no time. Give ISO 8601 times."),
        ([1700000000], "column when: int64 holds no times. Give ISO 8601 times."),
        (["2024-01-01", "now"], "column when: row 1 has 'now', which is no time. Give ISO 8601 times."),
        ([" today"], "column when: row 0 has ' today', which is no time. Give ISO 8601 times."),
        (["2024-01-01", ""], "column when: row 1 has '', which is no time. Give ISO 8601 times."),
        (pd.to_timedelta([5], unit="s"), "column when: timedelta64[s] holds no times. Give ISO 8601 times."),
        ([date(2024, 1, 1), 20240101], "column when: row 1 has 20240101, which is no time. Give ISO 8601 times."),
        ([date(2024, 1, 1), pd.Timedelta(5, "D")],
         "column when: row 1 has Timedelta('5 days 00:00:00'), which is no time. Give ISO 8601 times."),
        ([date(2024, 1, 1), "now"], "column when: row 1 has 'now', which is no time. Give ISO 8601 times."),
    ],
)  # fmt: skip
def test_what_is_no_time(given: list[Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        time_column(pd.Series(given, name="when"))
    assert str(caught.value) == problem


@given(st.permutations(list(range(6))))
def test_the_digest_is_content_and_order(order: list[int]) -> None:
    frame = rows(0, 0.2).head(6)
    same = frame.iloc[order].reset_index(drop=True)
    assert (batch_digest(same) == batch_digest(frame)) == (order == sorted(order))
    changed = frame.copy()
    changed["ink_11"] = changed["ink_11"].mask(changed.index == order[0], 1e-9)
    assert batch_digest(changed) != batch_digest(frame)
    assert batch_digest(frame.rename(columns={"ink_11": "ink_1"})) != batch_digest(frame)


def test_which_ids_are_known() -> None:
    known = pd.Series(["a", "c"], dtype="str")
    assert is_known(pd.Series(["a", "b", "c"]), known).tolist() == [True, False, True]
    assert is_known(pd.Series([], dtype="str"), known).tolist() == []


# --- what a training sees ---


def put(store: Store, frame: pd.DataFrame, definition: ModelDefinition, at: datetime) -> None:
    made = normalise(frame, definition).drop(columns="even")
    store.append("digits", "batches", made.assign(_batch_id="b", **{ROW_INGESTED_AT: pd.Timestamp(at)}))


def tell(store: Store, ids: list[str], truth: float, at: datetime) -> None:
    frame = pd.DataFrame({"id": ids, "truth": truth, "labelled_at": pd.Timestamp(at), "author": "test"})
    store.append("digits", "labels", frame)


def test_a_training_sees_rows_and_truth_as_they_were(store: Store, definition: ModelDefinition) -> None:
    first, second = rows(0, 1), rows(1, 2)
    put(store, first, definition, day(1))
    tell(store, first["row"].tolist(), 0.0, day(2))
    then = labelled_rows(store, definition, as_of=day(2))
    put(store, second, definition, day(3))
    tell(store, second["row"].tolist(), 1.0, day(3))
    tell(store, ["r0000"], 1.0, day(3))
    assert len(then.frame) == len(first)
    assert list(then.frame.columns) == [ROW_ID, ROW_TIME, *NUMERIC, "shade", ROW_TRUTH]
    assert then.frame[ROW_TIME].is_monotonic_increasing
    again = labelled_rows(store, definition, as_of=day(2))
    pd.testing.assert_frame_equal(again.frame, then.frame)
    assert again.digest == then.digest
    now = labelled_rows(store, definition, as_of=day(3))
    assert len(now.frame) == len(first) + len(second)
    assert now.frame.set_index(ROW_ID)[ROW_TRUTH]["r0000"] == 1.0
    assert then.versions["labels"] < now.versions["labels"]
    assert then.data_version == f"batches@{then.versions['batches']},labels@{then.versions['labels']}#{then.digest}"
    old = labelled_rows(store, definition, as_of=day(3), versions=then.versions)
    assert old.digest == then.digest


def test_a_training_has_its_window(store: Store) -> None:
    definition = ModelDefinition.model_validate(merge(RAW, {"training": {"window": "3d"}}))
    put(store, rows(0, 1), definition, day(1))
    tell(store, rows(0, 1)["row"].tolist(), 0.0, day(1))
    assert len(labelled_rows(store, definition, as_of=day(1)).frame) == 36


def test_nothing_ingested_yet(store: Store, definition: ModelDefinition) -> None:
    with pytest.raises(DataError, match=r"digits has no ingested rows with labels yet. Ingest some: `perennial ingest"):
        labelled_rows(store, definition, as_of=day(1))
    assert list(known_labels(store, "digits", as_of=day(1)).columns) == ["id", "truth", "labelled_at"]
    window = window_rows(store, definition, start=None, end=day(1), known_at=day(1))
    assert list(window.columns) == [ROW_ID, ROW_TIME, *NUMERIC, "shade"]


def test_a_new_feature_reads_as_missing_in_old_rows(store: Store, definition: ModelDefinition) -> None:
    put(store, rows(0, 1), definition, day(1))
    wider = ModelDefinition.model_validate(
        merge(RAW, {"features": {"numeric": [*NUMERIC, "slant"], "categorical": ["shade", "hand"]}})
    )
    window = window_rows(store, wider, start=START, end=day(1), known_at=day(1))
    assert (str(window["slant"].dtype), str(window["hand"].dtype)) == ("float64", "str")
    assert np.isnan(window["slant"]).all()
    assert window["hand"].isna().all()


def test_the_newest_truth_wins(store: Store) -> None:
    for number, truth in enumerate((0.0, 1.0, 0.0)):
        tell(store, ["a"], truth, START + timedelta(hours=number))
    for hours, truth in ((0, 0.0), (1, 1.0), (2, 0.0), (9, 0.0)):
        known = known_labels(store, "digits", as_of=START + timedelta(hours=hours))
        assert known["truth"].tolist() == [truth]


def test_labels_of_some_ids_are_those_among_all(store: Store, definition: ModelDefinition) -> None:
    truth = pd.DataFrame({"id": ["a", "b", "a", "c"], "truth": [0.0, 1.0, 1.0, 0.0], "author": "test"})
    truth["labelled_at"] = [pd.Timestamp(day(number)) for number in (1, 1, 2, 3)]
    store.append(definition.name, "labels", truth)
    for as_of in (day(1), day(4)):
        everything = known_labels(store, definition.name, as_of=as_of)
        some = known_labels(store, definition.name, as_of=as_of, ids=pd.Series(["a", "c", "z"], dtype="str"))
        pd.testing.assert_frame_equal(some, everything[everything["id"].isin(["a", "c"])].reset_index(drop=True))
    none = known_labels(store, definition.name, as_of=day(4), ids=pd.Series([], dtype="str"))
    assert none.empty
    assert list(none.columns) == ["id", "truth", "labelled_at"]
