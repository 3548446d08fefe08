"""Judging a batch by its suite, failing closed. No reading of batches or suites, no moving of rows.

Great Expectations gives the verdict per expectation; which rows failed is computed in numpy and must agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tasks.validation.library import forget, great_expectations, quiet, silent_context
from tasks.validation.masks import is_quick, is_row_level, looked_at_mask, met_mask
from tasks.validation.report import NOTHING_SEEN, Example, ExpectationResult, ValidationReport, row_texts, value_text
from tasks.validation.suites import NON_NULL_SHARE, Expectation, Suite

EXAMPLES = 5
Names = Callable[[Any], list[str | None]]


# With the "BASIC" format these report the unexpected values instead of an observed one.
_DISTINCT = "expect_column_distinct_values_"


class Rows:
    """A batch of which single columns are taken, so that it is never held whole. This one is a frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = frame.columns
        self._frame = frame.reset_index(drop=True)

    def __len__(self) -> int:
        return len(self._frame)

    def take(self, columns: list[str]) -> pd.DataFrame:
        """These columns of all rows, counted from 0."""
        return self._frame[columns]


def validate(frame: pd.DataFrame | Rows, suite: Suite, *, id_column: str | None = None) -> ValidationReport:
    """Judge a batch; nothing is written, nothing is sent, the frame is left as it is.

    Args:
        frame: The batch, of shape (n, columns); positions in the report count its rows from 0.
        suite: The suite, as `load_suite` gives it.
        id_column: The column whose values name the example rows.

    Returns:
        The report; of a refused batch it holds why. A critical row-level expectation that is met within its
        `mostly` lets the batch pass and names its failing rows, for quarantine.
    """
    whole = Rows(frame) if isinstance(frame, pd.DataFrame) else frame
    if problems := _problems(whole, suite):
        return ValidationReport(suite.name, suite.digest, len(whole), (), problems)
    ids = partial(_names, whole, id_column if id_column in whole.columns else None)
    groups: dict[tuple[str, ...] | None, list[Expectation]] = {}
    found: dict[int, ExpectationResult] = {}
    for item in suite.expectations:
        needed = _needed_columns(item)
        if missing := [name for name in needed or () if name not in whole.columns]:
            found[item.index] = _unjudged(item, f"the batch has no column {missing[0]!r}")
        else:
            groups.setdefault(needed, []).append(item)
    context = silent_context()
    for needed, members in groups.items():
        found |= _judge_group(_part(whole, needed, members), members, ids, context)
    results = tuple(found[item.index] for item in suite.expectations if item.index in found)
    report = ValidationReport(suite.name, suite.digest, len(whole), results, _incomplete(suite, len(results)))
    if not report.refused and len(report.quarantined_rows()) == len(whole):
        every = ("every row fails a critical expectation, though each is met within its `mostly`",)
        return ValidationReport(suite.name, suite.digest, len(whole), results, every)
    return report


def _names(rows: Rows, id_column: str | None, places: Any) -> list[str | None]:
    """How the example rows are called; only a report that has some reads their ids."""
    if id_column is None or not len(places):
        return [None] * len(places)
    return [value_text(value) for value in rows.take([id_column])[id_column].iloc[np.asarray(places)]]


def _part(rows: Rows, needed: tuple[str, ...] | None, members: list[Expectation]) -> pd.DataFrame:
    """The columns that expectations look at. Those on the table alone see names and numbers of rows, no cell."""
    if needed is not None:
        return rows.take(list(needed))
    if any(item.kwargs.get("row_condition") for item in members):
        return rows.take(list(rows.columns))
    return pd.DataFrame(np.zeros((len(rows), len(rows.columns)), dtype=np.int8), columns=rows.columns)


def _problems(frame: Rows, suite: Suite) -> tuple[str, ...]:
    found = []
    if not suite.expectations:
        found.append("the suite holds no expectation")
    if not len(frame):
        found.append("the batch has no rows")
    if twice := frame.columns[frame.columns.duplicated()].unique().tolist():
        found.append(f"the batch has columns of one name: {', '.join(map(str, twice))}")
    return tuple(found)


def _incomplete(suite: Suite, results: int) -> tuple[str, ...]:
    expected = len(suite.expectations)
    if results == expected:
        return ()
    return (f"the suite holds {expected} expectations, but only {results} were judged",)


def _needed_columns(item: Expectation) -> tuple[str, ...] | None:
    """The columns to judge it on, None for all: the fewer columns, the less Great Expectations copies."""
    on_table = item.type.startswith("expect_table_") or item.type == "expect_column_to_exist"
    return None if on_table or item.kwargs.get("row_condition") else tuple(dict.fromkeys(item.columns))


def _judge_group(
    part: pd.DataFrame, members: list[Expectation], ids: Names, context: Any
) -> dict[int, ExpectationResult]:
    """Judge expectations on the same columns: booleans only where numpy can name the rows, else with details."""
    gx = great_expectations()
    quick = [item for item in members if is_quick(item)]
    rest = [item for item in members if not is_quick(item)]
    by_row = [item for item in rest if is_row_level(item)]
    single = [item for item in rest if not is_row_level(item)]
    found: dict[int, ExpectationResult] = {}
    validator = gx.Validator(gx.Engine(), data_context=context, batches=[gx.Batch(data=part)])
    for some, form in ((quick, "BOOLEAN_ONLY"), (by_row, "COMPLETE"), (single, "BASIC")):
        try:
            outcomes = _run(validator, some, form)
        except Exception as error:  # noqa: BLE001 - whatever an expectation raises must refuse the batch with a report
            found |= {item.index: _unjudged(item, f"{type(error).__name__}: {error}") for item in some}
            continue
        for item in some:
            if item.index in outcomes:
                found[item.index] = _judge(item, outcomes[item.index], part, ids, validator)
    forget(validator)
    return found


def _run(validator: Any, items: list[Expectation], result_format: str) -> dict[int, Any]:
    """Great Expectations' results by the expectation's index; its order of results differs from ours."""
    if not items:
        return {}
    gx = great_expectations()
    wanted = [
        gx.Configuration(type=item.type, kwargs=item.kwargs, meta={"index": item.index}, severity=item.severity)
        for item in items
    ]
    runtime = {"catch_exceptions": True, "result_format": {"result_format": result_format}}
    with quiet():
        results = validator.graph_validate(configurations=wanted, runtime_configuration=runtime)
    return {result.expectation_config.meta["index"]: result for result in results}


def _judge(item: Expectation, outcome: Any, part: pd.DataFrame, ids: Names, validator: Any) -> ExpectationResult:
    if text := _exception_text(outcome.exception_info):
        return _unjudged(item, text)
    if not is_row_level(item):
        return _judge_whole(item, outcome, part)
    if not is_quick(item):
        return _judge_listed(item, outcome, part, ids)
    success = bool(outcome.success)
    looked_at = looked_at_mask(part, item)
    if success and item.mostly == 1:
        return _row_result(item, success, int(looked_at.sum()), part.iloc[:0], ids)
    met = met_mask(part, item)
    if met is None:
        return _judge_listed(item, _run(validator, [item], "COMPLETE")[item.index], part, ids)
    return _row_result(item, success, int(looked_at.sum()), part[looked_at & ~met], ids)


def _judge_listed(item: Expectation, outcome: Any, part: pd.DataFrame, ids: Names) -> ExpectationResult:
    """From Great Expectations' own list of failed rows, where there is one: a typed column fails as a whole."""
    if text := _exception_text(outcome.exception_info):
        return _unjudged(item, text)
    detail = outcome.result
    if "unexpected_index_list" not in detail:
        return _judge_whole(item, outcome, part)
    looked_at = detail["element_count"] - (detail.get("missing_count") or 0)
    return _row_result(item, bool(outcome.success), looked_at, part.loc[detail["unexpected_index_list"] or []], ids)


def _row_result(
    item: Expectation, success: bool, looked_at: int, failed: pd.DataFrame, ids: Names
) -> ExpectationResult:
    failing = failed[list(dict.fromkeys(item.columns))]
    count = len(failing)
    share = count / looked_at if looked_at else None
    exception = remark = None
    if looked_at == 0:
        success, remark = False, NOTHING_SEEN
    elif success != ((looked_at - count) / looked_at >= item.mostly):
        says = "met" if success else "not met"
        exception = f"Great Expectations says {says}, but {count} of {looked_at} rows were found to fail"
        success = False
    first = failing.head(EXAMPLES)
    examples = tuple(map(Example, map(int, first.index), ids(first.index), row_texts(first)))
    return _result(
        item,
        success,
        row_level=True,
        unexpected_count=count,
        unexpected_share=share,
        examples=examples,
        remark=remark,
        exception=exception,
        failing=failing,
    )


def _judge_whole(item: Expectation, outcome: Any, part: pd.DataFrame) -> ExpectationResult:
    success, observed, remark = bool(outcome.success), outcome.result.get("observed_value"), None
    if issubclass(great_expectations().find(item.type), great_expectations().Aggregate):
        if item.type.startswith(_DISTINCT):
            observed = observed or outcome.result.get("partial_unexpected_list") or None
        elif not _is_finite(observed):
            remark = f"the observed value is {value_text(observed)}"
        if item.type != NON_NULL_SHARE and not part[item.kwargs["column"]].notna().any():
            remark = NOTHING_SEEN
    return _result(item, success and remark is None, observed=observed, remark=remark)


def _unjudged(item: Expectation, exception: str) -> ExpectationResult:
    return _result(item, False, row_level=is_row_level(item), exception=exception)


def _result(item: Expectation, success: bool, **found: Any) -> ExpectationResult:
    return ExpectationResult(
        type=item.type,
        column=", ".join(item.columns) or None,
        severity=item.severity,
        success=success,
        rule=item.rule,
        notes=item.notes,
        **found,
    )


def _exception_text(info: Any) -> str | None:
    """The message in either shape of `exception_info`: of the expectation, or of each metric that raised."""
    if not info:
        return None
    entries = [info] if "raised_exception" in info else list(info.values())
    raised = [entry for entry in entries if entry.get("raised_exception")]
    texts = dict.fromkeys(" ".join(str(entry.get("exception_message")).split()) for entry in raised)
    return "; ".join(texts) or None


def _is_finite(value: Any) -> bool:
    """Whether something was observed, and no number in it is NaN or infinite."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return value is not None and value is not pd.NaT
