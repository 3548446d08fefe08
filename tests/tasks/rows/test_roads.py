"""The same rows on every road, files, sources and requests, are the same ids and categories, and predict the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import spelled
from perennial.model.features import feature_frame
from perennial.model.known import known_categories
from perennial.serving.protocol.codec import encode_json, parse_request
from perennial.serving.protocol.schema import Schema
from perennial.serving.protocol.v2 import parse_inference
from tasks.learning.fitting import predict_score
from tasks.rows.files import read_file, read_in_chunks
from tasks.rows.normal_form import normalise
from tasks.rows.source import read_source

KINDS: dict[str, tuple[list[Any], list[str]]] = {
    "int": ([3, 0, -7, 2**53 + 1, 12], ["3", "0", "-7", "9007199254740993", "12"]),
    "float": ([3.0, 0.5, -7.25, 1e15, 1e-5], ["3", "0.5", "-7.25", "1000000000000000", "0.00001"]),
    "bool": ([True, False], ["True", "False"]),
    "text": (["NA", "None", "007", "a,\"b\"", "1e3"], ["NA", "None", "007", "a,\"b\"", "1e3"]),
    "time": (
        [datetime(2012, 12, 21, 22), datetime(2012, 12, 21), datetime(2024, 2, 29, 5, 30, 0, 250000)],
        ["2012-12-21 22:00:00", "2012-12-21", "2024-02-29 05:30:00.25"],
    ),
    "decimal": ([Decimal("3.00"), Decimal("2.75"), Decimal("-0.00")], ["3", "2.75", "0"]),
}  # fmt: skip
TYPES = {
    "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string(), "time": pa.timestamp("us"),
    "decimal": pa.decimal128(10, 2),
}  # fmt: skip


def define(tmp_path: Path, **data: Any) -> ModelDefinition:
    raw = {
        "name": "roads", "task": "regression",
        "data": {"source": {"parquet": "rows.parquet"}, "id": "row", "time": "at", "target": "y"} | data,
        "features": {"numeric": ["x"], "categorical": ["c"]},
    }  # fmt: skip
    return ModelDefinition.model_validate(raw).model_copy(update={"path": tmp_path / "roads.yaml"})


def table_of(kind: str, *, gap: bool = False) -> pa.Table:
    """The kind's values as ids and as categories; a gap is one more row, without a category."""
    values, _ = KINDS[kind]
    count = len(values) + gap
    ids = [*values, *({"text": "z", "bool": None}.get(kind, _another(kind)) for _ in range(gap))]
    return pa.table(
        {
            # There are not more than two truth values, and a row needs an id.
            "row": pa.array(range(count)) if kind == "bool" else pa.array(ids, TYPES[kind]),
            "at": pa.array([datetime(2024, 1, 1, hour) for hour in range(count)], pa.timestamp("us", "UTC")),
            "x": [0.5 * number for number in range(count)],
            "c": pa.array([*values, *[None] * gap], TYPES[kind]),
            "y": [float(number) for number in range(count)],
        }
    )


def _another(kind: str) -> Any:
    return {"int": 99, "float": 99.5, "time": datetime(2030, 1, 1), "decimal": Decimal("99.00")}.get(kind)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else float(value) if isinstance(value, Decimal) else value


def csv(table: pa.Table, path: Path) -> pd.DataFrame:
    target = path / "rows.csv"
    table.to_pandas().to_csv(target, index=False)
    return read_file(target, define(path))


def csv_with_a_gap(kind: str, path: Path) -> pd.DataFrame:
    frame = table_of(kind, gap=True).to_pandas()
    if kind == "int":  # what pandas makes of it is told, and not merged: see below
        frame["c"] = frame["c"].where(frame["c"] < 2**53)
    frame.to_csv(path / "gap.csv", index=False)
    return read_file(path / "gap.csv", define(path))


def parquet(table: pa.Table, path: Path) -> pd.DataFrame:
    pq.write_table(table, path / "rows.parquet")
    return read_file(path / "rows.parquet", define(path))


def chunked(table: pa.Table, path: Path) -> pd.DataFrame:
    pq.write_table(table, path / "rows.parquet")
    return pd.concat(list(read_in_chunks(path / "rows.parquet", define(path), 2)), ignore_index=True)


def delta(table: pa.Table, path: Path) -> pd.DataFrame:
    write_deltalake(path / "rows.delta", table)
    return read_source(define(path, source={"delta": "rows.delta"}), None, datetime(2025, 1, 1, tzinfo=UTC))


def json_lines(table: pa.Table, path: Path) -> pd.DataFrame:
    lines = [json.dumps({name: plain(value) for name, value in row.items()}) for row in table.to_pylist()]
    (path / "rows.jsonl").write_text("\n".join(lines))
    return read_file(path / "rows.jsonl", define(path))


ROADS: dict[str, Callable[[pa.Table, Path], pd.DataFrame]] = {
    "csv": csv, "parquet": parquet, "parquet in chunks": chunked, "delta": delta, "json lines": json_lines,
}  # fmt: skip


def fitted(table: pa.Table, definition: ModelDefinition, path: Path) -> Any:
    """A model for which each category is worth another number."""
    rows = normalise(parquet(table, path), definition)
    features = feature_frame(rows, definition.features)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    preprocess = ColumnTransformer([("x", "passthrough", ["x"]), ("c", encoder, ["c"])])
    target = 100.0 * 2.0 ** np.arange(len(rows))
    return Pipeline([("preprocess", preprocess), ("model", LinearRegression())]).fit(features, target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("road", ROADS)
def test_files_and_tables_are_one_truth(tmp_path: Path, road: str, kind: str) -> None:
    definition, table = define(tmp_path), table_of(kind)
    _, names = KINDS[kind]
    rows = normalise(ROADS[road](table, tmp_path), definition)
    assert rows["c"].tolist() == names
    if kind != "bool":
        assert rows["_id"].tolist() == names
    assert rows["x"].tolist() == table["x"].to_pylist()
    pipeline = fitted(table, definition, tmp_path)
    wanted = 100.0 * 2.0 ** np.arange(len(names))
    np.testing.assert_allclose(predict_score(pipeline, feature_frame(rows, definition.features), "regression"), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("road", [*ROADS, "csv of pandas"])
def test_a_gap_changes_no_other_category(tmp_path: Path, road: str, kind: str) -> None:
    made = csv_with_a_gap(kind, tmp_path) if road == "csv of pandas" else None
    if made is None and road == "csv":  # a writer that keeps integers
        pa.csv.write_csv(table_of(kind, gap=True), tmp_path / "gap.csv")
        made = read_file(tmp_path / "gap.csv", define(tmp_path))
    if made is None:
        made = ROADS[road](table_of(kind, gap=True), tmp_path)
    found = [None if pd.isna(cell) else cell for cell in normalise(made, define(tmp_path))["c"]]
    names: list[str | None] = [*KINDS[kind][1], None]
    if (road, kind) == ("csv of pandas", "int"):
        names[3] = None
    assert found == names


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_is_one_truth_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/rows.sqlite"
    monkeypatch.setenv("ROWS_URL", url)
    frame = table_of(kind, gap=True).to_pandas(types_mapper=pd.ArrowDtype).astype({"at": "str"}).astype(object)
    # SQLite has neither decimals nor times: the first are floats there, the second texts.
    types = {
        "decimal": sqlalchemy.Numeric(10, 2), "time": sqlalchemy.DateTime(), "bool": sqlalchemy.Boolean(),
        "int": sqlalchemy.BigInteger(), "float": sqlalchemy.Float(), "text": sqlalchemy.Text(),
    }  # fmt: skip
    values = frame.where(frame.notna(), None)
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).begin() as connection:
        own = sqlalchemy.Integer() if kind == "bool" else types[kind]
        kinds = {"row": own, "at": sqlalchemy.Text(), "c": types[kind]}
        kinds |= {"x": sqlalchemy.Float(), "y": sqlalchemy.Float()}
        columns = [sqlalchemy.Column(name, kinds[name]) for name in frame.columns]
        rows_table = sqlalchemy.Table("rows", sqlalchemy.MetaData(), *columns)
        rows_table.create(connection)
        connection.execute(rows_table.insert(), values.to_dict("records"))
    definition = define(tmp_path, source={"sql": "select * from rows where at < :end", "url_env": "ROWS_URL"})
    rows = normalise(read_source(definition, None, datetime(2025, 1, 1, tzinfo=UTC)), definition)

    # SQLite's truth values are 0 and 1: so the model, which learned them as truth values, is to take them.
    names = ["1", "0"] if kind == "bool" else KINDS[kind][1]
    assert rows["c"].tolist()[:-1] == names
    assert pd.isna(rows["c"].iloc[-1])
    if kind != "bool":
        assert rows["_id"].tolist()[:-1] == names
    pipeline = fitted(table_of(kind), definition, tmp_path)
    features = feature_frame(rows.iloc[:-1], definition.features)
    np.testing.assert_allclose(predict_score(pipeline, features, "regression"), 100.0 * 2.0 ** np.arange(len(names)))


# --- requests ---


def requests_of(kind: str) -> dict[str, list[Any]]:
    """The same values as clients write them."""
    values, names = KINDS[kind]
    ways = {"as they are": [plain(value) for value in values], "as text": names}
    if kind == "int":
        ways |= {"as floats": [float(value) if value < 2**53 else value for value in values],
                 "as texts of floats": [f"{value}.0" if value < 2**53 else str(value) for value in values]}  # fmt: skip
    if kind == "bool":
        ways |= {"as numbers": [1, 0], "as floats": [1.0, 0.0], "as JSON text": ["true", "false"]}
    if kind == "time":
        ways |= {
            "with a zone": [f"{value.isoformat()}+00:00" for value in values],
            "with Z": [f"{value}Z" for value in values],
        }
    if kind == "decimal":
        ways |= {"with zeros": ["3.00", 2.75, "0.00"]}
    return ways


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_one_truth_with_the_files(tmp_path: Path, kind: str) -> None:
    definition = define(tmp_path)
    pipeline = fitted(table_of(kind), definition, tmp_path)
    known = known_categories(pipeline)
    schema = Schema(("x", "c"), ("numeric", "categorical"), {}, ("row",), "at", (None, known["c"]))
    names = KINDS[kind][1]
    wanted = 100.0 * 2.0 ** np.arange(len(names))

    def check(request: Any, *, with_ids: bool = True) -> None:
        unseen: dict[tuple[str, str], int] = {}
        schema.clean(request.rows, unseen)
        assert not unseen
        assert [row[1] for row in request.rows] == names
        if with_ids:
            assert request.ids == names
        np.testing.assert_allclose(predict_score(pipeline, schema.frame(request.rows), "regression"), wanted)

    for values in requests_of(kind).values():
        ids = kind != "bool"
        cells = [{"x": 0.5 * n, "c": value} | ({"row": value} if ids else {}) for n, value in enumerate(values)]
        body = encode_json({"dataframe_records": cells})
        check(parse_request(body, "application/json", schema, 100), with_ids=ids)
        split = {"columns": list(cells[0]), "data": [list(cell.values()) for cell in cells]}
        check(parse_request(encode_json({"dataframe_split": split}), "application/json", schema, 100), with_ids=ids)
        written = pd.DataFrame(cells, dtype=object).to_csv(index=False).encode()
        check(parse_request(written, "text/csv", schema, 100), with_ids=ids)
    for datatype, data in tensors_of(kind):
        raw = not isinstance(data, list)
        c = {"name": "c", "datatype": datatype, "shape": [len(names)]}
        x = {"name": "x", "datatype": "FP64", "shape": [len(names)], "data": [0.5 * n for n in range(len(names))]}
        c |= {"parameters": {"binary_data_size": len(data)}} if raw else {"data": data}
        head = encode_json({"inputs": [x, c]})
        body, length = (head + data, str(len(head))) if raw else (head, None)
        check(parse_inference(body, length, schema, definition, 100).request, with_ids=False)


def tensors_of(kind: str) -> list[tuple[str, Any]]:
    """Tensors of the values, in JSON and in their binary form."""
    values, names = KINDS[kind]
    texts = b"".join(len(name.encode()).to_bytes(4, "little") + name.encode() for name in names)
    found: list[tuple[str, Any]] = [("BYTES", names), ("BYTES", texts)]
    if kind == "int":
        found += [("INT64", values), ("INT64", np.array(values, dtype="<i8").tobytes())]
    if kind == "float":
        found += [("FP64", values), ("FP64", np.array(values, dtype="<f8").tobytes())]
    if kind == "bool":
        found += [("BOOL", values), ("BOOL", np.array(values).tobytes()), ("UINT8", np.array([1, 0], "u1").tobytes())]
    if kind == "decimal":
        found += [("FP64", np.array([3.0, 2.75, -0.0], dtype="<f8").tobytes()),
                  ("FP32", np.array([3.0, 2.75, -0.0], dtype="<f4").tobytes())]  # fmt: skip
    return found


def test_a_tensor_of_single_precision_is_spelled_in_its_own() -> None:
    schema = Schema(("c",), ("categorical",), {}, ("row",), "at", (frozenset({"0.1"}),))
    head = encode_json(
        {"inputs": [{"name": "c", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}
    )
    body = head + np.array([0.1], dtype="<f4").tobytes()
    request = parse_inference(body, str(len(head)), schema, define(Path()), 10).request
    schema.clean(request.rows)
    assert request.rows == [["0.1"]]


# --- what can't be told apart any more ---


@pytest.mark.parametrize("road", ["csv", "parquet"])
def test_codes_that_a_float_has_merged_are_refused_by_name(tmp_path: Path, road: str) -> None:
    frame = table_of("int").to_pandas().astype({"c": "float64"})
    if road == "csv":
        frame.to_csv(tmp_path / "rows.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"column 'c', row 3 .*not told apart\. Store the column as integers"):
        normalise(read_file(tmp_path / f"rows.{road}", define(tmp_path)), define(tmp_path))


def test_codes_beyond_a_float_stay_beside_a_gap_on_every_road(tmp_path: Path) -> None:
    table = table_of("int", gap=True)
    for road in ("parquet", "parquet in chunks", "delta", "json lines"):
        rows = normalise(ROADS[road](table, tmp_path), define(tmp_path))
        assert rows["c"].tolist()[:-1] == KINDS["int"][1], road


def test_a_decimal_as_text_keeps_its_zeros(tmp_path: Path) -> None:
    # Nobody can tell the price 2.50 from the version 3.10, which is not 3.1.
    pd.DataFrame({"row": ["1.10", "1.1"], "at": "2024-01-01", "x": 1, "c": ["3.10", "3.1"]}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    rows = normalise(read_file(tmp_path / "rows.csv", define(tmp_path)), define(tmp_path))
    assert (rows["_id"].tolist(), rows["c"].tolist()) == (["1.10", "1.1"], ["3.10", "3.1"])


# --- there and back ---

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=12)
CATEGORIES = st.one_of(
    st.lists(st.one_of(st.none(), TEXTS), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), st.floats(-1e15, 1e15)), min_size=1, max_size=8),
    st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1, max_size=8),
)  # fmt: skip
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(categories=CATEGORIES, data=st.data())
def test_frames_come_back_as_they_went(tmp_path: Path, categories: list[Any], data: st.DataObject) -> None:
    count = len(categories)
    xs = data.draw(st.lists(NUMBERS, min_size=count, max_size=count))
    table = pa.table(
        {
            "row": [f"r {number}" for number in range(count)],
            "at": pa.array([datetime(2024, 1, 1)] * count, pa.timestamp("us", "UTC")),
            "x": pa.array([None if x is None else float(x) for x in xs], pa.float64()),
            "c": pa.array(categories),
        }
    )
    names = [spelled(cell) for cell in categories]
    definition = define(tmp_path)
    wanted = None
    for road in ("parquet", "csv of Arrow", "json lines"):
        if road == "csv of Arrow":
            pa.csv.write_csv(table, tmp_path / "rows.csv")
            made = read_file(tmp_path / "rows.csv", definition)
        else:
            made = ROADS[road](table, tmp_path)
        rows = normalise(made, definition)
        assert [None if pd.isna(cell) else cell for cell in rows["c"]] == names, road
        wanted = rows if wanted is None else wanted
        pd.testing.assert_frame_equal(rows, wanted, check_exact=True)
