"""Tables: exact under racing processes, readable at every version, strict about types."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import FORKS

from perennial.errors import ConflictError, DataError, NotFoundError
from perennial.state.store import Store, among, between, read_table
from perennial.state.tables import LAYOUT, ROW_BATCH, ROW_ID, ROW_INGESTED_AT, ROW_TIME, cast_exactly

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def labels(*ids: str, truth: float = 1.0, at: datetime = NOW) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids), "truth": truth, "labelled_at": pd.Timestamp(at), "author": "test"})


def batch(ids: list[str], **features: Any) -> pd.DataFrame:
    moment = pd.Timestamp(NOW)
    return pd.DataFrame(
        {ROW_BATCH: "b", ROW_ID: ids, ROW_TIME: moment, ROW_INGESTED_AT: moment, **features}
    )  # fmt: skip


@pytest.fixture
def store(tables_root: str) -> Store:
    return Store(tables_root)


def in_processes(target: Callable[..., None], *arguments: Any, count: int = 4) -> None:
    """Run the target in so many processes that start together."""
    barrier = FORKS.Barrier(count)
    processes = [FORKS.Process(target=target, args=(barrier, number, *arguments)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


def append_many(barrier: Any, number: int, root: str, times: int) -> None:
    store = Store(root)
    barrier.wait(60)
    for index in range(times):
        store.append("m", "labels", labels(f"{number}-{index}", f"{number}-{index}-again"))


def append_same(barrier: Any, number: int, root: str, results: Any) -> None:
    store = Store(root)
    barrier.wait(60)
    results.put(store.append("m", "labels", labels(str(number)), key="once").written)
    # Then three numbered lines, each of which one process may write.
    for sequence in (1, 2, 3):
        store.append("m", "history", line(sequence, number), key="line", sequence=sequence)


def line(sequence: int, version: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sequence": [sequence], "version": [version], "previous": pd.array([None], dtype="Int64"),
            "action": ["promote"], "at": [pd.Timestamp(NOW)], "recorded_at": [pd.Timestamp(NOW)], "by": ["x"],
            "reason": ["y"], "decision_id": [None],
        }
    )  # fmt: skip


@pytest.mark.parametrize("parts", [1, 2])
def test_files_are_compressed_and_ids_have_no_dictionary(tmp_path: Path, parts: int) -> None:
    store = Store(str(tmp_path))
    frame = batch([f"r{row}" for row in range(1000)], shade=["light", "dark"] * 500, ink=np.arange(1000) / 7)
    if parts == 1:
        store.append("m", "batches", frame)
    else:
        store.append_parts("m", "batches", lambda: iter([frame[:500], frame[500:]]))
    (path,) = (tmp_path / "m" / "batches").glob("*.parquet")
    group = pq.read_metadata(path).row_group(0)
    columns = {column["path_in_schema"]: column for column in group.to_dict()["columns"]}
    assert {column["compression"] for column in columns.values()} == {"SNAPPY"}
    without = {name for name, column in columns.items() if not column["has_dictionary_page"]}
    assert without == {ROW_ID, "ink"}
    assert sorted(store.frame("m", "batches")["ink"]) == frame["ink"].tolist()


@pytest.mark.process
def test_four_processes_append_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "tables"))
    in_processes(append_many, store.root, 5)
    found = store.frame("m", "labels")
    assert len(found) == 4 * 5 * 2
    assert found["id"].is_unique


@pytest.mark.process
def test_of_racing_processes_one_writes_a_key(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "tables"))
    results = FORKS.Queue()
    in_processes(append_same, store.root, results)
    assert sorted(results.get(timeout=5) for _ in range(4)) == [False, False, False, True]
    assert len(store.read("m", "labels")) == 1
    history = store.frame("m", "history").sort_values("sequence")
    assert history["sequence"].tolist() == [1, 2, 3]


def test_of_racing_writers_to_one_root_none_is_lost_and_one_writes_a_key(tables_root: str) -> None:
    barrier, results = threading.Barrier(4), queue.SimpleQueue[bool]()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: append_many(barrier, number, tables_root, 3), range(4)))
        list(pool.map(lambda number: append_same(barrier, number, tables_root, results), range(4)))
    store = Store(tables_root)
    assert sorted(results.get(timeout=5) for _ in range(4)) == [False, False, False, True]
    assert len(store.read("m", "labels")) == 4 * 3 * 2 + 1
    assert sorted(store.frame("m", "history")["sequence"]) == [1, 2, 3]


def test_a_key_is_written_once(store: Store) -> None:
    first = store.append("m", "labels", labels("a"), key="k")
    again = store.append("m", "labels", labels("b"), key="k")
    other = store.append("m", "labels", labels("c"), key="other")
    assert (first.written, again.written, other.written) == (True, False, True)
    assert again.version == first.version
    assert sorted(store.frame("m", "labels")["id"]) == ["a", "c"]
    assert store.committed("m", "labels", "k") == 1
    assert store.committed("m", "labels", "unknown") is None
    assert store.committed("m", "history", "k") is None


def test_keys_outlive_compaction(store: Store) -> None:
    store.append("m", "labels", labels("a"), key="k")
    for number in range(12):
        store.append("m", "labels", labels(str(number)))
    before = store.version("m", "labels")
    assert not store.compact("m", "labels", least_files=14), "there are thirteen"
    assert store.compact("m", "labels", least_files=13)
    assert not store.compact("m", "labels"), "there is one"
    assert len(store.read("m", "labels")) == 13
    assert len(store.read("m", "labels", version=before)) == 13
    assert not store.append("m", "labels", labels("a"), key="k").written
    assert not store.compact("m", "history"), "there is none"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 4), max_size=8))
def test_a_sequence_is_compare_and_set(tmp_path_factory: pytest.TempPathFactory, tries: list[int]) -> None:
    store = Store(str(tmp_path_factory.mktemp("tables")))
    highest = 0
    for number in tries:
        written = store.append("m", "history", line(number, number), key="k", sequence=number).written
        assert written == (number > highest)
        highest = max(highest, number)
        assert store.committed("m", "history", "k") == highest


def test_every_version_stays_readable(store: Store) -> None:
    versions = [store.append("m", "labels", labels(name)).version for name in "abc"]
    for count, version in enumerate(versions, start=1):
        assert len(store.read("m", "labels", version=version)) == count
    assert store.version("m", "labels") == versions[-1]
    with pytest.raises(NotFoundError, match=r"table m/labels has no version 99. Read a version that exists"):
        store.read("m", "labels", version=99)


def test_rows_are_replaced_once_and_what_was_appended_since_stays(store: Store) -> None:
    version = store.append("m", "labels", labels("a", "b")).version
    store.append("m", "labels", labels("late"))
    stand_in = labels("a", "b").assign(author="again", word="w")
    assert store.replace("m", "labels", stand_in, version=version, key="again").written
    assert not store.replace("m", "labels", stand_in, version=version, key="again").written
    found = store.frame("m", "labels").set_index("id")["author"].to_dict()
    assert found == {"a": "again", "b": "again", "late": labels("late")["author"][0]}
    assert len(store.read("m", "labels", version=version)) == 2
    with pytest.raises(ConflictError, match="was changed in between"):
        store.replace("m", "labels", stand_in, version=version, key="others")
    store.append("m", "labels", labels("without a word"))
    assert len(store.read("m", "labels")) == 4
    with pytest.raises(NotFoundError, match="there is no table m/predictions to replace"):
        store.replace("m", "predictions", LAYOUT["predictions"].empty_table(), version=0, key="k")


def test_an_absent_table_reads_as_empty(store: Store) -> None:
    assert store.version("m", "labels") is None
    found = store.frame("m", "labels")
    assert list(found.columns) == ["id", "truth", "labelled_at", "author"]
    assert len(found) == 0
    assert str(found["labelled_at"].dtype) == "datetime64[us, UTC]"
    assert store.read("m", "batches", columns=[ROW_ID, "feature"]).column_names == [ROW_ID]


def test_columns_may_be_added(store: Store) -> None:
    store.append("m", "batches", batch(["a"], x=[1.0]))
    store.append("m", "batches", batch(["b"], x=[2.0], y=["new"]))
    store.append("m", "batches", batch(["c"], y=["alone"]))
    found = store.frame("m", "batches", columns=[ROW_ID, "x", "y", "z"]).sort_values(ROW_ID, ignore_index=True)
    assert list(found.columns) == [ROW_ID, "x", "y"]
    assert found["x"].tolist()[:2] == [1.0, 2.0]
    assert np.isnan(found["x"][2])
    assert found["y"].isna().tolist() == [True, False, False]


def test_types_come_back_as_our_conventions_say(store: Store) -> None:
    image = b"\x89PNG\x00"
    store.append("m", "batches", batch(["a", "b"], x=[1.0, np.nan], word=["x", None], image=[image, None]))
    found = store.frame("m", "batches").sort_values(ROW_ID, ignore_index=True)
    assert {name: str(found[name].dtype) for name in (ROW_ID, ROW_TIME, "x", "word")} == {
        ROW_ID: "str", ROW_TIME: "datetime64[us, UTC]", "x": "float64", "word": "str",
    }  # fmt: skip
    assert found["word"].isna().tolist() == [False, True]
    assert found["image"].tolist() == [image, None]


def test_whole_numbers_fit_into_a_float_column(store: Store) -> None:
    store.append("m", "batches", batch(["a"], x=[1.5]))
    store.append("m", "batches", batch(["b"], x=[2]))
    assert sorted(store.frame("m", "batches")["x"]) == [1.5, 2.0]


def test_a_type_that_would_lose_something_is_refused(store: Store) -> None:
    version = store.append("m", "batches", batch(["a"], x=[1.0])).version
    with pytest.raises(DataError, match=r"column x holds string, the table double: .*abc.*Give the type"):
        store.append("m", "batches", batch(["b"], x=["abc"]))
    assert store.version("m", "batches") == version
    with pytest.raises(DataError, match=r"rows for the table labels lack truth, author. Add the columns"):
        store.append("m", "labels", labels("a").drop(columns=["truth", "author"]))
    with pytest.raises(DataError, match=r"column truth of the table labels: .*Give double"):
        store.append("m", "labels", labels("a").assign(truth="yes"))
    assert store.version("m", "labels") is None


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (1.0, "007", r"'007' would be 7\.0"),
        (1, "1e3", "Failed to parse.*1e3"),
        (True, 2, "2 would be True"),
        (True, "1", "string is not to be read as bool"),
        ("a", True, "bool is not to be read as string"),
        (1, pd.Timestamp(NOW), "is not to be read as int64"),
        (pd.Timestamp(NOW), 5, "int64 is not to be read as timestamp"),
        (1.0, 2**60 + 1, "not in range"),
        (np.float32(0.5), 1e300, "1e\\+300 would be inf"),
    ],
)
def test_what_another_type_would_make_something_else_of_is_refused(
    store: Store, before: Any, now: Any, told: str
) -> None:
    store.append("m", "batches", batch(["a"], x=[before]))
    with pytest.raises(DataError, match=rf"column x holds .*{told}.*or start the model anew"):
        store.append("m", "batches", batch(["b"], x=[now]))
    with pytest.raises(DataError, match=rf"the parts of one delivery differ in type: column x: .*{told}"):
        store.append_parts("m", "batches", lambda: iter([batch(["b"], x=[before]), batch(["c"], x=[now])]))
    assert store.frame("m", "batches")["x"].tolist() == [before]


def test_single_precision_takes_a_number_s_digits_and_no_number(store: Store) -> None:
    store.append("m", "batches", batch(["a"], x=[np.float32(0.5)]))
    store.append("m", "batches", batch(["b", "c", "d"], x=[0.1, float("inf"), float("nan")]))
    held = store.frame("m", "batches").set_index(ROW_ID)["x"]
    assert held["b"] == np.float32(0.1)
    assert np.isinf(held["c"])
    assert np.isnan(held["d"])


_WORDS = st.text("0123456789.-e ", max_size=5)


@given(
    values=st.one_of(st.lists(st.integers(-(2**62), 2**62) | st.none()), st.lists(_WORDS | st.none())),
    kind=st.sampled_from([pa.string(), pa.int64(), pa.float64(), pa.bool_()]),
)
def test_cast_exactly_gives_the_same_back_or_refuses(values: list[Any], kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(values)])
    try:
        made = cast_exactly(column, kind)
    except ValueError:
        return
    assert made.type == kind
    assert made.null_count == column.null_count
    if column.null_count < len(column):
        assert made.cast(column.type).to_pylist() == values


def test_a_delivery_that_is_none_is_refused_by_name(store: Store) -> None:
    with pytest.raises(DataError, match=r"rows for the table batches: .*column x.*Give each column one type"):
        store.append("m", "batches", batch(["a", "b"]).assign(x=pd.Series([1, "a"], dtype=object)))
    with pytest.raises(DataError, match=r"a part of one delivery lacks column x"):
        store.append_parts("m", "batches", lambda: iter([batch(["b"], x=[1.0]), batch(["c"])]))


@pytest.mark.parametrize("value", [2**63, -(2**70), "half \ud800"])
def test_what_no_table_can_hold_is_refused_by_its_column(store: Store, value: Any) -> None:
    rows = batch(["a"], x=[1.0], y=pd.Series([value], dtype=object))
    with pytest.raises(DataError, match=r"the table batches: column y holds a number beyond .*such numbers as text"):
        store.append("m", "batches", rows)
    assert store.count("m", "batches") == 0


def test_of_two_faults_at_once_one_is_told_by_its_column(store: Store) -> None:
    """Columns are converted beside each other: any of them may complain first."""
    mixed, half = pd.Series([1, "a"], dtype=object), pd.Series(["b", "half \ud800"], dtype=object)
    for faults in ({"x": mixed, "y": half}, {"y": half, "x": mixed}):
        with pytest.raises(DataError, match=r"rows for the table batches: .*column (x|y) "):
            store.append("m", "batches", batch(["a", "b"]).assign(**faults))
    assert store.count("m", "batches") == 0


def test_a_filter_is_half_open(store: Store) -> None:
    frame = pd.concat([labels(str(number), at=NOW + timedelta(hours=number)) for number in range(4)])
    store.append("m", "labels", pa.Table.from_pandas(frame, preserve_index=False))
    where = between("labelled_at", NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    assert sorted(store.frame("m", "labels", where=where)["id"]) == ["1", "2"]
    assert sorted(store.frame("m", "labels", where=between("labelled_at", None, NOW))["id"]) == []


@pytest.mark.parametrize(
    "values",
    [[], [None], np.array([], dtype=object), pd.Series([], dtype="float64"), pd.Series([None, np.nan], dtype=object),
     pd.Series([], dtype="str"), pa.chunked_array([], pa.string()), pa.array([], pa.null())],
    ids=lambda values: f"{type(values).__name__}-{len(values)}",
)  # fmt: skip
def test_a_row_is_among_no_values_at_all(store: Store, values: Any) -> None:
    store.append("m", "labels", labels("a"))
    assert store.count("m", "labels", where=among("id", values)) == 0
    assert store.count("m", "labels", where=among("id", ["a", None])) == 1


def test_models_don_t_share_tables(store: Store) -> None:
    store.append("m", "labels", labels("a"))
    assert len(store.read("other", "labels")) == 0


def test_somebody_elses_table(store: Store) -> None:
    store.append("m", "labels", labels("a"))
    assert read_table(f"{store.root}/m/labels")["id"].to_pylist() == ["a"]
    with pytest.raises(NotFoundError, match=r"there is no Delta table at .*none. Correct the path"):
        read_table(f"{store.root}/none")


def test_too_many_writers_is_an_error_and_no_silence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from deltalake.exceptions import CommitFailedError

    def lose(*_arguments: Any) -> None:
        raise CommitFailedError("somebody else")

    monkeypatch.setattr("perennial.state.store._commit", lose)
    with pytest.raises(ConflictError, match=r"m/labels is being written by too many at once. Try again"):
        store.append("m", "labels", labels("a"))
