"""The inside of Great Expectations that we rely on, in one place, named by a test. No rule of ours is here."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any


@cache
def great_expectations() -> SimpleNamespace:
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
def quiet() -> Iterator[None]:
    """Without two warnings about what suites may say: groups in a pattern, and a row condition as text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This pattern is interpreted as a regular expression, and has match")
        warnings.filterwarnings("ignore", message="The condition_parser parameter is deprecated")
        warnings.filterwarnings("ignore", message="Passing a string to the row_condition parameter is deprecated")
        yield


def forget(validator: Any) -> None:
    """Let go of what a validator looked at: it and its parts name each other, and would keep it for a while."""
    validator.execution_engine.batch_manager.reset_batch_cache()


@cache
def silent_context() -> Any:
    """A context in memory, silent: it sends nothing and draws no progress bars. One a process: it holds no data."""
    context = great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    context.variables.analytics_enabled = False
    return context
