"""Truth values and moments on every road: by file, API and Python the same row gives the same features, or none."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.cells.moments import moment_text, moments
from perennial.model.features import feature_frame
from perennial.serving.protocol.codec import encode_json, parse_request
from perennial.serving.protocol.problems import Problem
from perennial.serving.protocol.schema import Schema
from perennial.serving.protocol.v2 import parse_inference
from tasks.intake.readable import read_rows
from tasks.rows.files import read_file
from tasks.rows.normal_form import normalise

DEFINITION = ModelDefinition.model_validate(
    {
        "name": "visits", "task": "regression",
        "data": {"source": {"parquet": "rows.parquet"}, "id": "row", "time": "at", "target": "y"},
        "features": {
            "numeric": ["x"], "boolean": ["member"], "datetime": ["seen", "born"], "epoch_units": {"born": "ms"},
        },
    }
)  # fmt: skip
SCHEMA = Schema(
    ("x", "member", "seen", "born"), ("numeric", "boolean", "datetime", "datetime"), {"x": 0.5}, ("row",), "at",
    units={"born": "ms"},
)  # fmt: skip
MOMENTS = st.datetimes(datetime(1850, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
ROWS = st.lists(st.tuples(st.booleans() | st.none(), MOMENTS | st.none(), MOMENTS | st.none()), min_size=1, max_size=12)


def plain(rows: list[Any]) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    return [
        {
            "row": f"r{place}", "at": "2024-01-01T00:00:00Z", "x": 0.5, "member": member,
            "seen": None if seen is None else seen.isoformat(),
            "born": None if born is None else round(born.timestamp() * 1000),
        }
        for place, (member, seen, born) in enumerate(rows)
    ]  # fmt: skip


def by_python(rows: list[Any]) -> pd.DataFrame:
    frame = pd.DataFrame({"row": [f"r{place}" for place in range(len(rows))], "at": "2024-01-01T00:00:00Z", "x": 0.5})
    frame["member"] = pd.array([row[0] for row in rows], dtype="boolean")
    for place, name in ((1, "seen"), (2, "born")):
        frame[name] = pd.to_datetime(pd.Series([row[place] for row in rows]), utc=True)
    return frame


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, words=st.sampled_from([("yes", "no"), ("T", "f"), ("1", "0"), ("True", "False")]))
def test_a_row_has_the_same_features_on_every_road(tmp_path: Path, rows: list[Any], words: tuple[str, str]) -> None:
    frame = by_python(rows)
    wanted = feature_frame(normalise(frame, DEFINITION), DEFINITION.features)
    pd.testing.assert_frame_equal(feature_frame(frame, DEFINITION.features), wanted)
    assert wanted.dtypes.astype(str).tolist() == ["float64", "float64", "datetime64[us]", "datetime64[us]"]

    table = pa.table({name: pa.array([row[name] for row in plain(rows)]) for name in plain(rows)[0]})
    typed = pa.table(
        {
            **{name: table[name] for name in ("row", "at", "x")},
            "member": pa.array([row[0] for row in rows], pa.bool_()),
            "seen": pa.array([row[1] for row in rows], pa.timestamp("us", "UTC")),
            "born": pa.array([row["born"] for row in plain(rows)], pa.int64()),
        }
    )
    pq.write_table(typed, tmp_path / "rows.parquet")
    said = [None if row[0] is None else words[not row[0]] for row in rows]
    pa.csv.write_csv(typed.set_column(3, "member", pa.array(said, pa.string())), tmp_path / "rows.csv")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, plain(rows))))
    for name in ("rows.parquet", "rows.csv", "rows.jsonl"):
        found = normalise(read_file(tmp_path / name, DEFINITION), DEFINITION)
        pd.testing.assert_frame_equal(feature_frame(found, DEFINITION.features), wanted, obj=name)

    for request in requests(rows, words):
        missing: dict[str, int] = {}
        SCHEMA.clean(request.rows, {}, missing)
        pd.testing.assert_frame_equal(SCHEMA.frame(request.rows), wanted)
        assert missing == {name: int(gaps) for name, gaps in wanted.isna().sum().items() if gaps}


def requests(rows: list[Any], words: tuple[str, str]) -> list[Any]:
    records = plain(rows)
    said = [{**row, "member": None if row["member"] is None else words[not row["member"]]} for row in records]
    split = {"columns": list(records[0]), "data": [list(row.values()) for row in records]}
    written = pd.DataFrame(said, dtype=object).to_csv(index=False).encode()
    count = len(rows)
    tensors = [
        {"name": name, "datatype": kind, "shape": [count], "data": [row[name] for row in records]}
        for name, kind in (("x", "FP64"), ("member", "BOOL"), ("seen", "BYTES"), ("born", "INT64"))
    ]
    return [
        parse_request(encode_json({"dataframe_records": records}), "application/json", SCHEMA, 100),
        parse_request(encode_json({"dataframe_records": said}), "application/json", SCHEMA, 100),
        parse_request(encode_json({"dataframe_split": split}), "application/json", SCHEMA, 100),
        parse_request(written, "text/csv", SCHEMA, 100),
        parse_inference(encode_json({"inputs": tensors}), None, SCHEMA, DEFINITION, 100).request,
    ]


def test_a_binary_tensor_of_truth_values_is_read() -> None:
    head = encode_json(
        {
            "inputs": [
                {"name": "member", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
                {"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2]},
                {"name": "seen", "datatype": "BYTES", "shape": [2], "data": ["2024-01-01", ""]},
                {"name": "born", "datatype": "INT64", "shape": [2], "data": [-1, 1]},
            ]
        }
    )
    body = head + np.array([True, False]).tobytes()
    request = parse_inference(body, str(len(head)), SCHEMA, DEFINITION, 10).request
    SCHEMA.clean(request.rows)
    assert request.rows == [[1.0, 1.0, 1704067200000000, -1000], [2.0, 0.0, None, 1000]]


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("member", "perhaps", "true or false"),
        ("member", 2, "true or false"),
        ("seen", "01/02/2024", "ISO 8601"),
        ("seen", 1700000000, "epoch_units: {seen: s}"),
        ("born", "yesterday", "a number of ms since 1970"),
    ],
)
def test_what_is_neither_is_refused_by_name_on_every_road(column: str, cell: Any, told: str) -> None:
    records = plain([(True, datetime(2024, 1, 1, tzinfo=UTC), datetime(1990, 1, 1, tzinfo=UTC))] * 10)
    records[3][column] = cell
    frame = pd.DataFrame(records).astype({column: object})
    readable = read_rows(frame, DEFINITION)
    assert list(readable.refused) == [3]
    assert str(cell) in readable.refused.text(3)
    assert told in readable.refused.text(3)
    assert readable.refused.rules(3)[0].startswith(f"{column}: no ")
    assert readable.rows["member"].tolist() == ["True"] * 9
    assert str(readable.rows["seen"].dtype) == "datetime64[us, UTC]"
    with pytest.raises(DataError, match=rf"column '{column}', row 3"):
        feature_frame(frame, DEFINITION.features)
    for count in (10, 4):  # by columns and by rows
        request = parse_request(encode_json({"dataframe_records": records[:count]}), "application/json", SCHEMA, 100)
        with pytest.raises(Problem) as caught:
            SCHEMA.clean(request.rows)
        assert (caught.value.details["column"], caught.value.details["row"]) == (column, 3)
        assert told in caught.value.message


def test_the_log_tells_them_as_people_read_them_and_they_read_back() -> None:
    born = moments(pd.Series(["1960-05-01T12:00:00.25Z"]))[0][0]
    assert SCHEMA.told(1, 1.0) is True
    assert SCHEMA.told(1, float("nan")) is None
    assert SCHEMA.told(3, int(born)) == moment_text(int(born)) == "1960-05-01T12:00:00.250000Z"
    assert SCHEMA.told(3, None) is None
    assert SCHEMA.retold == (1, 2, 3)


def test_units_belong_to_moments_and_zones_exist() -> None:
    raw = DEFINITION.model_dump(mode="json")
    for features, told in (
        ({"epoch_units": {"x": "s"}}, "epoch_units must name datetime features: x"),
        ({"timezone": "Europe/Roma"}, "no zone of the IANA database"),
        ({"boolean": ["x"]}, "named twice: x"),
    ):
        with pytest.raises(ValueError, match=told):
            ModelDefinition.model_validate(raw | {"features": raw["features"] | features})
