"""An expectation suite learnt from a table: what would break the model is critical, what is only unusual warns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tasks.proposal.looks import Look

_MOST_VALUES = 50
_NEW_SHARE = 0.02
_SLACK = 0.1
Entry = dict[str, Any]


def learn_suite(
    model: str, looks: Mapping[str, Look], kinds: Mapping[str, str], target: Look | None, rows: int
) -> dict[str, Any]:
    """The suite as its JSON file has it.

    Args:
        looks: What the features hold, by name.
        kinds: As what each of them is read: numeric, categorical, text, image, …
        target: What a regression's target holds; None for classes, which are told apart when they are read.
        rows: How many there were.
    """
    entries = [
        _entry("expect_table_row_count_to_be_between", {"min_value": 1}, "critical", "An empty delivery is a failure."),
        _entry(
            "expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 2 * rows}, "warning",
            f"The history has {rows:,} rows: is a delivery of twice as many one?",
        ),
    ]  # fmt: skip
    for name, kind in kinds.items():
        look = looks[name]
        entries += _presence(look)
        if kind == "numeric":
            entries += _range(look)
        elif kind in ("categorical", "boolean"):
            entries += _values(look)
        elif kind == "text":
            entries += _lengths(look)
    if target is not None:
        entries += _target(target)
    return {"name": model, "expectations": entries}


def _entry(kind: str, kwargs: dict[str, Any], severity: str, notes: str) -> Entry:
    return {"type": kind, "kwargs": kwargs, "severity": severity, "meta": {"notes": notes}}


def _presence(look: Look) -> Iterator[Entry]:
    """Mostly empty breaks the model; more gaps than there were, beyond chance, are unusual.

    Judged of the whole delivery: what a critical rule finds in a row sends it to quarantine, and a gap is no fault.
    """
    share = look.missing / len(look.values)
    kind = "expect_column_proportion_of_non_null_values_to_be_between"
    present = _floor((1 - share) / 2)
    yield _entry(
        kind, {"column": look.name, "min_value": present}, "critical",
        f"{share:.1%} were missing. Half as many values as there were is a broken feed.",
    )  # fmt: skip
    slack = max(0.02, 4 * math.sqrt(max(share, 1 / len(look.values)) * (1 - share) / min(len(look.values), 200)))
    usual = _floor(1 - share - slack)
    if usual > present:
        yield _entry(kind, {"column": look.name, "min_value": usual}, "warning", f"{share:.1%} were missing.")


def _range(look: Look) -> Iterator[Entry]:
    """A median far from all that was seen is another unit; many values beyond a tenth of the span are unusual."""
    known = look.values.dropna().to_numpy(dtype=np.float64)
    low, high = float(known.min()), float(known.max())
    span = (high - low) or max(abs(high), 1.0)
    told = f"From {low:.6g} to {high:.6g} in the history."
    wide = {"min_value": _below(low - span / 2), "max_value": _above(high + span / 2)}
    near = {"min_value": _below(low - _SLACK * span), "max_value": _above(high + _SLACK * span)}
    if low >= 0:
        near["min_value"] = max(0.0, near["min_value"])
    yield _entry(
        "expect_column_median_to_be_between", {"column": look.name, **wide}, "critical",
        f"{told} A median beyond is another unit.",
    )  # fmt: skip
    yield _entry(
        "expect_column_values_to_be_between", {"column": look.name, **near, "mostly": 0.98}, "warning", told
    )  # fmt: skip


def _values(look: Look) -> Iterator[Entry]:
    """A most frequent value that nobody knows is another spelling; a few new ones are new categories."""
    values = sorted(look.values.dropna().unique())
    if not 0 < len(values) <= _MOST_VALUES:
        return
    yield _entry(
        "expect_column_most_common_value_to_be_in_set",
        {"column": look.name, "value_set": values, "ties_okay": True}, "critical",
        f"{len(values)} values in the history. Where the most frequent is another, they are spelled otherwise.",
    )  # fmt: skip
    yield _entry(
        "expect_column_values_to_be_in_set", {"column": look.name, "value_set": values, "mostly": 1 - _NEW_SHARE},
        "warning", "A new value is possible, many are unusual.",
    )  # fmt: skip


def _lengths(look: Look) -> Iterator[Entry]:
    lengths = look.values.dropna().str.len()
    low, high = int(lengths.min()), int(lengths.max())
    yield _entry(
        "expect_column_value_lengths_to_be_between",
        {"column": look.name, "min_value": low // 2, "max_value": 2 * high, "mostly": 0.98}, "warning",
        f"{low:,} to {high:,} letters in the history.",
    )  # fmt: skip


def _target(look: Look) -> Iterator[Entry]:
    """A truth far beyond what was seen: missing ones are ordinary, for they come later."""
    known = look.values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return
    low, high = float(known.min()), float(known.max())
    span = (high - low) or max(abs(high), 1.0)
    share = look.missing / len(look.values)
    # Its own bound: with a range, what is missing must be bound, too; rows without truth are no fault.
    present = {"column": look.name, "mostly": 0.001}
    if share < 0.9:
        yield _entry("expect_column_values_to_not_be_null", present, "warning", "Truth may come later, as labels.")
        near = {"min_value": _below(low - span), "max_value": _above(high + span)}
        yield _entry(
            "expect_column_values_to_be_between", {"column": look.name, **near, "mostly": 0.98}, "warning",
            f"The truth went from {low:.6g} to {high:.6g}.",
        )  # fmt: skip


def _floor(share: float) -> float:
    """Two decimals, downwards, and never 0: with that nothing could fail."""
    return max(0.01, math.floor(share * 100) / 100)


def _below(value: float) -> float:
    return _rounded(value, math.floor)


def _above(value: float) -> float:
    return _rounded(value, math.ceil)


def _rounded(value: float, towards: Any) -> float:
    """Three digits, away from the history."""
    if not value:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{towards(value / unit) * unit:.6g}")
