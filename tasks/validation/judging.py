"""Validating a batch against its Great Expectations suite, failing closed. No reading of batches, no moving of rows.

`load_suite` reads expectations/NAME.json and refuses what Great Expectations would silently let pass;
`validate` judges a frame and says which rows failed what. Great Expectations gives the verdict per
expectation; which rows failed is computed in numpy and must agree with it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.errors import DefinitionError, NotFoundError
from tasks.validation.report import (
    NOTHING_SEEN,
    Example,
    ExpectationResult,
    Severity,
    ValidationReport,
    render_html,
    render_markdown,
    row_texts,
    value_text,
)

__all__ = [
    "Example",
    "Expectation",
    "ExpectationResult",
    "Severity",
    "Suite",
    "ValidationReport",
    "check_columns",
    "find_suite",
    "load_suite",
    "render_html",
    "render_markdown",
    "validate",
]

SEVERITIES = ("critical", "warning")
EXAMPLES = 5
_MATCH_REGEX = "expect_column_values_to_match_regex"
_NOT_NULL = "expect_column_values_to_not_be_null"
_A_GREATER_THAN_B = "expect_column_pair_values_a_to_be_greater_than_b"
_NULL = "expect_column_values_to_be_null"
_NON_NULL_SHARE = "expect_column_proportion_of_non_null_values_to_be_between"
# These need a database or a second table: on a frame they can only raise.
_NOT_ON_FRAMES = frozenset(
    {
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
        "unexpected_rows_expectation",
    }
)
# Great Expectations gives these a default with which they can't fail.
_REQUIRED = {
    _MATCH_REGEX: "regex",
    "expect_column_values_to_be_in_type_list": "type_list",
    "expect_column_kl_divergence_to_be_less_than": "partition_object",
    "expect_table_columns_to_match_ordered_list": "column_list",
    "expect_table_columns_to_match_set": "column_set",
}
_RANGES = frozenset(
    {
        "expect_column_values_to_be_between",
        "expect_column_value_lengths_to_be_between",
        *(f"expect_column_{name}_to_be_between" for name in ("min", "max", "mean", "median", "stdev", "sum")),
        "expect_column_quantile_values_to_be_between",
    }
)
_FIELDS_NOT_KWARGS = {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content"}
_FIELDS_NOT_KWARGS |= {"severity", "windows", "batch_id", "library_metadata"}
# With the "BASIC" format these report the unexpected values instead of an observed one.
_DISTINCT = "expect_column_distinct_values_"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Expectation:
    """One entry of a suite. `arguments` is the canonical JSON of its kwargs, so that the value is truly frozen."""

    index: int
    type: str
    severity: Severity
    arguments: str
    notes: str = ""

    @property
    def kwargs(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.arguments))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, in its order."""
        kwargs = self.kwargs
        named = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
        return (*named, *(kwargs.get("column_list") or ()), *(kwargs.get("column_set") or ()))

    @property
    def mostly(self) -> float:
        return float(self.kwargs.get("mostly", 1.0))

    @property
    def rule(self) -> str:
        """The expectation in words, with its bounds."""
        return _rule(self.type, self.kwargs)


@dataclass(frozen=True)
class Suite:
    """A checked suite; the digest (16 hex digits of SHA-256) covers all that decides, not the notes."""

    name: str
    expectations: tuple[Expectation, ...]
    digest: str


def _rule(kind: str, kwargs: Mapping[str, Any]) -> str:
    words = kind.removeprefix("expect_")
    for prefix in ("table_", "multicolumn_", "compound_columns_", "column_pair_", "column_"):
        words = words.removeprefix(prefix)
    words = words.replace("_", " ").replace("non null", "non-null")
    told = {"column", "column_A", "column_B", "min_value", "max_value", "strict_min", "strict_max", "mostly"}
    if kind == _A_GREATER_THAN_B:
        equal = " or equal to" if kwargs.get("or_equal") else ""
        words, told = f"{kwargs['column_A']} to be greater than{equal} {kwargs['column_B']}", told | {"or_equal"}
    if "column" in kwargs or not kind.startswith("expect_table_columns"):
        told |= {"column_list"}
    words = words.replace("to be between", f"to be {_bounds(kwargs)}")
    others = [f"{key.strip('_').replace('_', ' ')}: {value_text(kwargs[key])}" for key in kwargs if key not in told]
    words += f" ({'; '.join(others)})" if others else ""
    mostly = kwargs.get("mostly", 1)
    return words if mostly == 1 else f"{words}, for at least {100 * mostly:g} %"


def _bounds(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None:
        return "between"
    strict_low, strict_high = kwargs.get("strict_min"), kwargs.get("strict_max")
    lower = f"{'above' if strict_low else 'at least'} {value_text(low)}"
    upper = f"{'below' if strict_high else 'at most'} {value_text(high)}"
    if low is None or high is None:
        return upper if low is None else lower
    return f"{lower} and {upper}" if strict_low or strict_high else f"between {value_text(low)} and {value_text(high)}"


# --- reading a suite ---------------------------------------------------------------------------------------------


@cache
def _great_expectations() -> SimpleNamespace:
    """Great Expectations' parts (an import of seconds and 260 MB), with its telemetry switched off beforehand."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    show = warnings.showwarning
    with warnings.catch_warnings():
        # It asks two of Python's modules for names that have moved.
        for name in ("sre_constants", "sre_parse"):
            warnings.filterwarnings("ignore", message=f"module '{name}' is deprecated", category=DeprecationWarning)
        import great_expectations as gx
        from great_expectations.core.batch import Batch
        from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
        from great_expectations.expectations import expectation, registry
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
        from great_expectations.validator.validator import Validator

        if warnings.showwarning is not show:
            logging.captureWarnings(False)  # its import sends the whole process's warnings to the log
        for name in ("great_expectations", "great_expectations.data_context.types.base"):  # the second sets its own
            logging.getLogger(name).setLevel(logging.WARNING)
    return SimpleNamespace(
        get_context=gx.get_context,
        Batch=Batch,
        Engine=PandasExecutionEngine,
        Validator=Validator,
        Configuration=ExpectationConfiguration,
        names=tuple(registry.list_registered_expectation_implementations()),
        find=registry.get_expectation_impl,
        ColumnMap=expectation.ColumnMapExpectation,
        Aggregate=expectation.ColumnAggregateExpectation,
        Several=(expectation.ColumnPairMapExpectation, expectation.MulticolumnMapExpectation),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without two warnings about what suites may say: groups in a pattern, and a row condition as text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This pattern is interpreted as a regular expression, and has match")
        warnings.filterwarnings("ignore", message="The condition_parser parameter is deprecated")
        warnings.filterwarnings("ignore", message="Passing a string to the row_condition parameter is deprecated")
        yield


def load_suite(path: Path, columns: Collection[str] | None = None) -> Suite:
    """Read and check one suite.

    Args:
        path: expectations/NAME.json.
        columns: The columns that the model's definition has; given, expectations on others are refused.

    Raises:
        DefinitionError: The file can't be read, or an entry breaks a rule; it names file, index, key and remedy.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise DefinitionError(f"{path}: can't be read: {error.strerror}", "Give the path of a suite") from error
    except ValueError as error:
        raise DefinitionError(f"{path}: is not JSON: {error}", "Mend the syntax there") from error
    entries = _entries(raw, path)
    places = (f"{path}: expectations[{index}]" for index in range(len(entries)))
    expectations = tuple(map(_expectation, entries, range(len(entries)), places))
    _check_distinct(expectations, path)
    _check_ranges(expectations, path)
    deciding = [raw["name"], [[item.type, item.arguments, item.severity] for item in expectations]]
    suite = Suite(raw["name"], expectations, hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16])
    if columns is not None:
        check_columns(suite, columns, path)
    return suite


def check_columns(suite: Suite, columns: Collection[str], path: Path | None = None) -> None:
    """Refuse expectations on columns that the model's definition does not have.

    Raises:
        DefinitionError: One has such a column; it is named, with the nearest one.
    """
    for item in suite.expectations:
        for column in item.columns:
            if column not in columns:
                where = f"{path or suite.name}: expectations[{item.index}] ({item.type})"
                near = _nearest(column, columns)
                raise DefinitionError(f"{where}: column {column!r} is none of the definition's", near)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")


def _nearest(name: object, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(names)}"


def _entries(raw: Any, path: Path) -> list[Any]:
    if not isinstance(raw, dict):
        raise DefinitionError(f"{path}: holds {type(raw).__name__}, not an object", 'Start it with {"name": …')
    known = ("name", "expectations", "meta", "notes", "id")
    for key in raw:
        if key not in known:
            raise DefinitionError(f"{path}: {key}: unknown key", _nearest(key, known))
    if raw.get("name") != path.stem:
        problem = f"{path}: name: {raw.get('name')!r} differs from the file's name"
        raise DefinitionError(problem, f'Set "name": "{path.stem}"')
    entries = raw.get("expectations")
    if not isinstance(entries, list) or not entries:
        problem = f"{path}: expectations: {entries!r} is no list with at least one expectation"
        raise DefinitionError(problem, "Add one: an empty suite would let everything pass")
    return entries


def _expectation(entry: Any, index: int, where: str) -> Expectation:
    if not isinstance(entry, dict):
        problem = f"{where}: holds {type(entry).__name__}, not an object"
        raise DefinitionError(problem, 'Write {"type": …, "kwargs": …, "severity": …}')
    known = ("type", "kwargs", "severity", "meta", "notes", "description", "id")
    for key in entry:
        if key not in known:
            raise DefinitionError(f"{where}: {key}: unknown key", _nearest(key, known))
    kind = str(entry.get("type"))
    usable = [name for name in _great_expectations().names if name not in _NOT_ON_FRAMES]
    if kind in _NOT_ON_FRAMES:
        raise DefinitionError(f"{where}: type: {kind!r} can't be checked on a frame", "Use another expectation")
    if kind not in usable:
        raise DefinitionError(f"{where}: type: {kind!r} is no expectation", _nearest(kind, usable))
    where = f"{where} ({kind})"
    severity = entry.get("severity")
    if severity not in SEVERITIES:
        problem = f"{where}: severity: {severity!r} is neither critical nor warning"
        raise DefinitionError(problem, "Say critical to refuse the batch, warning to alert only")
    kwargs = entry.get("kwargs")
    if not isinstance(kwargs, dict):
        raise DefinitionError(f"{where}: kwargs: {kwargs!r} is no object", 'Write "kwargs": {…}')
    _check_kwargs(kind, kwargs, where)
    meta = entry.get("meta", {})
    if not isinstance(meta, dict):
        raise DefinitionError(f"{where}: meta: {meta!r} is no object", 'Write "meta": {"notes": "why"}')
    notes = meta.get("notes") or entry.get("notes") or ""
    return Expectation(index, kind, cast(Severity, severity), json.dumps(kwargs, sort_keys=True), str(notes))


def _check_kwargs(kind: str, kwargs: dict[str, Any], where: str) -> None:
    """What Great Expectations takes, and beyond it what would make the expectation unable to fail."""

    def refuse(key: Any, problem: str, remedy: str) -> NoReturn:
        shown = f" = {kwargs[key]!r}" if key in kwargs else ""
        raise DefinitionError(f"{where}: kwargs.{key}{shown}: {problem}", remedy)

    model = _great_expectations().find(kind)
    known: list[str] = [name for name in model.__fields__ if name not in _FIELDS_NOT_KWARGS]
    for key, value in kwargs.items():
        if key not in known:
            refuse(key, "unknown", _nearest(key, known))
        if isinstance(value, dict) and "$PARAMETER" in value:
            refuse(key, "parameters have no value here", "Write the value")
    try:
        with _quiet():
            model(**kwargs)
    except ValueError as error:  # pydantic's ValidationError, of its version 1
        first: Any = error.errors()[0] if hasattr(error, "errors") else {"loc": ("kwargs",), "msg": str(error)}
        key = str(first["loc"][0]).replace("__root__", "*")
        refuse(key, first["msg"], "Correct the value" if key in kwargs else f"Give {key}")
    low: Any = kwargs.get("min_value")
    high: Any = kwargs.get("max_value")
    mostly = kwargs.get("mostly", 1)
    if kind.endswith("_to_be_between") and "min_value" in known and low is None and high is None:
        refuse("min_value", "it and max_value are both missing, so nothing can fail", "Give one or both")
    comparable = (_is_number(low) and _is_number(high)) or (isinstance(low, str) and isinstance(high, str))
    if comparable and low > high:
        refuse("min_value", f"is above max_value {high!r}", "Swap them")
    if not mostly > 0:
        refuse("mostly", "with 0 nothing can fail", "Give a share above 0, or leave it out")
    if (needed := _REQUIRED.get(kind)) and not kwargs.get(needed):
        refuse(needed, "is required: without it nothing can fail", "Give it")
    for pattern in [kwargs["regex"]] if "regex" in kwargs else kwargs.get("regex_list", []):
        try:
            re.compile(pattern)
        except re.error as error:
            refuse("regex" if "regex" in kwargs else "regex_list", f"is no regular expression: {error}", "Mend it")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _check_distinct(expectations: tuple[Expectation, ...], path: Path) -> None:
    seen: dict[tuple[str, str], int] = {}
    for item in expectations:
        first = seen.setdefault((item.type, item.arguments), item.index)
        if first != item.index:
            problem = f"{path}: expectations[{item.index}] ({item.type}): repeats expectations[{first}]"
            raise DefinitionError(problem, "Remove one of them")


def _check_ranges(expectations: tuple[Expectation, ...], path: Path) -> None:
    """A range ignores missing values: without a bound on those, a column that is all but empty would pass."""
    guards: set[tuple[str, str]] = set()
    for item in expectations:
        if item.type == _NOT_NULL or (item.type == _NON_NULL_SHARE and (item.kwargs.get("min_value") or 0) > 0):
            severities = SEVERITIES if item.severity == "critical" else ("warning",)
            guards |= {(item.kwargs["column"], severity) for severity in severities}
    for item in expectations:
        if item.type in _RANGES and (item.kwargs["column"], item.severity) not in guards:
            column = item.kwargs["column"]
            problem = (
                f"{path}: expectations[{item.index}] ({item.type}): column {column!r} has a {item.severity} range but "
                "no bound on its missing values that is as severe; a range passes where every value is missing"
            )
            raise DefinitionError(problem, f"Add {_NOT_NULL} on {column}, with mostly where gaps are normal")


# --- judging a frame ---------------------------------------------------------------------------------------------


def validate(frame: pd.DataFrame, suite: Suite, *, id_column: str | None = None) -> ValidationReport:
    """Judge a batch; nothing is written, nothing is sent, the frame is left as it is.

    Args:
        frame: The batch, of shape (n, columns); positions in the report count its rows from 0.
        suite: The suite, as `load_suite` gives it.
        id_column: The column whose values name the example rows.

    Returns:
        The report; of a refused batch it holds why. A critical row-level expectation that is met within its
        `mostly` lets the batch pass and names its failing rows, for quarantine.
    """
    if problems := _problems(frame, suite):
        return ValidationReport(suite.name, suite.digest, len(frame), (), problems)
    whole = frame.reset_index(drop=True)
    ids = whole[id_column] if id_column in whole.columns else None
    groups: dict[tuple[str, ...] | None, list[Expectation]] = {}
    found: dict[int, ExpectationResult] = {}
    for item in suite.expectations:
        needed = _needed_columns(item)
        if missing := [name for name in needed or () if name not in whole.columns]:
            found[item.index] = _unjudged(item, f"the batch has no column {missing[0]!r}")
        else:
            groups.setdefault(needed, []).append(item)
    context = _context()
    for needed, members in groups.items():
        part = whole if needed is None else whole[list(needed)]
        found |= _judge_group(part, members, ids, context)
    results = tuple(found[item.index] for item in suite.expectations if item.index in found)
    report = ValidationReport(suite.name, suite.digest, len(frame), results, _incomplete(suite, len(results)))
    if not report.refused and len(report.quarantined_rows()) == len(frame):
        every = ("every row fails a critical expectation, though each is met within its `mostly`",)
        return ValidationReport(suite.name, suite.digest, len(frame), results, every)
    return report


def _problems(frame: pd.DataFrame, suite: Suite) -> tuple[str, ...]:
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
    part: pd.DataFrame, members: list[Expectation], ids: pd.Series[Any] | None, context: Any
) -> dict[int, ExpectationResult]:
    """Judge expectations on the same columns: booleans only where numpy can name the rows, else with details."""
    gx = _great_expectations()
    quick = [item for item in members if _is_quick(item)]
    rest = [item for item in members if not _is_quick(item)]
    by_row = [item for item in rest if _is_row_level(item)]
    single = [item for item in rest if not _is_row_level(item)]
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
    return found


def _context() -> Any:
    """A context in memory, silent: it sends nothing and draws no progress bars."""
    context = _great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    context.variables.analytics_enabled = False
    return context


def _run(validator: Any, items: list[Expectation], result_format: str) -> dict[int, Any]:
    """Great Expectations' results by the expectation's index; its order of results differs from ours."""
    if not items:
        return {}
    gx = _great_expectations()
    wanted = [
        gx.Configuration(type=item.type, kwargs=item.kwargs, meta={"index": item.index}, severity=item.severity)
        for item in items
    ]
    runtime = {"catch_exceptions": True, "result_format": {"result_format": result_format}}
    with _quiet():
        results = validator.graph_validate(configurations=wanted, runtime_configuration=runtime)
    return {result.expectation_config.meta["index"]: result for result in results}


def _judge(item: Expectation, outcome: Any, part: pd.DataFrame, ids: Any, validator: Any) -> ExpectationResult:
    if text := _exception_text(outcome.exception_info):
        return _unjudged(item, text)
    if not _is_row_level(item):
        return _judge_whole(item, outcome, part)
    if not _is_quick(item):
        return _judge_listed(item, outcome, part, ids)
    success = bool(outcome.success)
    looked_at = _looked_at(part, item)
    if success and item.mostly == 1:
        return _row_result(item, success, int(looked_at.sum()), part.iloc[:0], ids)
    met = _met(part, item)
    if met is None:
        return _judge_listed(item, _run(validator, [item], "COMPLETE")[item.index], part, ids)
    return _row_result(item, success, int(looked_at.sum()), part[looked_at & ~met], ids)


def _judge_listed(item: Expectation, outcome: Any, part: pd.DataFrame, ids: Any) -> ExpectationResult:
    """From Great Expectations' own list of failed rows, where there is one: a typed column fails as a whole."""
    if text := _exception_text(outcome.exception_info):
        return _unjudged(item, text)
    detail = outcome.result
    if "unexpected_index_list" not in detail:
        return _judge_whole(item, outcome, part)
    looked_at = detail["element_count"] - (detail.get("missing_count") or 0)
    return _row_result(item, bool(outcome.success), looked_at, part.loc[detail["unexpected_index_list"] or []], ids)


def _row_result(
    item: Expectation, success: bool, looked_at: int, failed: pd.DataFrame, ids: pd.Series[Any] | None
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
    names = [None] * len(first) if ids is None else [value_text(ids.iloc[row]) for row in first.index]
    examples = tuple(map(Example, map(int, first.index), names, row_texts(first)))
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
    if issubclass(_great_expectations().find(item.type), _great_expectations().Aggregate):
        if item.type.startswith(_DISTINCT):
            observed = observed or outcome.result.get("partial_unexpected_list") or None
        elif not _is_finite(observed):
            remark = f"the observed value is {value_text(observed)}"
        if item.type != _NON_NULL_SHARE and not part[item.kwargs["column"]].notna().any():
            remark = NOTHING_SEEN
    return _result(item, success and remark is None, observed=observed, remark=remark)


def _unjudged(item: Expectation, exception: str) -> ExpectationResult:
    return _result(item, False, row_level=_is_row_level(item), exception=exception)


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


# --- which rows failed -------------------------------------------------------------------------------------------


def _is_row_level(item: Expectation) -> bool:
    gx = _great_expectations()
    return issubclass(gx.find(item.type), (gx.ColumnMap, *gx.Several))


def _is_quick(item: Expectation) -> bool:
    return (item.type in _COLUMN_RULES or item.type in _TABLE_RULES) and not item.kwargs.get("row_condition")


def _looked_at(part: pd.DataFrame, item: Expectation) -> Mask:
    """Which rows the expectation is about: those with a value, as a rule."""
    if item.type in (_NOT_NULL, _NULL):
        return np.ones(len(part), dtype=np.bool_)
    present = part[list(item.columns)].notna().to_numpy()
    ignored = item.kwargs.get("ignore_row_if", "")
    if ignored in ("neither", "never"):
        return np.ones(len(part), dtype=np.bool_)
    every = ignored in ("either_value_is_missing", "any_value_is_missing")
    return cast(Mask, present.all(axis=1) if every else present.any(axis=1))


def _met(part: pd.DataFrame, item: Expectation) -> Mask | None:
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
    with _quiet():
        return _bools(values.astype("str").str.contains(kwargs["regex"], na=False))


def _greater(part: pd.DataFrame, kwargs: Mapping[str, Any]) -> Mask:
    first, second = part[kwargs["column_A"]], part[kwargs["column_B"]]
    return _bools(first >= second if kwargs.get("or_equal") else first > second)


_COLUMN_RULES: dict[str, Callable[[pd.Series[Any], Mapping[str, Any]], Mask | None]] = {
    _NOT_NULL: lambda values, _: _bools(values.notna()),
    _NULL: lambda values, _: _bools(values.isna()),
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_be_in_set": lambda values, kwargs: _bools(values.isin(kwargs["value_set"])),
    "expect_column_values_to_not_be_in_set": _not_in_set,
    _MATCH_REGEX: _matches,
    "expect_column_values_to_not_match_regex": lambda values, kwargs: ~_matches(values, kwargs),
    "expect_column_values_to_be_unique": lambda values, _: ~_bools(values.duplicated(keep=False)),
}
_TABLE_RULES: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], Mask]] = {
    _A_GREATER_THAN_B: _greater,
    "expect_column_pair_values_to_be_equal": lambda part, kwargs: _bools(
        part[kwargs["column_A"]] == part[kwargs["column_B"]]
    ),
    "expect_compound_columns_to_be_unique": lambda part, kwargs: (
        ~_bools(part[kwargs["column_list"]].duplicated(keep=False))
    ),
}


# --- finding a suite ---------------------------------------------------------------------------------------------


def find_suite(name: str, folders: list[Path]) -> Path:
    """The file of a model's suite, from the first folder that has it.

    Raises:
        DefinitionError: A folder does not exist.
        NotFoundError: No folder has it.
    """
    for folder in folders:
        if not folder.is_dir():
            problem = f"the expectations' folder {folder} does not exist"
            raise DefinitionError(problem, "Make it, or set PERENNIAL_EXPECTATIONS")
    for folder in folders:
        if (path := folder / f"{name}.json").is_file():
            return path
    looked = ", ".join(map(str, folders)) or "no folder"
    raise NotFoundError(f"model {name!r} has no suite {name}.json; looked in {looked}", f"Write {name}.json there")
