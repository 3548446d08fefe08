"""What is relied on of Great Expectations' inside: a new version that changes any of it fails here first."""

from __future__ import annotations

import inspect

import pandas as pd

from tasks.validation.library import great_expectations, quiet, silent_context

NOT_NULL = "expect_column_values_to_not_be_null"


def test_one_validator_a_column_judges_configurations_and_keeps_their_meta() -> None:
    gx = great_expectations()
    frame = pd.DataFrame({"a": [1.0, None]})
    validator = gx.Validator(gx.Engine(), data_context=silent_context(), batches=[gx.Batch(data=frame)])
    wanted = [gx.Configuration(type=NOT_NULL, kwargs={"column": "a"}, meta={"index": 7}, severity="critical")]
    with quiet():
        (result,) = validator.graph_validate(
            configurations=wanted,
            runtime_configuration={"catch_exceptions": True, "result_format": {"result_format": "COMPLETE"}},
        )
    assert result.success is False
    assert result.expectation_config.meta["index"] == 7
    assert result.result["unexpected_index_list"] == [1]
    assert {"element_count", "unexpected_count"} <= set(result.result)
    assert not any(entry.get("raised_exception") for entry in [result.exception_info])


def test_an_exception_is_caught_and_told() -> None:
    gx = great_expectations()
    validator = gx.Validator(gx.Engine(), data_context=silent_context(), batches=[gx.Batch(data=pd.DataFrame())])
    wanted = [gx.Configuration(type=NOT_NULL, kwargs={"column": "gone"}, severity="critical")]
    with quiet():
        (result,) = validator.graph_validate(
            configurations=wanted, runtime_configuration={"catch_exceptions": True, "result_format": "BOOLEAN_ONLY"}
        )
    assert result.success is False
    assert "raised_exception" in str(result.exception_info)


def test_the_registry_names_expectations_by_kind() -> None:
    gx = great_expectations()
    assert NOT_NULL in gx.names
    assert issubclass(gx.find(NOT_NULL), gx.ColumnMap)
    assert issubclass(gx.find("expect_column_mean_to_be_between"), gx.Aggregate)
    assert issubclass(gx.find("expect_column_pair_values_to_be_equal"), gx.Several)
    assert inspect.isclass(gx.find("expect_table_row_count_to_be_between"))
    assert "min_value" in gx.find("expect_column_values_to_be_between").__fields__
