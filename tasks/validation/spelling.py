"""Suites in the words of the normal form: a set's values as the rows' ids and categories are spelled. No judging."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from perennial.definition import ModelDefinition
from perennial.model.canonical import Unspellable, spelled
from perennial.model.cells.truths import truth_value
from tasks.validation.suites import Expectation, Suite


def in_normal_form(suite: Suite, definition: ModelDefinition) -> Suite:
    """The suite, whose sets on ids and categories hold "3" where they said 3, 3.0 or "3.0"; its digest stays.

    Sets on truth values hold "True" where they said true, yes or 1.
    """
    named = {*definition.data.id_columns, *definition.features.categorical} - {definition.data.time}
    truths = set(definition.features.boolean)
    return replace(suite, expectations=tuple(_spelled(item, named, truths) for item in suite.expectations))


def _spelled(item: Expectation, named: set[str], truths: set[str]) -> Expectation:
    kwargs = item.kwargs

    def as_rows_are(column: Any, value: Any) -> Any:
        return _truth(value) if column in truths else _word(value) if column in named else value

    column, values, pairs = kwargs.get("column"), kwargs.get("value_set"), kwargs.get("value_pairs_set")
    if column in named | truths and isinstance(values, list):
        kwargs["value_set"] = [as_rows_are(column, value) for value in values]
    elif isinstance(pairs, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        one, other = kwargs.get("column_A"), kwargs.get("column_B")
        kwargs["value_pairs_set"] = [[as_rows_are(one, left), as_rows_are(other, right)] for left, right in pairs]
    else:
        return item
    return replace(item, arguments=json.dumps(kwargs, sort_keys=True))


def _word(value: Any) -> Any:
    try:
        return spelled(value)
    except Unspellable:
        return value


def _truth(value: Any) -> Any:
    read = truth_value(value)
    return value if read is None or read != read else "True" if read else "False"
