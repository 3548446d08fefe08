"""A suite's rules for single rows, as they judge rows that come alone. Rules for a whole batch are left out."""

from __future__ import annotations

import json
from dataclasses import replace

from tasks.validation.judging import Rows, validate
from tasks.validation.masks import is_row_level
from tasks.validation.report import NOTHING_SEEN, ExpectationResult, ValidationReport
from tasks.validation.suites import Suite


def validate_rows(rows: Rows, suite: Suite, *, id_column: str | None = None) -> ValidationReport | None:
    """The report of every critical rule for rows, each without its `mostly`; None where there is no such rule."""
    items = []
    for item in suite.expectations:
        if item.severity == "critical" and is_row_level(item):
            kwargs = {key: value for key, value in item.kwargs.items() if key != "mostly"}
            items.append(replace(item, arguments=json.dumps(kwargs, sort_keys=True)))
    if not items or not len(rows):
        return None
    return validate(rows, replace(suite, expectations=tuple(items)), id_column=id_column)


def unjudged(report: ValidationReport) -> list[ExpectationResult]:
    """The rules that failed without naming rows: no row of these can pass."""
    failed = [result for result in report.results if result.exception or not result.success]
    named = [result for result in failed if result.failing is not None and len(result.failing)]
    return [result for result in failed if result not in named and result.remark != NOTHING_SEEN]
