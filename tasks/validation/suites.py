"""Expectation suites from their JSON files, refused where Great Expectations would silently let pass. No judging."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from perennial.errors import DefinitionError, NotFoundError
from tasks.validation.library import great_expectations, quiet
from tasks.validation.report import Severity, value_text

SEVERITIES = ("critical", "warning")


MATCH_REGEX = "expect_column_values_to_match_regex"


NOT_NULL = "expect_column_values_to_not_be_null"


A_GREATER_THAN_B = "expect_column_pair_values_a_to_be_greater_than_b"


NULL = "expect_column_values_to_be_null"


NON_NULL_SHARE = "expect_column_proportion_of_non_null_values_to_be_between"


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
    MATCH_REGEX: "regex",
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
    if kind == A_GREATER_THAN_B:
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
    raise NotFoundError(
        f"model {name!r} has no suite {name}.json; looked in {looked}",
        f"Write {name}.json there, or name its folder in PERENNIAL_EXPECTATIONS",
    )


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
    usable = [name for name in great_expectations().names if name not in _NOT_ON_FRAMES]
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

    model = great_expectations().find(kind)
    known: list[str] = [name for name in model.__fields__ if name not in _FIELDS_NOT_KWARGS]
    for key, value in kwargs.items():
        if key not in known:
            refuse(key, "unknown", _nearest(key, known))
        if isinstance(value, dict) and "$PARAMETER" in value:
            refuse(key, "parameters have no value here", "Write the value")
    try:
        with quiet():
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
        if item.type == NOT_NULL or (item.type == NON_NULL_SHARE and (item.kwargs.get("min_value") or 0) > 0):
            severities = SEVERITIES if item.severity == "critical" else ("warning",)
            guards |= {(item.kwargs["column"], severity) for severity in severities}
    for item in expectations:
        if item.type in _RANGES and (item.kwargs["column"], item.severity) not in guards:
            column = item.kwargs["column"]
            problem = (
                f"{path}: expectations[{item.index}] ({item.type}): column {column!r} has a {item.severity} range but "
                "no bound on its missing values that is as severe; a range passes where every value is missing"
            )
            raise DefinitionError(problem, f"Add {NOT_NULL} on {column}, with mostly where gaps are normal")
