"""Which rows of a frame an expectation is about, and which of them meet it: in numpy. No verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.validation.library import great_expectations, quiet
from tasks.validation.suites import A_GREATER_THAN_B, MATCH_REGEX, NOT_NULL, NULL, Expectation

Mask = npt.NDArray[np.bool_]


def is_row_level(item: Expectation) -> bool:
    gx = great_expectations()
    return issubclass(gx.find(item.type), (gx.ColumnMap, *gx.Several))


def is_quick(item: Expectation) -> bool:
    return (item.type in _COLUMN_RULES or item.type in _TABLE_RULES) and not item.kwargs.get("row_condition")


def looked_at_mask(part: pd.DataFrame, item: Expectation) -> Mask:
    """Which rows the expectation is about: those with a value, as a rule."""
    if item.type in (NOT_NULL, NULL):
        return np.ones(len(part), dtype=np.bool_)
    present = part[list(item.columns)].notna().to_numpy()
    ignored = item.kwargs.get("ignore_row_if", "")
    if ignored in ("neither", "never"):
        return np.ones(len(part), dtype=np.bool_)
    every = ignored in ("either_value_is_missing", "any_value_is_missing")
    return cast(Mask, present.all(axis=1) if every else present.any(axis=1))


def met_mask(part: pd.DataFrame, item: Expectation) -> Mask | None:
    """Which rows meet it; None where its values are of a kind that only Great Expectations knows to compare."""
    try:
        if item.type in _TABLE_RULES:
            return _TABLE_RULES[item.type](part, item.kwargs)
        return _COLUMN_RULES[item.type](part[item.kwargs["column"]], item.kwargs)
    except (TypeError, ValueError):
        return None


def _bools(values: Any) -> Mask:
    return cast(Mask, values.to_numpy(dtype=np.bool_, na_value=False))


def _between(values: pd.Series[Any], kwargs: Mapping[str, Any]) -> Mask | None:
    bounds = [kwargs.get("min_value"), kwargs.get("max_value")]
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        bounds = [None if bound is None else pd.Timestamp(bound) for bound in bounds]
    elif not pd.api.types.is_numeric_dtype(values.dtype):
        return None
    low, high = bounds
    met = np.ones(len(values), dtype=np.bool_)
    if low is not None:
        met &= _bools(values > low if kwargs.get("strict_min") else values >= low)
    if high is not None:
        met &= _bools(values < high if kwargs.get("strict_max") else values <= high)
    return met


def _not_in_set(values: pd.Series[Any], kwargs: Mapping[str, Any]) -> Mask:
    unwanted = kwargs["value_set"]
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        unwanted = [pd.Timestamp(value) for value in unwanted]
    return ~_bools(values.isin(unwanted))


def _matches(values: pd.Series[Any], kwargs: Mapping[str, Any]) -> Mask:
    with quiet():
        return _bools(values.astype("str").str.contains(kwargs["regex"], na=False))


def _greater(part: pd.DataFrame, kwargs: Mapping[str, Any]) -> Mask:
    first, second = part[kwargs["column_A"]], part[kwargs["column_B"]]
    return _bools(first >= second if kwargs.get("or_equal") else first > second)


_COLUMN_RULES: dict[str, Callable[[pd.Series[Any], Mapping[str, Any]], Mask | None]] = {
    NOT_NULL: lambda values, _: _bools(values.notna()),
    NULL: lambda values, _: _bools(values.isna()),
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_in_set": lambda values, kwargs: _bools(values.isin(kwargs["value_set"])),
    "expect_column_values_to_not_be_in_set": _not_in_set,
    MATCH_REGEX: _matches,
    "expect_column_values_to_not_match_regex": lambda values, kwargs: ~_matches(values, kwargs),
    "expect_column_values_to_be_unique": lambda values, _: ~_bools(values.duplicated(keep=False)),
}


_TABLE_RULES: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], Mask]] = {
    A_GREATER_THAN_B: _greater,
    "expect_column_pair_values_to_be_equal": lambda part, kwargs: _bools(
        part[kwargs["column_A"]] == part[kwargs["column_B"]]
    ),
    "expect_compound_columns_to_be_unique": lambda part, kwargs: (
        ~_bools(part[kwargs["column_list"]].duplicated(keep=False))
    ),
}
