"""A suite's sets in the words in which rows are kept, so that what it says of a value is met by the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perennial.definition import ModelDefinition
from tasks.validation.fitness import unfit_expectations
from tasks.validation.spelling import in_normal_form
from tasks.validation.suites import Suite, load_suite

DEFINITION = ModelDefinition.model_validate(
    {
        "name": "flags", "task": "regression",
        "data": {"source": {"parquet": "rows.parquet"}, "id": "row", "time": "at", "target": "y"},
        "features": {"categorical": ["code"], "boolean": ["free", "work"], "datetime": ["seen"]},
    }
)  # fmt: skip


@pytest.fixture
def suite_of(tmp_path: Any) -> Any:
    def made(kind: str, **kwargs: Any) -> Suite:
        path = tmp_path / "flags.json"
        entries = [{"type": kind, "kwargs": kwargs, "severity": "warning"}]
        if kind == "expect_column_mean_to_be_between":  # a range is refused without a bound on what is missing
            kwargs = {"column": kwargs["column"]}
            entries += [{"type": "expect_column_values_to_not_be_null", "kwargs": kwargs, "severity": "warning"}]
        path.write_text(json.dumps({"name": "flags", "expectations": entries}), encoding="utf-8")
        return load_suite(path)

    return made


def test_sets_of_truth_values_are_spelled_however_they_are_written(suite_of: Any) -> None:
    written = [True, "no", 1, "F", "perhaps", None]
    suite = suite_of("expect_column_values_to_be_in_set", column="free", value_set=written)
    (item,) = in_normal_form(suite, DEFINITION).expectations
    assert item.kwargs["value_set"] == ["True", "False", "True", "False", "perhaps", None]


def test_pairs_are_spelled_each_by_its_own_column(suite_of: Any) -> None:
    pairs = [["0", 1.0], ["1", "007"]]
    suite = suite_of(
        "expect_column_pair_values_to_be_in_set", column_A="free", column_B="code", value_pairs_set=pairs
    )  # fmt: skip
    (item,) = in_normal_form(suite, DEFINITION).expectations
    assert item.kwargs["value_pairs_set"] == [["False", "1"], ["True", "007"]]


def test_what_no_moment_or_truth_value_can_meet_is_told(suite_of: Any) -> None:
    regex = suite_of("expect_column_values_to_match_regex", column="seen", regex="^2")
    (told,) = unfit_expectations(regex, DEFINITION)
    assert "'seen' is held as UTC moments" in told
    numbers = suite_of("expect_column_mean_to_be_between", column="free", min_value=0, max_value=1)
    (told,) = unfit_expectations(numbers, DEFINITION)
    assert "'free' is held as text" in told
    assert not unfit_expectations(suite_of("expect_column_values_to_not_be_null", column="seen"), DEFINITION)
