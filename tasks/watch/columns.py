"""The source's columns as a contract, and what a change of it means for a model. Pure; no source is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from perennial.definition import ModelDefinition
from tasks.alerts.item import Item

Contract = Mapping[str, Mapping[str, Any]]


def contract_of(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Each column's type, and whether values are missing."""
    return {
        str(name): {"type": _kind(frame[name]), "nullable": bool(frame[name].isna().any())} for name in frame.columns
    }


def _kind(column: pd.Series[Any]) -> str:
    """Of the values, where the column's own type says nothing."""
    from pandas.api import types

    values = column.dropna()
    if not len(values):
        return "empty"
    if types.is_bool_dtype(values):
        return "boolean"
    if types.is_integer_dtype(values):
        return "integer"
    if types.is_numeric_dtype(values):
        return "number"
    if types.is_datetime64_any_dtype(values):
        return "time"
    inferred = types.infer_dtype(values, skipna=True)
    known = {"string": "text", "integer": "integer", "floating": "number", "mixed-integer-float": "number",
             "decimal": "number",
             "boolean": "boolean", "datetime": "time", "date": "time", "bytes": "bytes"}  # fmt: skip
    return known.get(inferred, inferred)


# What may take another's place without any value being read otherwise.
_WIDENS = {("integer", "number"), ("number", "integer"), ("boolean", "integer")}


def changes(before: Contract, now: Contract, definition: ModelDefinition) -> Iterator[Item]:
    """What changed, the gravest for the model first; of columns that it does not use only that they are other."""
    data = definition.data
    used = dict.fromkeys([*data.id_columns, data.time, *definition.features.columns], "feature")
    used |= dict.fromkeys(data.id_columns, "id") | {data.time: "time", data.target: "target"}
    where = f"the source of {definition.name}"
    for name, old in before.items():
        role = used.get(name)
        if name not in now:
            detail = f"{where} has no column {name} any more" + (f", the model's {role}" if role else "")
            to_do = "Ask who feeds it, before the next ingestion" if role else "Nothing: the model does not use it"
            yield _item(f"gone: {name}", "a column is gone", detail, to_do, grave=role not in (None, "target"))
        elif "empty" not in (old["type"], now[name]["type"]) and not alike(old["type"], now[name]["type"]):
            detail = f"{name} was {old['type']} and is {now[name]['type']}"
            to_do = "Look at its values before the next ingestion: they may be refused, or mean something else"
            yield _item(f"type: {name}", "a column's type changed", detail, to_do, grave=role is not None)
        elif now[name]["nullable"] and not old["nullable"] and role:
            detail = f"{name} had no missing value before, and has now"
            yield _item(f"missing: {name}", "values go missing", detail, "Ask who feeds it whether that is meant")
    if new := sorted(set(now) - set(before)):
        detail = f"{where} has new columns: {', '.join(new[:10])}"
        yield _item("new columns", "there are new columns", detail, "Nothing; one may be worth a feature", tuple(new))


def alike(old: str, new: str) -> bool:
    """Whether values of one type are read as those of the other."""
    return old == new or (old, new) in _WIDENS


def _item(key: str, title: str, detail: str, to_do: str, marks: tuple[str, ...] = (), *, grave: bool = False) -> Item:
    return Item(f"watch:source:{key}", "watch", title, detail, to_do, marks, grave)
