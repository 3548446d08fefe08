"""What the spool holds of a scored request, and the rows of the log that it becomes. It writes and ships nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from perennial.serving.protocol.columns import Columns, Rows, pick

if TYPE_CHECKING:
    from perennial.serving.protocol.codec import Request
    from perennial.serving.versions.model import LoadedModel

TIME = pa.timestamp("us", tz="UTC")
_COLUMNS = (
    "id", "time", "score", "version", "predicted_at", "origin", "raw_score", "role", "group", "propensity",
    "latency_ms", "inputs",
)  # fmt: skip


_BOUNDS = ("lower", "upper")


class Entry(msgspec.Struct, array_like=True):
    """One scored request as the spool holds it; the rows' parts are lists of one length.

    Attributes:
        role: champion, canary or shadow.
        times: Event times in microseconds; None where the request's own time counts.
        groups: control, treated, or None where there is no control group.
        own_ids: Whether the ids are the client's, which may come twice.
        scores: Numbers, or of many classes lists of one for each.
        raw_scores: Before a recalibration's map; None where they are the scores.
        columns: The names of the cells in `rows`, without those that are redacted.
        by_column: Whether `rows` has a list for each column, instead of one for each row.
        lower, upper: The ends of a regression's intervals; None where it has none.
    """

    role: str
    version: int
    at_us: int
    latency_us: int
    own_ids: bool
    ids: list[str]
    scores: list[Any]
    times: list[int | None] | None
    groups: list[str] | None
    control_share: float
    columns: list[str]
    rows: list[list[Any]]
    raw_scores: list[Any] | None = None
    by_column: bool = False
    lower: list[float | None] | None = None
    upper: list[float | None] | None = None


_encode = msgspec.json.Encoder().encode


def entry_of(
    model: LoadedModel, role: str, version: int, latency_us: int, request: Request, rows: Rows,
    ids: list[str], scores: tuple[list[Any], list[Any]], groups: list[str] | None, chosen: Sequence[int],
    bounds: tuple[list[float], list[float]] | None = None,
) -> Entry:  # fmt: skip
    """What is written down of the chosen rows of a request: without images and what is redacted."""
    serving, schema = model.definition.serving, model.schema
    whole = len(chosen) == len(ids)
    hidden = {name for name, kind in zip(schema.columns, schema.kinds, strict=True) if kind == "image"}
    hidden |= set(serving.redact)
    columns = list(schema.columns)
    kept = [index for index, name in enumerate(columns) if name not in hidden] if hidden else None
    columns = columns if kept is None else [columns[index] for index in kept]
    logged = rows if whole else pick(rows, chosen)
    cells: list[list[Any]]
    if schema.retold:
        logged = _retold(logged, model)
    if by_column := isinstance(logged, Columns):
        cells = logged.plain(kept)
    else:
        cells = logged if kept is None else [[row[index] for index in kept] for row in logged]

    def chosen_of(values: list[Any]) -> list[Any]:
        return values if whole else [values[index] for index in chosen]

    return Entry(
        role=role, version=version, at_us=time.time_ns() // 1000, latency_us=latency_us,
        own_ids=request.ids is not None, ids=chosen_of(ids), scores=chosen_of(scores[1]),
        times=None if request.times is None else chosen_of(request.times),
        groups=None if groups is None else chosen_of(groups), control_share=serving.control_group,
        columns=columns, rows=cells, by_column=by_column,
        raw_scores=None if scores[0] is scores[1] else chosen_of(scores[0]),
        lower=None if bounds is None else chosen_of(bounds[0]), upper=None if bounds is None else chosen_of(bounds[1]),
    )  # fmt: skip


def _retold(rows: Rows, model: LoadedModel) -> Rows:
    """The same rows with truth values and moments as people read them, and as they may be read again."""
    schema = model.schema
    if isinstance(rows, Columns):
        cells = list(rows.cells)
        for column in schema.retold:
            cells[column] = [schema.told(column, cell) for cell in cells[column]]
        return Columns(cells)
    made = [list(row) for row in rows]
    for row in made:
        for column in schema.retold:
            row[column] = schema.told(column, row[column])
    return made


def prediction_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows of the table `predictions`, with our columns beside the layout's."""
    with_bounds = any(entry.lower is not None for entry in entries)
    columns: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, *(_BOUNDS if with_bounds else ()))}
    for entry in entries:
        count = len(entry.ids)
        columns["id"] += entry.ids
        columns["time"] += [entry.at_us if time_us is None else time_us for time_us in entry.times or _none(count)]
        columns["score"] += entry.scores
        columns["raw_score"] += entry.raw_scores or entry.scores
        columns["version"] += [entry.version] * count
        columns["predicted_at"] += [entry.at_us] * count
        columns["origin"] += ["api"] * count
        columns["role"] += [entry.role] * count
        columns["group"] += entry.groups or _none(count)
        columns["propensity"] += [_propensity(group, entry.control_share) for group in columns["group"][-count:]]
        columns["latency_ms"] += [entry.latency_us / 1000] * count
        if with_bounds:
            columns["lower"] += entry.lower or _none(count)
            columns["upper"] += entry.upper or _none(count)
        rows = zip(*entry.rows, strict=True) if entry.by_column else entry.rows
        encode_row = _inputs_of(tuple(entry.columns))
        columns["inputs"] += [encode_row(row) for row in rows]
    many = any(isinstance(entry.scores[0], list) for entry in entries if entry.scores)
    score = pa.list_(pa.float64()) if many else pa.float64()
    kinds = {"id": pa.string(), "time": TIME, "version": pa.int64(), "predicted_at": TIME}
    kinds |= dict.fromkeys(("score", "raw_score"), score)
    kinds |= {name: pa.float64() for name in ("propensity", "latency_ms", *_BOUNDS)}
    return pa.table({name: pa.array(cells, type=kinds.get(name, pa.string())) for name, cells in columns.items()})


def _propensity(group: str | None, share: float) -> float | None:
    return None if group is None else share if group == "control" else 1.0 - share


@lru_cache(maxsize=64)
def _inputs_of(columns: tuple[str, ...]) -> Callable[[Sequence[Any]], str]:
    """Makes a row's cells an object of JSON, with the columns for its keys."""
    keys = {f"c{index}": name for index, name in enumerate(columns)}
    row = msgspec.defstruct("Row", [(key, Any) for key in keys], rename=keys, gc=False)
    return lambda cells: _encode(row(*cells)).decode()


def _none(count: int) -> list[Any]:
    return [None] * count
