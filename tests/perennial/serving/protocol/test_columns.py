"""Tests of requests of many rows: by columns they are taken, refused, counted and logged as row by row."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.serving.log.entries import Entry, prediction_table
from perennial.serving.protocol import codec
from perennial.serving.protocol.codec import Request, parse_request
from perennial.serving.protocol.columns import Columns, columns_of, pick, together
from perennial.serving.protocol.problems import Problem
from perennial.serving.protocol.schema import Schema

SCHEMA = Schema(
    ("a", "n", "colour", "code", "note"), ("numeric", "numeric", "categorical", "categorical", "text"),
    {"a": 1.0, "n": 2.0, "colour": "red", "code": "7", "note": "x"}, ("row",), "at",
    (None, None, frozenset({"red", "blue", "1"}), None, None),
)  # fmt: skip
NUMBERS = st.one_of(
    st.none(), st.floats(allow_nan=False, width=32), st.integers(-(2**70), 2**70), st.booleans(),
    st.sampled_from(["2.5", "x", " ", 1e300, 10**400]),
)  # fmt: skip
NAMES = st.one_of(
    st.none(), st.sampled_from(["red", "blue", "True", "mauve", "3.0", "", "2020-01-01T00:00"]), st.integers(-3, 3),
    st.booleans(), st.floats(-2, 2), st.just([1]), st.just(2.0**60),
)  # fmt: skip
PLAIN = st.tuples(st.floats(-9, 9) | st.none(), st.integers(-9, 9) | st.none(), st.sampled_from(["red", "blue", None]),
                  st.sampled_from(["7", "3.0", ""]), st.text(max_size=3))  # fmt: skip
CELLS = st.tuples(NUMBERS, NUMBERS, NAMES, NAMES, NAMES)


def outcome(request: Any) -> Any:
    """Clean rows, ids, times and counts; or what is refused, and how."""
    try:
        made: Request = request()
        unseen: dict[Any, int] = {}
        missing: dict[str, int] = {}
        SCHEMA.clean(made.rows, unseen, missing)
    except Problem as problem:
        return problem.status, problem.message, problem.details
    rows = made.rows.rows() if isinstance(made.rows, Columns) else made.rows
    pd.testing.assert_frame_equal(SCHEMA.frame(made.rows), SCHEMA.frame(rows))
    plain = [[None if cell != cell else cell for cell in row] for row in rows]
    return plain, made.ids, made.times, unseen, missing, made.output


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(PLAIN | CELLS, min_size=1, max_size=12) | st.lists(PLAIN, min_size=8, max_size=12),
    form=st.sampled_from(["dataframe_records", "instances", "lists", "dataframe_split", "columns"]),
    extras=st.sampled_from([{}, {"params": {"output": "label"}}, {"ids": ["x"]}, {"params": 3}]),
    own=st.sampled_from([None, "row", "at"]),
)
def test_by_columns_is_as_by_rows(rows: list[Any], form: str, extras: dict[str, Any], own: str | None) -> None:
    records = [dict(zip(SCHEMA.columns, row, strict=True)) for row in rows]
    for number, record in enumerate(records):
        if own is not None:
            record[own] = f"r{number}" if own == "row" else "2026-01-31T06:00:00Z"
    names = list(records[0])
    lists = [list(record.values()) for record in records]
    content: dict[str, Any] = {
        "dataframe_records": {"dataframe_records": records}, "instances": {"instances": records},
        "lists": {"inputs": [row[:5] for row in lists]},
        "dataframe_split": {"dataframe_split": {"columns": names, "data": lists}},
        "columns": {"inputs": {name: [record[name] for record in records] for name in names}},
    }[form]  # fmt: skip
    body = json.dumps(content | extras).encode()

    def parse() -> Request:
        return parse_request(body, "application/json", SCHEMA, 100)

    found = []
    for least_rows, least_bytes in ((1, 1), (1, 10**9), (10**9, 10**9)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "COLUMN_ROWS", least_rows)
            patch.setattr(codec, "_MANY_BYTES", least_bytes)
            found.append(outcome(parse))
    assert found[0] == found[1] == found[2]


def test_parts_are_picked_and_joined() -> None:
    rows = [[1.0, 2.0, "red", "7", "x"], [float("nan"), 3.0, None, "8", None], [5.0, 6.0, "blue", "9", "z"]]
    columns = columns_of(copy.deepcopy(rows))
    SCHEMA.clean(columns)
    assert [row[1:] for row in pick(columns, [2, 1]).rows()] == [rows[2][1:], rows[1][1:]]  # type: ignore[union-attr]
    joined = together([columns, rows[:1], pick(columns, [2])])
    assert isinstance(joined, Columns)
    assert len(joined) == 5
    assert joined.rows()[3:] == [rows[0], rows[2]]
    assert joined.cells[0].dtype == np.float64
    assert together([rows[:1], rows[2:]]) == [rows[0], rows[2]]


def test_the_log_is_the_same_by_column_and_by_row() -> None:
    rows = [[1.0, float("nan"), "red", "7", None], [2.5, 3.0, None, "8", "é"]]
    columns = columns_of(copy.deepcopy(rows))
    SCHEMA.clean(columns)

    def table(cells: list[Any], by_column: bool) -> Any:
        entry = Entry(
            "champion", 1, 7, 8, False, ["x", "y"], [0.1, 0.2], None, None, 0.0, list(SCHEMA.columns), cells,
            by_column=by_column,
        )  # fmt: skip
        return prediction_table([msgspec.json.decode(msgspec.json.encode(entry), type=Entry)])

    assert table(columns.plain(), True) == table(rows, False)
    of_before = msgspec.json.encode(Entry("champion", 1, 7, 8, False, ["x"], [0.1], None, None, 0.0, ["a"], [[1.0]]))
    older = msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(of_before)[:-1]), type=Entry)
    assert prediction_table([older])["inputs"].to_pylist() == ['{"a":1.0}']
