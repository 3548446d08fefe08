"""Suites are read strictly, batches judged as Great Expectations judges them, but failing closed."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks.validation.judging as module
from deployments.flights_source import read_table
from perennial.definition import load_definition
from perennial.errors import DefinitionError, NotFoundError
from perennial.settings import PROJECT_ROOT
from tasks.intake.judging import named
from tasks.rows.normal_form import normalise
from tasks.validation import masks
from tasks.validation.judging import validate
from tasks.validation.report import ValidationReport, render_html, render_markdown
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Expectation, Suite, check_columns, find_suite, load_suite

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
SHARE = "expect_column_proportion_of_non_null_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
GREATER = "expect_column_pair_values_a_to_be_greater_than_b"
COMPOUND = "expect_compound_columns_to_be_unique"


def entry(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "severity": severity}


def write(folder: Path, *entries: Any, name: str = "demo", **more: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "expectations": list(entries), **more}), encoding="utf-8")
    return path


def raw_suite(*entries: dict[str, Any]) -> Suite:
    """A suite without the reader's checks: what a careless caller could build."""
    items = [Expectation(i, e["type"], e["severity"], json.dumps(e["kwargs"])) for i, e in enumerate(entries)]
    return Suite("raw", tuple(items), "0" * 16)


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


# --- reading ---


def test_reads_a_suite(tmp_path: Path) -> None:
    first = entry(NOT_NULL, column="a") | {"meta": {"notes": "why"}}
    suite = load_suite(write(tmp_path, first, entry(BETWEEN, "warning", column="a", min_value=1)), columns={"a"})
    assert suite.name == "demo"
    assert [item.severity for item in suite.expectations] == ["critical", "warning"]
    assert suite.expectations[0].notes == "why"
    assert suite.expectations[1].kwargs == {"column": "a", "min_value": 1}
    assert hash(suite) == hash(load_suite(tmp_path / "demo.json"))


def test_digest_covers_what_decides_only(tmp_path: Path) -> None:
    plain = entry(NOT_NULL, column="a")
    digest = load_suite(write(tmp_path, plain)).digest
    assert load_suite(write(tmp_path, plain | {"meta": {"notes": "because"}})).digest == digest
    for other in (
        plain | {"severity": "warning"},
        entry(NOT_NULL, column="b"),
        entry(NOT_NULL, column="a", mostly=0.9),
    ):
        assert load_suite(write(tmp_path, other)).digest != digest


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (entry("expect_column_values_to_be_betwen", column="a"), ["[1]", "betwen", "Did you mean " + BETWEEN]),
        (entry("unexpected_rows_expectation", unexpected_rows_query="x"), ["can't be checked on a frame"]),
        (entry(NOT_NULL, column="a", mostli=1), ["[1]", "kwargs.mostli = 1", "Did you mean mostly"]),
        (entry(NOT_NULL), ["kwargs.column", "field required", "Give column"]),
        (entry(NOT_NULL, column="b", mostly=2), ["kwargs.mostly = 2", "less than or equal to 1"]),
        (entry(NOT_NULL, column="b", mostly=0), ["kwargs.mostly = 0", "nothing can fail"]),
        (entry(NOT_NULL, column="b", batch_id="x"), ["kwargs.batch_id", "unknown"]),
        (entry(BETWEEN, column="a", min_value=3, max_value=1), ["min_value = 3", "above max_value 1"]),
        (entry(BETWEEN, column="a"), ["cannot both be None"]),
        (entry("expect_column_mean_to_be_between", column="a"), ["both missing, so nothing can fail"]),
        (entry(BETWEEN, column="a", min_value={"$PARAMETER": "x"}), ["parameters have no value here"]),
        (entry("expect_column_values_to_match_regex", column="a"), ["kwargs.regex", "nothing can fail"]),
        (entry("expect_column_values_to_match_regex", column="a", regex="("), ["no regular expression"]),
        (entry("expect_column_kl_divergence_to_be_less_than", column="a", threshold=1), ["partition_object"]),
        (entry(NOT_NULL, "fatal", column="b"), ["severity: 'fatal'", "critical", "warning"]),
        ({"type": NOT_NULL, "kwargs": {"column": "b"}}, ["severity: None"]),
        ({"type": NOT_NULL, "severity": "critical"}, ["kwargs: None is no object"]),
        (entry(NOT_NULL, column="b") | {"severty": 1}, ["severty: unknown key", "Did you mean severity"]),
        (entry(NOT_NULL, column="b") | {"meta": "why"}, ["meta: 'why' is no object"]),
        ("expect", ["[1]", "holds str"]),
        (entry(NOT_NULL, column="a"), ["[1]", "repeats expectations[0]", "Remove one"]),
    ],
)
def test_refuses_a_bad_entry(tmp_path: Path, bad: Any, words: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_suite(write(tmp_path, entry(NOT_NULL, column="a"), bad))
    for word in ["demo.json", *words]:
        assert word in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ('{"name": "demo", "expectations": [{"type": NaN}]}', "NaN is no JSON value"),
        ("[]", "holds list"),
        ('{"name": "other", "expectations": []}', "'other' differs from the file's name"),
        ('{"name": "demo", "expectations": []}', "let everything pass"),
        ('{"name": "demo"}', "None is no list"),
        ('{"name": "demo", "expectation": []}', "Did you mean expectations"),
    ],
)
def test_refuses_a_bad_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "demo.json").write_text(text, encoding="utf-8")
    with pytest.raises(DefinitionError, match=r"demo\.json.*"):
        load_suite(tmp_path / "demo.json")
    with pytest.raises(DefinitionError) as caught:
        load_suite(tmp_path / "demo.json")
    assert words in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="can't be read"):
        load_suite(tmp_path / "none.json")


@pytest.mark.parametrize(
    "guard",
    [
        None,
        entry(NOT_NULL, column="b"),
        entry(NOT_NULL, "warning", column="a"),
        entry(SHARE, column="a", max_value=0.9),
        entry(SHARE, column="a", min_value=0),
    ],
)
@pytest.mark.parametrize(
    "kind", [BETWEEN, "expect_column_max_to_be_between", "expect_column_value_lengths_to_be_between"]
)
def test_a_range_needs_a_bound_on_missing_values(tmp_path: Path, guard: dict[str, Any] | None, kind: str) -> None:
    ranged = entry(kind, column="a", max_value=3)
    with pytest.raises(DefinitionError) as caught:
        load_suite(write(tmp_path, ranged, *([guard] if guard else [])))
    assert "expectations[0]" in str(caught.value)
    assert f"Add {NOT_NULL} on a" in str(caught.value)


@pytest.mark.parametrize(
    "guard",
    [entry(NOT_NULL, column="a"), entry(NOT_NULL, column="a", mostly=0.2), entry(SHARE, column="a", min_value=0.1)],
)
def test_a_bounded_range_is_read(tmp_path: Path, guard: dict[str, Any]) -> None:
    ranged = [entry(BETWEEN, severity, column="a", max_value=3) for severity in ("critical",)]
    warned = entry("expect_column_min_to_be_between", "warning", column="a", min_value=3)
    assert len(load_suite(write(tmp_path, *ranged, warned, guard)).expectations) == 3


@pytest.mark.parametrize(
    "item",
    [
        entry(NOT_NULL, column="distanc"),
        entry(GREATER, column_A="distance", column_B="distanc"),
        entry(COMPOUND, column_list=["distance", "distanc"]),
        entry("expect_table_columns_to_match_set", column_set=["distanc"]),
    ],
)
def test_refuses_columns_that_the_definition_lacks(tmp_path: Path, item: dict[str, Any]) -> None:
    path = write(tmp_path, item)
    with pytest.raises(DefinitionError) as caught:
        load_suite(path, columns=["distance", "temp"])
    assert "column 'distanc' is none of the definition's. Did you mean distance?" in str(caught.value)
    with pytest.raises(DefinitionError):
        check_columns(load_suite(path), ["distance", "temp"])


def test_find_suite(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    with pytest.raises(DefinitionError, match=r"first does not exist.*PERENNIAL_EXPECTATIONS"):
        find_suite("demo", [first, second])
    first.mkdir()
    with pytest.raises(NotFoundError, match=r"'demo' has no suite demo\.json; looked in .*first, .*second"):
        find_suite("demo", [first, second])
    path = write(second, entry(NOT_NULL, column="a"))
    assert find_suite("demo", [first, second]) == path


# --- failing closed ---


def test_an_unknown_type_in_a_suite_built_by_hand_does_not_pass() -> None:
    with pytest.raises(Exception, match="expect_column_values_to_be_magic"):
        validate(frame(a=[1.0]), raw_suite(entry("expect_column_values_to_be_magic", column="a")))


def test_a_result_that_does_not_come_back_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    run = module._run

    def lose_one(validator: Any, items: list[Expectation], form: str) -> dict[int, Any]:
        return {index: result for index, result in run(validator, items, form).items() if index != 1}

    monkeypatch.setattr(module, "_run", lose_one)
    report = validate(frame(a=[1.0]), raw_suite(entry(NOT_NULL, column="a"), entry(BETWEEN, column="a", min_value=0)))
    assert report.verdict == "refused"
    assert "holds 2 expectations, but only 1 were judged" in report.reasons[0]


def test_an_empty_suite_refuses() -> None:
    report = validate(frame(a=[1.0]), raw_suite())
    assert (report.verdict, report.reasons) == ("refused", ("the suite holds no expectation",))


def test_a_batch_without_rows_refuses() -> None:
    report = validate(frame(a=[1.0]).iloc[:0], raw_suite(entry(NOT_NULL, "warning", column="a")))
    assert (report.verdict, report.reasons) == ("refused", ("the batch has no rows",))


def test_two_columns_of_one_name_refuse() -> None:
    twice = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    report = validate(twice, raw_suite(entry(NOT_NULL, column="a")))
    assert report.reasons == ("the batch has columns of one name: a",)


EMPTY = {"a": [np.nan, np.nan], "b": [np.nan, np.nan], "s": pd.Series([np.nan, np.nan], dtype="str")}
BLIND = [
    entry(BETWEEN, column="a", min_value=0),
    entry(BETWEEN, column="a", min_value=0, row_condition="b > 0", condition_parser="pandas"),
    entry(IN_SET, column="s", value_set=["x"]),
    entry("expect_column_values_to_be_unique", column="a"),
    entry("expect_column_values_to_match_regex", column="s", regex="x"),
    entry("expect_column_value_lengths_to_be_between", column="s", max_value=3),
    entry("expect_column_values_to_be_increasing", column="a"),
    entry("expect_column_distinct_values_to_be_in_set", column="a", value_set=[1]),
    entry("expect_column_sum_to_be_between", column="a", max_value=1),
    entry("expect_column_mean_to_be_between", column="a", max_value=1),
    entry("expect_column_unique_value_count_to_be_between", column="a", max_value=1),
    entry(GREATER, column_A="a", column_B="b"),
    entry(GREATER, column_A="a", column_B="b", ignore_row_if="either_value_is_missing"),
    entry(COMPOUND, column_list=["a", "b"], ignore_row_if="any_value_is_missing"),
]


@pytest.mark.parametrize("item", BLIND, ids=lambda item: item["type"])
def test_nothing_but_missing_values_is_a_failure(item: dict[str, Any]) -> None:
    critical = validate(frame(**EMPTY), raw_suite(item))
    assert critical.verdict == "refused"
    assert critical.results[0].remark == "there was no value to look at"
    warned = validate(frame(**EMPTY), raw_suite(item | {"severity": "warning"}))
    assert warned.verdict == "passed with warnings"


def test_a_row_condition_that_meets_no_row_is_a_failure() -> None:
    item = entry(BETWEEN, column="a", min_value=0, row_condition="b > 5", condition_parser="pandas")
    assert validate(frame(a=[1.0], b=[1.0]), raw_suite(item)).verdict == "refused"
    assert validate(frame(a=[1.0], b=[6.0]), raw_suite(item)).verdict == "passed"


def test_an_observed_value_that_is_no_number_is_a_failure() -> None:
    mean = entry("expect_column_mean_to_be_between", column="a", min_value=0)
    report = validate(frame(a=[1.0, np.inf]), raw_suite(mean))
    assert report.verdict == "refused"
    assert report.results[0].remark == "the observed value is inf"
    deviation = entry("expect_column_stdev_to_be_between", column="a", max_value=9)  # of one row it is NaN
    assert validate(frame(a=[1.0]), raw_suite(deviation)).verdict == "refused"


@pytest.mark.parametrize("severity", ["critical", "warning"])
@pytest.mark.parametrize(
    ("item", "words"),
    [
        (entry(BETWEEN, column="s", min_value=0), "same type"),  # raised by the metric
        (entry("expect_column_mean_to_be_between", column="s", min_value=0), ""),
        (entry(NOT_NULL, column="gone"), "the batch has no column 'gone'"),
        (entry(GREATER, column_A="a", column_B="gone"), "the batch has no column 'gone'"),
        (entry(GREATER, column_A="a", column_B="s"), ""),
        (
            entry("expect_column_quantile_values_to_be_between", column="a", quantile_ranges={}),
            "",
        ),  # by the expectation
    ],
)
def test_an_exception_refuses_whatever_the_severity(item: dict[str, Any], words: str, severity: str) -> None:
    data = frame(a=[1.0, 2.0], s=pd.Series(["x", "y"], dtype="str"))
    report = validate(data, raw_suite(entry(NOT_NULL, column="a"), item | {"severity": severity}))
    assert report.verdict == "refused"
    assert report.results[0].success
    assert report.results[1].exception is not None
    assert words in report.results[1].exception
    assert "not judged" in report.reasons[0]


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"raised_exception": True, "exception_message": "no\n  good"}, "no good"),
        ({"raised_exception": False, "exception_message": None}, None),
        ({"metric one": {"raised_exception": True, "exception_message": "bad"}}, "bad"),
        ({}, None),
    ],
)
def test_both_shapes_of_an_exception_are_read(info: dict[str, Any], text: str | None) -> None:
    assert module._exception_text(info) == text


def test_severity_is_read_explicitly() -> None:
    data = frame(a=[1.0, 20.0])
    warned = validate(data, raw_suite(entry(BETWEEN, "warning", column="a", max_value=9)))
    assert warned.verdict == "passed with warnings"
    assert len(warned.quarantined_rows()) == 0
    assert warned.row_reasons("warning")["row"].tolist() == [1]
    assert warned.row_reasons().empty
    assert validate(data, raw_suite(entry(BETWEEN, column="a", max_value=9))).verdict == "refused"


def test_a_count_that_contradicts_great_expectations_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(masks._COLUMN_RULES, BETWEEN, lambda values, _: np.ones(len(values), dtype=np.bool_))
    report = validate(frame(a=[1.0, 20.0]), raw_suite(entry(BETWEEN, "warning", column="a", max_value=9)))
    assert report.verdict == "refused"
    assert "says not met, but 0 of 2 rows were found to fail" in report.reasons[0]


def test_every_row_failing_something_refuses() -> None:
    data = frame(a=[1.0, 20.0], b=[20.0, 1.0])
    halves = [entry(BETWEEN, column=name, max_value=9, mostly=0.5) for name in ("a", "b")]
    report = validate(data, raw_suite(*halves))
    assert all(result.success for result in report.results)
    assert report.verdict == "refused"
    assert "every row fails" in report.reasons[0]


# --- rows ---


def test_rows_within_mostly_go_to_quarantine_one_by_one() -> None:
    data = frame(id=[f"r{i}" for i in range(10)], a=[1.0] * 8 + [np.nan, 400.0], b=[5.0] * 7 + [np.nan, 1.0, 1.0])
    data.index = pd.Index(range(100, 110))  # positions count, not labels
    suite = raw_suite(
        entry(NOT_NULL, column="a", mostly=0.9),
        entry(BETWEEN, column="a", max_value=9, mostly=0.8),
        entry(NOT_NULL, "warning", column="b", mostly=0.8),
    )
    report = validate(data, suite, id_column="id")
    assert report.verdict == "passed"
    assert report.quarantined_rows().tolist() == [8, 9]
    reasons = report.row_reasons()
    assert reasons.columns.tolist() == ["row", "column", "expectation", "value", "reason"]
    assert reasons["row"].tolist() == [8, 9]
    assert reasons["value"].tolist() == ["missing", "400"]
    assert reasons["reason"][1] == "a = 400; expected values to be at most 9, for at least 80 %"
    assert [(example.row, example.id) for example in report.results[1].examples] == [(9, "r9")]
    assert report.results[1].unexpected_share == pytest.approx(1 / 9)
    assert report.row_reasons(None)["row"].tolist() == [7, 8, 9]


def test_beyond_mostly_the_whole_batch_is_refused() -> None:
    report = validate(frame(a=[1.0] * 8 + [400.0] * 2), raw_suite(entry(BETWEEN, column="a", max_value=9, mostly=0.9)))
    assert report.verdict == "refused"
    assert report.quarantined_rows().tolist() == list(range(10))
    assert report.row_reasons()["row"].tolist() == [8, 9]


def test_rows_of_expectations_on_several_columns() -> None:
    data = frame(a=[1.0, 2.0, 2.0, 5.0], b=[2.0, 1.0, 1.0, np.nan])
    report = validate(
        data, raw_suite(entry(GREATER, column_A="a", column_B="b"), entry(COMPOUND, column_list=["a", "b"]))
    )
    reasons = report.row_reasons()
    assert reasons["row"].tolist() == [0, 1, 2, 3]
    assert reasons["value"].tolist() == ["a = 1, b = 2", "a = 2, b = 1", "a = 2, b = 1", "a = 5, b = missing"]
    assert set(reasons["column"]) == {"a, b"}
    assert reasons["reason"][0] == "a = 1, b = 2; expected a to be greater than b"


def test_rows_that_only_great_expectations_can_name() -> None:
    mixed = pd.Series(["x", 1, None, 2.5], dtype=object)
    report = validate(frame(o=mixed), raw_suite(entry("expect_column_values_to_be_of_type", column="o", type_="str")))
    assert report.row_reasons()["row"].tolist() == [1, 3]
    text = frame(s=pd.Series(["2020-01-01", "x"], dtype="str"))
    dates = entry("expect_column_values_to_match_strftime_format", column="s", strftime_format="%Y-%m-%d", mostly=0.5)
    within = validate(text, raw_suite(dates))
    assert (within.verdict, within.quarantined_rows().tolist()) == ("passed", [1])
    objects = frame(a=pd.Series([1, 20], dtype=object))
    report = validate(objects, raw_suite(entry(BETWEEN, column="a", max_value=9, mostly=0.5)))
    assert (report.verdict, report.quarantined_rows().tolist()) == ("passed", [1])
    where = entry(BETWEEN, column="a", max_value=9, mostly=0.4, row_condition="b == 1", condition_parser="pandas")
    report = validate(frame(a=[99.0, 1.0, 99.0], b=[0.0, 1.0, 1.0]), raw_suite(where))
    assert report.quarantined_rows().tolist() == [2]


def test_groups_in_a_pattern_are_fine() -> None:
    grouped = entry("expect_column_values_to_match_regex", column="s", regex="^(a|c)", mostly=0.5)
    report = validate(frame(s=pd.Series(["ab", "x"], dtype="str")), raw_suite(grouped))
    assert (report.verdict, report.quarantined_rows().tolist()) == ("passed", [1])


def test_a_wrong_type_fails_as_a_whole() -> None:
    types = "expect_column_values_to_be_of_type"
    report = validate(frame(a=[1.0, 2.0]), raw_suite(entry(types, column="a", type_="str")))
    assert report.verdict == "refused"
    assert report.reasons == ("a: expected values to be of type (type: str); found float64",)


def test_times_are_compared_in_utc() -> None:
    times = pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01", "NaT"], utc=True)).astype("datetime64[us, UTC]")
    within = entry(BETWEEN, column="t", min_value="2020-06-01T00:00:00Z", mostly=0.5)
    report = validate(frame(t=times), raw_suite(within))
    assert report.verdict == "passed"
    assert report.row_reasons()["value"].tolist() == ["2020-01-01T00:00:00+00:00"]


def test_expectations_on_the_table() -> None:
    suite = raw_suite(
        entry("expect_table_row_count_to_be_between", min_value=3),
        entry("expect_table_columns_to_match_set", column_set=["a", "b"]),
        entry("expect_column_to_exist", column="zz"),
    )
    report = validate(frame(a=[1.0, 2.0], b=[1.0, 2.0]), suite)
    assert [result.success for result in report.results] == [False, True, False]
    assert report.results[0].observed == 2
    assert [result.exception for result in report.results] == [None] * 3
    assert report.results[0].column is None


def test_the_frame_stays_as_it_was() -> None:
    data = frame(a=[3.0, 1.0], s=pd.Series(["x", np.nan], dtype="str")).set_axis(["p", "q"])
    before = data.copy()
    validate(data, raw_suite(entry(NOT_NULL, column="s", mostly=0.5), entry(BETWEEN, column="a", max_value=2)))
    pd.testing.assert_frame_equal(data, before)


# --- the same as plain Great Expectations ---


def plain(data: pd.DataFrame, entries: list[dict[str, Any]]) -> list[Any]:
    """What Great Expectations' own public entry point says, in the suite's order."""
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    marked = [item | {"meta": {"index": index}} for index, item in enumerate(entries)]
    suite = gx.ExpectationSuite(name="plain", expectations=marked)
    results = context.data_sources.pandas_default.read_dataframe(data).validate(suite, result_format="SUMMARY").results
    by_index = {result.expectation_config.meta["index"]: result for result in results}
    return [by_index[index] for index in range(len(entries))]


def many_expectations(mostly: float, low: float, high: float) -> list[dict[str, Any]]:
    words = ["ab", "c"]
    moment = "2020-01-03T00:00:00Z"
    return [
        entry(NOT_NULL, column="a", mostly=mostly),
        entry(BETWEEN, column="a", min_value=low, max_value=high, mostly=mostly),
        entry(BETWEEN, column="a", min_value=low, strict_min=True, mostly=mostly),
        entry(BETWEEN, column="b", max_value=high, strict_max=True),
        entry(BETWEEN, column="t", min_value=moment, mostly=mostly),
        entry(BETWEEN, column="n", min_value=low, mostly=mostly),
        entry(IN_SET, column="s", value_set=words, mostly=mostly),
        entry("expect_column_values_to_not_be_in_set", column="s", value_set=words, mostly=mostly),
        entry("expect_column_values_to_not_be_in_set", column="t", value_set=[moment], mostly=mostly),
        entry("expect_column_values_to_match_regex", column="s", regex="^(?:a|c)", mostly=mostly),
        entry("expect_column_values_to_not_match_regex", column="s", regex="b$", mostly=mostly),
        entry("expect_column_value_lengths_to_be_between", column="s", max_value=1, mostly=mostly),
        entry("expect_column_values_to_be_unique", column="a", mostly=mostly),
        entry("expect_column_values_to_be_null", column="b", mostly=mostly),
        entry("expect_column_values_to_be_increasing", column="n"),
        entry("expect_column_mean_to_be_between", column="a", min_value=low, max_value=high),
        entry("expect_column_median_to_be_between", column="b", min_value=low, max_value=high),
        entry("expect_column_max_to_be_between", column="a", max_value=high),
        entry("expect_column_unique_value_count_to_be_between", column="s", min_value=2),
        entry(SHARE, column="b", min_value=mostly),
        entry("expect_column_distinct_values_to_be_in_set", column="s", value_set=words),
        entry(GREATER, column_A="a", column_B="b", mostly=mostly),
        entry(GREATER, column_A="a", column_B="b", or_equal=True, ignore_row_if="either_value_is_missing"),
        entry(GREATER, column_A="a", column_B="b", ignore_row_if="neither", mostly=mostly),
        entry("expect_column_pair_values_to_be_equal", column_A="a", column_B="b", mostly=mostly),
        entry("expect_column_pair_values_to_be_in_set", column_A="n", column_B="n", value_pairs_set=[[0, 0], [1, 1]]),
        entry(COMPOUND, column_list=["a", "s"], mostly=mostly),
        entry(COMPOUND, column_list=["a", "b"], ignore_row_if="any_value_is_missing", mostly=mostly),
        entry(COMPOUND, column_list=["a", "b"], ignore_row_if="never", mostly=mostly),
        entry("expect_select_column_values_to_be_unique_within_record", column_list=["a", "b"], mostly=mostly),
        entry("expect_multicolumn_sum_to_equal", column_list=["a", "n"], sum_total=3, mostly=mostly),
        entry("expect_table_row_count_to_be_between", max_value=6),
        entry("expect_table_columns_to_match_set", column_set=["a", "b", "n", "s", "t"]),
        entry("expect_column_to_exist", column="n"),
    ]


numbers = st.one_of(st.integers(-2, 4).map(float), st.just(np.nan))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    size = draw(st.integers(1, 12))

    def some(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    days = some(st.one_of(st.none(), st.integers(1, 6).map(lambda day: f"2020-01-0{day}")))
    return frame(
        a=np.array(some(numbers)),
        b=np.array(some(numbers)),
        n=np.array(some(st.integers(0, 2)), dtype=np.int64),
        s=pd.Series(some(st.sampled_from(["ab", "c", "abc", np.nan])), dtype="str"),
        t=pd.Series(pd.to_datetime(days, utc=True)).astype("datetime64[us, UTC]"),
    )


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=frames(), mostly=st.sampled_from([1.0, 0.9, 0.5]), low=st.integers(-2, 1), high=st.integers(1, 4))
def test_agrees_with_plain_great_expectations(data: pd.DataFrame, mostly: float, low: int, high: int) -> None:
    entries = many_expectations(mostly, low, high)
    report = validate(data, raw_suite(*entries))
    assert not report.problems or "every row fails" in report.problems[0]
    for item, ours, theirs in zip(entries, report.results, plain(data, entries), strict=True):
        if ours.remark is not None:  # where we mean to differ
            column = item["kwargs"].get("column")
            assert ours.remark == "there was no value to look at" or column is not None
            assert not ours.success
            continue
        if ours.exception is not None:
            assert not theirs.success, item
            assert "Great Expectations says" not in ours.exception, item
            continue
        assert ours.success == bool(theirs.success), item
        if ours.row_level:
            assert ours.unexpected_count == theirs.result["unexpected_count"], item
            assert ours.failing is not None
            listed = theirs.result["partial_unexpected_index_list"]
            assert ours.failing.index.tolist()[: len(listed)] == listed, item


def test_agrees_on_a_larger_frame() -> None:
    rng = np.random.default_rng(7)
    rows = 5_000
    data = frame(
        a=np.where(rng.random(rows) < 0.1, np.nan, rng.integers(-2, 5, rows)),
        b=np.where(rng.random(rows) < 0.5, np.nan, rng.normal(size=rows)),
        n=rng.integers(0, 3, rows),
        s=pd.Series(rng.choice(["ab", "c", "abc"], rows), dtype="str"),
        t=pd.Series(pd.date_range("2020-01-01", periods=rows, freq="h", tz="UTC", unit="us")),
    )
    entries = many_expectations(0.5, -1, 3)
    report = validate(data, raw_suite(*entries))
    theirs = plain(data, entries)
    assert [result.success for result in report.results] == [bool(result.success) for result in theirs]
    counts = [result.result.get("unexpected_count") for result in theirs]
    ours = [result.unexpected_count for result in report.results]
    assert [x for x, result in zip(ours, report.results, strict=True) if result.row_level] == [
        x for x, result in zip(counts, report.results, strict=True) if result.row_level
    ]


# --- good manners ---


@pytest.mark.process
def test_great_expectations_is_silent_and_late() -> None:
    code = """
import sys, warnings, logging
show = warnings.showwarning
import tasks.validation.library as v
assert "great_expectations" not in sys.modules
v.great_expectations()
import os
assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
assert warnings.showwarning is show
context = v.silent_context()
assert context.variables.analytics_enabled is False
assert context.progress_bars == {"globally": False, "metric_calculations": False}
import pandas
gx = v.great_expectations()
validator = gx.Validator(gx.Engine(), data_context=context, batches=[gx.Batch(data=pandas.DataFrame({"a": [1.0]}))])
assert validator.execution_engine.batch_manager.batch_cache
v.forget(validator)
assert not validator.execution_engine.batch_manager.batch_cache
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_warnings_are_not_sent_to_the_log() -> None:
    validate(frame(a=[1.0]), raw_suite(entry(NOT_NULL, column="a")))
    assert logging.getLogger("py.warnings").handlers == []
    with pytest.warns(UserWarning, match="still seen"):
        warnings.warn("still seen", stacklevel=1)


# --- reports ---


@pytest.fixture
def mixed() -> ValidationReport:
    data = frame(
        id=[f"r{i}" for i in range(20)],
        a=[1.0] * 17 + [np.nan, 400.0, 500.0],
        s=pd.Series(["ok"] * 19 + ["<script>alert(1)</script>|`x`"], dtype="str"),
        gone=[np.nan] * 20,
    )
    suite = raw_suite(
        entry(NOT_NULL, column="id"),
        entry(NOT_NULL, column="a", mostly=0.9),
        entry(BETWEEN, column="a", max_value=9),
        entry(IN_SET, "warning", column="s", value_set=["ok"]),
        entry("expect_column_mean_to_be_between", column="a", max_value=9),
        entry(IN_SET, "warning", column="gone", value_set=[1]),
    )
    return validate(data, suite, id_column="id")


def test_markdown(mixed: ValidationReport) -> None:
    text = render_markdown(mixed)
    lines = text.splitlines()
    assert lines[0] == "## raw: refused"
    assert "20 rows, 2 of 6 expectations met" in lines[2]
    assert "| critical | a | values to be at most 9 | 2 rows failed (10.5 %) | 400 (r18); 500 (r19) |" in lines
    assert "1 expectation failed since there was no value to look at: gone." in lines
    assert "<script>" not in text
    assert r"&lt;script>alert(1)&lt;/script>\|'x'" in text
    assert "1 other expectation met without exception" in text


def test_html_stands_alone(mixed: ValidationReport) -> None:
    page = render_html(mixed)
    assert "raw: refused" in page
    assert "&lt;script&gt;alert(1)" in page
    for outside in ("<script", "http:", "https:", "url(", "@import", "<link", "src="):
        assert outside not in page
    assert "prefers-color-scheme: dark" in page


def test_a_clean_report_is_short() -> None:
    report = validate(frame(a=[1.0]), raw_suite(entry(NOT_NULL, column="a")))
    text = render_markdown(report)
    assert "|" not in text
    assert "Every row is let through" in text
    assert "raw: passed" in render_html(report)


def test_to_dict_is_json(mixed: ValidationReport) -> None:
    text = json.dumps(mixed.to_dict(), allow_nan=False)
    read = json.loads(text)
    assert read["verdict"] == "refused"
    assert read["quarantined_rows"] == 20
    assert read["expectations"][2]["examples"][0] == {"row": 18, "id": "r18", "value": "400"}
    assert read["expectations"][4]["observed"] == pytest.approx(916 / 19 + 1 / 19)


def test_to_dict_takes_any_observed_value() -> None:
    data = frame(t=pd.Series(pd.to_datetime(["2020-01-01"], utc=True)), a=[np.inf])
    suite = raw_suite(
        entry("expect_column_max_to_be_between", column="t", min_value="2019-01-01T00:00:00Z"),
        entry("expect_column_max_to_be_between", column="a", min_value=0),
        entry("expect_column_quantile_values_to_be_between", column="a",
              quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 1]]}),
    )  # fmt: skip
    read = json.loads(json.dumps(validate(data, suite).to_dict(), allow_nan=False))
    assert read["expectations"][1]["observed"] is None
    assert read["expectations"][2]["observed"]["values"] == [None]


# --- the repository's own suites ---


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    table, weather = read_table("flights.csv.zip"), read_table("weather.csv")

    readings = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    key = ["origin", "time_hour"]
    joined = table.merge(weather.drop_duplicates(key)[[*key, *readings]], on=key, how="left")
    day = pd.to_datetime(joined[["year", "month", "day"]])
    time = pd.to_datetime(joined["time_hour"], utc=True) + pd.to_timedelta(joined["minute"], unit="m")
    arrival = joined["sched_arr_time"]
    data = frame(
        flight_id=pd.Series(np.arange(len(joined))).astype("str"),
        scheduled_departure=time.astype("datetime64[us, UTC]"),
        distance=joined["distance"].astype("float64"),
        sched_dep_hour=joined["hour"] + joined["minute"] / 60,
        sched_arr_hour=arrival // 100 + arrival % 100 / 60,
        day_of_week=day.dt.dayofweek.astype("float64"),
        day_of_year=day.dt.dayofyear.astype("float64"),
        **{name: joined[name].astype("float64") for name in readings},
        **{name: joined[name].astype("str") for name in ("carrier", "origin", "dest")},
    )
    return data.sort_values("scheduled_departure", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def flight_suite() -> Suite:
    return load_suite(PROJECT_ROOT / "expectations" / "flights.json")


def week(flights: pd.DataFrame, number: int) -> pd.DataFrame:
    start = pd.Timestamp("2013-01-01", tz="UTC") + pd.Timedelta(days=7 * number)
    times = flights["scheduled_departure"]
    return flights[(times >= start) & (times < start + pd.Timedelta(days=7))].reset_index(drop=True)


def test_flight_suite_is_worth_its_name(flight_suite: Suite, flights: pd.DataFrame) -> None:
    check_columns(flight_suite, flights.columns)
    assert len(flight_suite.expectations) >= 15
    assert all(item.notes for item in flight_suite.expectations)
    assert {item.severity for item in flight_suite.expectations} == {"critical", "warning"}


@pytest.mark.parametrize("number", range(0, 52, 4))
def test_real_weeks_pass(flights: pd.DataFrame, flight_suite: Suite, number: int) -> None:
    report = validate(week(flights, number), flight_suite)
    assert report.verdict != "refused", report.reasons
    assert len(report.quarantined_rows()) <= 1


def test_a_quarter_and_the_year_pass(flights: pd.DataFrame, flight_suite: Suite) -> None:
    quarter = flights[flights["scheduled_departure"] < pd.Timestamp("2013-04-01", tz="UTC")]
    assert validate(quarter, flight_suite).verdict == "passed"
    assert validate(flights, flight_suite).verdict == "passed"


def test_the_dead_weather_feed_at_the_end_of_the_year_is_seen(flights: pd.DataFrame, flight_suite: Suite) -> None:
    report = validate(week(flights, 52), flight_suite)
    assert report.verdict == "refused"
    assert "temp: expected proportion of non-null values to be at least 0.8; found 0" in report.reasons


def celsius(batch: pd.DataFrame) -> pd.DataFrame:
    return batch.assign(temp=(batch["temp"] - 32) / 1.8)


def some_lost(batch: pd.DataFrame) -> pd.DataFrame:
    lost = np.random.default_rng(1).random(len(batch)) < 0.4
    return batch.assign(**{name: batch[name].mask(lost) for name in ("temp", "dewp", "humid", "visib")})


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "distance times 1000": (lambda b: b.assign(distance=b["distance"] * 1000), "distance"),
    "distance in kilometres": (lambda b: b.assign(distance=b["distance"] * 1.609), "distance"),
    "temperature in Celsius": (celsius, "temp"),
    "humidity as a share": (lambda b: b.assign(humid=b["humid"] / 100), "humid"),
    "pressure in inches": (lambda b: b.assign(pressure=b["pressure"] * 0.02953), "pressure"),
    "visibility in kilometres": (lambda b: b.assign(visib=b["visib"] * 1.609), "visib"),
    "visibility below zero": (lambda b: b.assign(visib=-1.0), "visib"),
    "clock reading as hour": (lambda b: b.assign(sched_dep_hour=b["sched_dep_hour"] * 100), "sched_dep_hour"),
    "constant distance": (lambda b: b.assign(distance=1000.0), "distance"),
    "constant temperature": (lambda b: b.assign(temp=75.0, dewp=60.0), "temp"),
    "constant pressure": (lambda b: b.assign(pressure=1013.0), "pressure"),
    "constant destination": (lambda b: b.assign(dest=pd.Series(["BOS"] * len(b), dtype="str")), "dest"),
    "constant carrier": (lambda b: b.assign(carrier=pd.Series(["UA"] * len(b), dtype="str")), "carrier"),
    "unknown origin": (lambda b: b.assign(origin=b["origin"].mask(b["origin"] == "LGA", "BOS")), "origin"),
    "weather lost": (some_lost, "temp"),
    "weather gone": (lambda b: b.assign(temp=np.nan), "temp"),
    "a column less": (lambda b: b.drop(columns="wind_speed"), "wind_speed"),
    "numbers as text": (lambda b: b.assign(distance=b["distance"].astype("str")), "distance"),
    "ids twice": (lambda b: pd.concat([b, b.head(3)], ignore_index=True), "flight_id"),
    "ids missing": (lambda b: b.assign(flight_id=b["flight_id"].mask(b.index == 5)), "flight_id"),
    "time missing": (lambda b: b.assign(scheduled_departure=b["scheduled_departure"].mask(b.index < 9)), "departure"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_real_faults_are_refused(flights: pd.DataFrame, flight_suite: Suite, name: str) -> None:
    spoil, column = FAULTS[name]
    report = validate(spoil(week(flights, 27)), flight_suite)
    assert report.verdict == "refused"
    assert any(column in reason.split(":")[0] for reason in report.reasons), report.reasons


def test_celsius_is_refused_in_every_month(flights: pd.DataFrame, flight_suite: Suite) -> None:
    for number in (2, 13, 27, 45):
        assert validate(celsius(week(flights, number)), flight_suite).refused, number


def test_a_few_bad_rows_are_quarantined_alone(flights: pd.DataFrame, flight_suite: Suite) -> None:
    batch = week(flights, 10)
    batch.loc[[3, 40], "wind_speed"] = 1048.36
    batch.loc[77, "origin"] = "BOS"
    report = validate(batch, flight_suite, id_column="flight_id")
    assert report.verdict == "passed with warnings"  # a fourth origin
    assert report.quarantined_rows().tolist() == [3, 40, 77]
    assert report.row_reasons()["value"].tolist() == ["1048.36", "1048.36", "BOS"]


@pytest.mark.slow
def test_bike_suite_on_real_weeks() -> None:
    path = PROJECT_ROOT.parent / "shared" / "data" / "bike" / "bike.parquet"
    if not path.exists():
        pytest.skip("the bike data is not there: ../shared/data/bike/bike.parquet")
    definition = load_definition(PROJECT_ROOT / "deployments" / "bikes.yaml")
    batch = named(normalise(pd.read_parquet(path), definition), definition)
    known = {definition.data.id, definition.data.time, *definition.features.columns}
    suite = in_normal_form(load_suite(PROJECT_ROOT / "expectations" / "bikes.json", columns=known), definition)
    assert not validate(batch, suite).refused
    for start in range(0, len(batch) - 168, 2000):
        report = validate(batch.iloc[start : start + 168], suite)
        assert not report.refused, report.reasons
    week = batch.head(168)
    holiday = pd.Series(["True"] * len(week), dtype="str")
    assert validate(week.assign(hum=week["hum"] * 100), suite).refused
    assert validate(week.assign(holiday=holiday, workingday=holiday), suite).refused
