"""The one module that knows Evidently's inside: distributions of columns, drawn, with drift as we measured it.

Its own drift tests have fixed thresholds, which flag what does not matter and miss what does: each column's score here
is the check's, in times of its limit. `tests/tasks/steps/shown/test_drawn.py` names what is relied on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

METHOD = "perennial"
_TOLD = "times of its limit, as the check has it"


def draw_distributions(
    current: pd.DataFrame, reference: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str],
    ratios: Mapping[str, float],
) -> tuple[str, str]:  # fmt: skip
    """A page of both distributions of each column, in the order of `ratios`, as HTML; and its metrics as JSON.

    Args:
        current, reference: Rows with all columns.
        numeric, categorical: Which to draw.
        ratios: Each column's movement in times of its limit; above 1 the page says that it drifted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import, about names that numpy has moved
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import RowCount, ValueDrift

        _register(ratios)
        wanted = {*numeric, *categorical}
        columns = [name for name in ratios if name in wanted]
        shape = DataDefinition(
            numerical_columns=[name for name in columns if name in numeric],
            categorical_columns=[name for name in columns if name in categorical],
        )
        metrics: list[Any] = [ValueDrift(column=name, method=METHOD, threshold=1.0) for name in columns]
        result = Report([*metrics, RowCount()]).run(
            Dataset.from_pandas(current[columns], data_definition=shape),
            Dataset.from_pandas(reference[columns], data_definition=shape),
        )
        return result.get_html_str(as_iframe=False), result.json()


def _register(ratios: Mapping[str, float]) -> None:
    """Evidently's way to have a drift test of one's own: one name, whose function is told the two columns."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def as_measured(reference: pd.Series[Any], _current: Any, _kind: Any, threshold: float) -> tuple[float, bool]:
        ratio = float(ratios[str(reference.name)])
        return ratio, ratio > threshold

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    register_stattest(StatTest(METHOD, _TOLD, kinds, 1.0), as_measured)


def with_lead(page: str, title: str, lead: str) -> str:
    """The page with a title, and HTML of ours before all else.

    Raises:
        ValueError: The page is not made as it was when this was written.
    """
    head, body = '<meta charset="UTF-8">', "<body>"
    if page.count(head) != 1 or body not in page:
        raise ValueError("Evidently makes its page otherwise than it did: there is no place for ours")
    page = page.replace(head, f"{head}<title>{title}</title>", 1)
    return page.replace(body, f"{body}\n{lead}", 1)
