"""Expectations that can never be met, whatever rows come: they do not fit the form in which rows are kept. No rows.

Ids, categories, texts and truth values ("True" and "False") are held as text, numbers as floats, times as UTC moments.
"""

from __future__ import annotations

from typing import Any

from perennial.definition import ModelDefinition
from tasks.validation.suites import Expectation, Suite

_OF_NUMBERS = ("mean", "median", "stdev", "sum", "quantile_values")
_TEXT_RULES = ("_regex", "_like_pattern", "_value_lengths_", "json_schema", "strftime_format", "json_parseable")
_TEXT_TYPES = frozenset({"str", "string", "object", "STRING", "StringDtype"})
_FLOAT_TYPES = frozenset({"float", "float64", "Float64", "FLOAT", "FLOAT64"})


def unfit_expectations(suite: Suite, definition: ModelDefinition) -> list[str]:
    """One sentence for each expectation that no row can meet: which, why, and what to write instead."""
    kinds = _kinds(definition)
    found = []
    for item in suite.expectations:
        for column in item.columns:
            if problem := _problem(item, column, kinds.get(column), definition):
                found.append(f"expectations[{item.index}] ({item.type}): {problem}")
    return found


def known_columns(definition: ModelDefinition) -> set[str]:
    """The columns that rows have when the suite sees them."""
    data = definition.data
    return {*data.id_columns, data.time, data.target, *definition.features.columns}


def _kinds(definition: ModelDefinition) -> dict[str, str]:
    features, data = definition.features, definition.data
    kinds = dict.fromkeys((*data.id_columns, *features.categorical, *features.text, *features.boolean), "text")
    times = dict.fromkeys((*features.datetime, data.time), "time")
    return kinds | dict.fromkeys(features.numeric, "number") | times


def _problem(item: Expectation, column: str, kind: str | None, definition: ModelDefinition) -> str | None:
    if kind is None:
        return None
    what = {"text": "is held as text", "number": "is held as floats", "time": "is held as UTC moments"}[kind]
    subject = f"column {column!r} {what}"
    if types := _types(item):
        fitting = {"text": _TEXT_TYPES, "number": _FLOAT_TYPES, "time": frozenset(types)}[kind]
        if not set(types) & fitting:
            name = "str" if kind == "text" else "float64"
            return f"{subject}, never as {' or '.join(types)}. Say {name}, or leave it out"
    if kind != "text" and any(part in item.type for part in _TEXT_RULES):
        return f"{subject}, which has no pattern or length. Give a range instead"
    if kind == "text" and _wants_numbers(item):
        return f"{subject}, and text is in no range of numbers. Make it a numeric feature, or give a value_set"
    return _of_set(item, column, kind, subject, definition)


def _of_set(item: Expectation, column: str, kind: str, subject: str, definition: ModelDefinition) -> str | None:
    values = item.kwargs.get("value_set")
    if not isinstance(values, list) or not values or "not_be_in_set" in item.type:
        return None
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    # Of ids and categories a set's values are spelled as the rows are; free texts stay as they are written.
    if kind == "text" and column in definition.features.text and len(numbers) == len(values):
        return f"{subject}, and its value_set {_short(values)} has numbers only. Write them in quotes"
    if kind == "number" and not numbers and not any(isinstance(value, bool) for value in values):
        return f"{subject}, and its value_set {_short(values)} has no number. Write numbers without quotes"
    return None


def _types(item: Expectation) -> list[str]:
    kwargs = item.kwargs
    return [str(name) for name in (kwargs.get("type_list") or ([kwargs["type_"]] if "type_" in kwargs else []))]


def _wants_numbers(item: Expectation) -> bool:
    if any(f"expect_column_{name}_" in item.type for name in _OF_NUMBERS):
        return True
    ranged = item.type in (
        "expect_column_values_to_be_between", "expect_column_min_to_be_between", "expect_column_max_to_be_between",
    )  # fmt: skip
    bounds = [item.kwargs.get(name) for name in ("min_value", "max_value")]
    return ranged and any(isinstance(bound, int | float) for bound in bounds)


def _short(values: list[Any]) -> str:
    text = ", ".join(map(repr, values[:5]))
    return f"[{text}{', …' if len(values) > 5 else ''}]"
