"""MLflow's scoring protocol: bytes to rows, scores to bytes. Checks shapes, not cells; scores nothing.

Takes `dataframe_split`, `dataframe_records`, `inputs` (records, rows or columns) and `instances` in JSON, and CSV.
Beside them: `ids`, one for each row, and `params: {"output": "probability" | "label" | "both" | "word"}`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from perennial.model.canonical import Unspellable, joined, parted, spelled
from perennial.model.numbers import MISSING_NUMBERS
from perennial.serving.protocol.columns import COLUMN_ROWS, Columns, Row, Rows, column_of
from perennial.serving.protocol.media import CSV, kind_of
from perennial.serving.protocol.problems import Problem, shown
from perennial.serving.protocol.schema import Schema
from perennial.serving.protocol.typed import Records

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_BESIDE = ("ids", "params", "signature_name")  # the last is TensorFlow's, and says nothing here
OUTPUTS = ("probability", "label", "both", "word")
_LONGEST_ID = 256
# Whoever reads the log must be able to hold the times: these fit into pandas' nanoseconds.
_FIRST_YEAR, _LAST_YEAR = 1678, 2261
_MANY_BYTES, _HEAD_BYTES = 1500, 64
_decode = msgspec.json.Decoder().decode
encode_json = msgspec.json.Encoder().encode


@dataclass
class Request:
    """What is to be scored.

    Attributes:
        rows: Cells in the schema's order, as they came; of many rows, by column.
        ids: The client's ids; None where it gave none.
        times: Event times in microseconds where the client gave any.
        output: probability, label or both; None for the model's default.
        warnings: What the answer tells beside the scores: categories that training never saw.
    """

    rows: Rows
    ids: list[str] | None = None
    times: list[int | None] | None = None
    output: str | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


def parse_json(body: bytes) -> Any:
    """JSON, and what Python's own encoder makes of NaN.

    Raises:
        Problem: 400 where it is neither.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # bad UTF-8 in a text is a ValueError
        reason = str(error)
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair can neither be logged nor answered
        return document
    except (ValueError, RecursionError):
        raise Problem(400, f"the body is not JSON: {reason}", rule="one JSON document in UTF-8") from None


def parse_request(body: bytes, content_type: str, schema: Schema, most_rows: int) -> Request:
    """A request in any of the forms.

    Raises:
        Problem: 400, 413, 415 or 422, saying which part is wrong.
    """
    kind, charset = kind_of(content_type, CSV)
    if kind == CSV:
        return _from_csv(body, charset, schema, most_rows)
    many = len(body) >= _MANY_BYTES and b'"dataframe_split"' not in body[:_HEAD_BYTES]
    if many and (records := schema.records(body)) and len(records.columns) >= COLUMN_ROWS:
        return _from_typed(records, schema, most_rows)
    document = parse_json(body)
    if not isinstance(document, dict):
        raise _wrong_form(document, schema)
    given = [name for name in FORMS if name in document]
    if len(given) != 1:
        raise _wrong_form(document, schema)
    refuse_strangers(document, (given[0], *_BESIDE), "the body")
    request = _from_form(given[0], document[given[0]], schema, most_rows)
    _add_extras(request, document, schema)
    return request


def take_output(value: object) -> str:
    """Which output a request wants.

    Raises:
        Problem: 422 where there is no such output.
    """
    if value not in OUTPUTS:
        raise Problem(
            422, f"output {shown(value)} is not {', '.join(OUTPUTS)}", value=shown(value), rule="|".join(OUTPUTS)
        )
    return str(value)


def take_ids(values: object, count: int, columns: Sequence[str]) -> list[str]:
    """A client's ids in their spelling.

    Args:
        columns: What they are made of; of several, an id is the list of its parts, or as answers give it.

    Raises:
        Problem: 422 where they are not one for each row, unlike each other, and short.
    """

    def refuse(problem: str, value: object, row: int | None = None) -> Problem:
        rule = f"one id for each row, all different; each {id_rule(columns)}"
        return Problem(422, f"{problem}; wanted: {rule}", row=row, value=shown(value), rule=rule)

    if not isinstance(values, list | tuple) or len(values) != count:
        raise refuse(f"ids {shown(values)} are not one for each row", values)
    ids = []
    for row, value in enumerate(values):
        if (name := take_id(value, columns)) is None:
            raise refuse(f"id {shown(value)} of row {row} is none", value, row)
        ids.append(name)
    if len(set(ids)) != count:
        twice = Counter(ids).most_common(1)[0][0]
        raise refuse(f"id {shown(twice)} is given twice", twice)
    return ids


def take_id(value: object, columns: Sequence[str]) -> str | None:
    """One id in its spelling; None where it breaks `id_rule`."""
    parts: Any = (value,)
    if len(columns) > 1:
        parts = parted(value, len(columns)) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != len(columns):
            return None
    try:
        names = [None if isinstance(part, bool) else spelled(part) for part in parts]
    except Unspellable:
        return None
    if None in names:
        return None
    name = joined(names)  # type: ignore[arg-type]
    return name if len(name) <= _LONGEST_ID else None


def id_rule(columns: Sequence[str]) -> str:
    """What an id is, in words."""
    one = f"a text or a whole number, at most {_LONGEST_ID} characters"
    return one if len(columns) == 1 else f"a list of {', '.join(columns)}, or those joined by |, as answers give them"


def take_time(value: object, row: int, column: str) -> int | None:
    """An event's time (ISO 8601) in microseconds since 1970, UTC where it names no zone.

    Raises:
        Problem: 422 where it is no time.
    """
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
            return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
    except (ValueError, OverflowError):
        pass
    rule = f"a time in ISO 8601 of the years {_FIRST_YEAR} to {_LAST_YEAR}, or null"
    raise Problem(
        422, f"column {column!r}, row {row} (counted from 0): {shown(value)} is not {rule}",
        column=column, row=row, value=shown(value), rule=rule, example="2026-01-31T06:00:00Z",
    )  # fmt: skip


def check_count(count: int, most_rows: int) -> None:
    """Refuse no rows (400) and too many (413)."""
    if not count:
        raise Problem(400, "there is no row to score", rule="at least one row")
    if count > most_rows:
        raise Problem(
            413, f"{count:,} rows are more than {most_rows:,}", rule=f"at most {most_rows} rows in one request"
        )


def from_table(columns: Sequence[Any], data: Sequence[Any], schema: Schema) -> Request:
    """Rows of cells in the order of named columns.

    Raises:
        Problem: 422 where a column is missing or a row has another length.
    """
    where = {name: index for index, name in enumerate(columns) if isinstance(name, str)}
    order = [where.get(name, -1) for name in schema.columns]
    if -1 in order:
        raise missing_column(
            schema, [name for name, index in zip(schema.columns, order, strict=True) if index < 0], columns
        )
    width = len(columns)
    if len(where) < width:
        _refuse_twice(columns, {*schema.columns, *schema.id_columns, schema.time_column})
    if len(data) >= COLUMN_ROWS and {list}.issuperset(map(type, data)) and set(map(len, data)) == {width}:
        return from_columns(columns, list(zip(*data, strict=True)), schema)
    rows = []
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != width:
            rule = f"a list of {width} values"
            raise Problem(422, f"row {number} (counted from 0) is not {rule}", row=number, value=shown(row), rule=rule)
        rows.append([row[index] for index in order])
    request = Request(rows)
    if _has_ids(schema, where):
        places = [where[name] for name in schema.id_columns]
        _ids_from([[row[index] for index in places] for row in data], request, schema)
    if (index := where.get(schema.time_column)) is not None:
        request.times = [take_time(row[index], number, schema.time_column) for number, row in enumerate(data)]
    return request


def from_columns(names: Sequence[Any], columns: Sequence[Any], schema: Schema) -> Request:
    """Named columns of one length, each a list of cells or an array of numbers.

    Raises:
        Problem: 422 where a column is missing.
    """
    where = {name: index for index, name in enumerate(names) if isinstance(name, str)}
    if absent := [name for name in schema.columns if name not in where]:
        raise missing_column(schema, absent, names)
    cells = [columns[where[name]] for name in schema.columns]
    count = len(cells[0])
    if count < COLUMN_ROWS:
        plain = [part.tolist() if isinstance(part, np.ndarray) else part for part in cells]
        request = Request([list(row) for row in zip(*plain, strict=True)])
    else:
        request = Request(Columns(cells))
    if _has_ids(schema, where):
        parts = [columns[where[name]] for name in schema.id_columns]
        parts = [part.tolist() if isinstance(part, np.ndarray) else part for part in parts]
        _ids_from([list(row) for row in zip(*parts, strict=True)], request, schema)
    if (index := where.get(schema.time_column)) is not None:
        request.times = [take_time(value, row, schema.time_column) for row, value in enumerate(columns[index])]
    return request


def _refuse_twice(columns: Sequence[Any], wanted: Collection[str]) -> None:
    for name in wanted:
        if columns.count(name) > 1:
            raise Problem(422, f"column {name!r} is given twice", column=name, rule="each column once")


def missing_column(schema: Schema, names: Sequence[str], given: Sequence[Any], row: int | None = None) -> Problem:
    """The 422 that names the columns that are not there, and what they may have been called."""
    near = [match for name in names for match in get_close_matches(name, [str(item) for item in given], n=1)]
    hint = f"; the nearest there: {', '.join(dict.fromkeys(near))}" if near else ""
    place = "" if row is None else f" in row {row} (counted from 0)"
    return Problem(
        422, f"missing columns{place}: {', '.join(names)}{hint}", column=names[0], row=row,
        rule="every feature is given; null where it is missing", example=dict(schema.example),
    )  # fmt: skip


def _from_form(form: str, content: Any, schema: Schema, most_rows: int) -> Request:
    if form == "dataframe_split":
        if not isinstance(content, dict) or not isinstance(content.get("columns"), list):
            raise _wrong_form(content, schema)
        data = content.get("data")
        if not isinstance(data, list):
            raise _wrong_form(content, schema)
        check_count(len(data), most_rows)
        index = content.get("index")
        if index is not None and (not isinstance(index, list) or len(index) != len(data)):
            rule = f"a list of {len(data)} labels, one for each row of data, or none at all"
            raise Problem(422, f"index {shown(index)} is not {rule}", value=shown(index), rule=rule)
        return from_table(content["columns"], data, schema)
    if isinstance(content, dict) and form in ("inputs", "instances"):
        return _from_columns(content, schema, most_rows)
    if not isinstance(content, list):
        raise _wrong_form(content, schema)
    check_count(len(content), most_rows)
    if isinstance(content[0], list) and form != "dataframe_records":
        return from_table(schema.columns, content, schema)
    return _from_records(content, schema)


def _from_records(records: list[Any], schema: Schema) -> Request:
    names = schema.columns
    rows: list[Row] = []
    found: Rows = rows
    try:
        if len(records) >= COLUMN_ROWS and len(names) > 1 and {dict}.issuperset(map(type, records)):
            found = _columns_of_records(records, schema) or rows
        if found is rows:
            for record in records:
                rows.append([record[name] for name in names])
    except (KeyError, TypeError, IndexError):
        number, record = len(rows), records[len(rows)]
        if not isinstance(record, dict):
            rule = "an object with a value for each feature"
            problem = f"row {number} (counted from 0) is not {rule}"
            raise Problem(
                422, problem, row=number, value=shown(record), rule=rule, example=dict(schema.example)
            ) from None
        raise missing_column(schema, [name for name in names if name not in record], list(record), number) from None
    request = Request(found)
    if _has_ids(schema, records[0]):
        _ids_from([[record.get(name) for name in schema.id_columns] for record in records], request, schema)
    if schema.time_column in records[0]:
        column = schema.time_column
        request.times = [take_time(record.get(column), number, column) for number, record in enumerate(records)]
    return request


def _from_typed(records: Records, schema: Schema, most_rows: int) -> Request:
    check_count(len(records.columns), most_rows)
    request = Request(records.columns)
    given = {*records.others, *schema.columns}
    if _has_ids(schema, given):
        parts = [records.others.get(name) or column_of(records.columns, schema.position[name])
                 for name in schema.id_columns]  # fmt: skip
        _ids_from([list(row) for row in zip(*parts, strict=True)], request, schema)
    times = records.others.get(schema.time_column)
    if schema.time_column in schema.position:
        times = column_of(records.columns, schema.position[schema.time_column])
    if times is not None:
        request.times = [take_time(value, row, schema.time_column) for row, value in enumerate(times)]
    _add_extras(request, records.extras, schema)
    return request


def _columns_of_records(records: list[dict[str, Any]], schema: Schema) -> Columns | None:
    """The features of records by column; None where one of them lacks one."""
    try:
        return Columns(list(zip(*map(itemgetter(*schema.columns), records), strict=True)))
    except KeyError:
        return None


def _from_columns(content: Mapping[str, Any], schema: Schema, most_rows: int) -> Request:
    """Columns of equal length, or one row of single values."""
    if absent := [name for name in schema.columns if name not in content]:
        raise missing_column(schema, absent, list(content))
    wanted = [*schema.columns, *(name for name in (*schema.id_columns, schema.time_column) if name in content)]
    wanted = list(dict.fromkeys(wanted))
    single = not any(isinstance(content[name], list) for name in wanted)
    columns = [[content[name]] if single else _column(content[name], name) for name in wanted]
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        found = ", ".join(f"{name}: {len(column)}" for name, column in zip(wanted, columns, strict=True))
        raise Problem(
            422, f"the columns differ in length: {found[:300]}", rule="one value for each row in every column"
        )
    check_count(lengths.pop(), most_rows)
    return from_columns(wanted, columns, schema)


def _column(values: Any, name: str) -> list[Any]:
    if not isinstance(values, list):
        raise Problem(422, f"column {name!r}: {shown(values)} is no list", column=name, rule="a list of values")
    # Shape (n, 1), as tensors of one feature come.
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]


def _from_csv(body: bytes, charset: str, schema: Schema, most_rows: int) -> Request:
    rule = f"CSV in {charset} with a header"
    try:
        text = body.decode(charset).removeprefix("\ufeff")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (UnicodeError, csv.Error) as error:
        raise Problem(400, f"the body is not CSV in {charset}: {error}", rule=rule) from None
    if not lines:
        raise Problem(400, "the body is empty", rule=rule)
    check_count(len(lines) - 1, most_rows)
    gaps = ("numeric", "boolean", "datetime")
    read = {name for name, kind in zip(schema.columns, schema.kinds, strict=True) if kind in gaps}
    places = {index for index, name in enumerate(lines[0]) if name in read}
    data = [
        [None if not cell or (cell in MISSING_NUMBERS and index in places) else cell for index, cell in enumerate(line)]
        for line in lines[1:]
    ]
    return from_table(lines[0], data, schema)


def _has_ids(schema: Schema, given: Collection[str]) -> bool:
    """Whether rows carry their ids: all of an id's columns, or none but those that are features anyway."""
    if len(schema.id_columns) == 1:
        return schema.id_columns[0] in given
    absent = [name for name in schema.id_columns if name not in given]
    if not absent:
        return True
    if own := [name for name in schema.id_columns if name in given and name not in schema.position]:
        raise Problem(
            422, f"{', '.join(own)} is a part of the row's id, {', '.join(absent)} is missing", column=absent[0],
            rule=f"all of {', '.join(schema.id_columns)}, or none",
        )  # fmt: skip
    return False


def _ids_from(rows: list[list[Any]], request: Request, schema: Schema) -> None:
    columns = schema.id_columns
    own = [place for place, name in enumerate(columns) if name not in schema.position] or [*range(len(columns))]
    if any(row[place] is not None for row in rows for place in own):
        request.ids = take_ids([row if len(columns) > 1 else row[0] for row in rows], len(rows), columns)


def _add_extras(request: Request, document: Mapping[str, Any], schema: Schema) -> None:
    if (ids := document.get("ids")) is not None:
        request.ids = take_ids(ids, len(request.rows), schema.id_columns)
    parameters = document.get("params")
    if parameters is not None:
        if not isinstance(parameters, dict):
            raise Problem(422, f"params {shown(parameters)} are no object", rule='{"output": "both"}')
        refuse_strangers(parameters, ("output",), "params")
        if "output" in parameters:
            request.output = take_output(parameters["output"])


def refuse_strangers(found: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse keys that nobody reads: a misspelt one must not be taken for none.

    Raises:
        Problem: 422 that names the first.
    """
    if strangers := [name for name in found if name not in known]:
        told = f"{where} has {shown(strangers[0])}, which nobody reads; known are {', '.join(known)}"
        raise Problem(422, told, value=shown(strangers[0]), rule=", ".join(known))


def _wrong_form(found: object, schema: Schema) -> Problem:
    names = ", ".join(map(str, list(found)[:10])) if isinstance(found, dict) else shown(found)
    return Problem(
        400, f"the body is none of the forms that are understood; found: {names[:200] or 'nothing'}",
        rule=f"one of {', '.join(FORMS)}", example={"dataframe_records": [dict(schema.example)]},
    )  # fmt: skip
