"""The flow that puts policies side by side on a model's history. Thin: how is in tasks.backtest.comparison."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import TypeAdapter

from flows.recording import inline_image, moment, publish_markdown, publish_table, step, title_run
from perennial.definition import Duration
from perennial.workspace import open_workspace
from tasks.backtest.report import COLUMNS, advice_lines, draw, render_markdown, table_rows, to_dict
from tasks.backtest.run import backtest_model, write_advice, write_report


@flow(name="backtest", flow_run_name="backtest {model}", retries=0)
def backtest(
    model: str,
    policies: list[str] | None = None,
    start: datetime | None = None,
    until: datetime | None = None,
    every: str | None = None,
    tune: bool = False,
    write: bool = False,
    jobs: int = 2,
) -> dict[str, Any]:
    """Replay the model's history under its own policy, variants of it and those of files, and recommend one.

    Args:
        model: The model's name.
        policies: Paths of YAML files with keys of `monitoring`.
        start: When the first model is trained; by default when a quarter of the history is over.
        until: The end of the last window; by default that of the labelled rows.
        every: The time between two checks, such as 7d; `monitoring.window` by default.
        tune: Whether to tune at each fit, as live, or to fit with the champion's parameters.
        write: Whether to write the recommended policy into the model's YAML.
        jobs: Threads, one fit each.
    """
    workspace = open_workspace(patient=True)
    definition = workspace.definition(model)
    found = step("backtest", backtest_model)(
        workspace, definition, [Path(each) for each in policies or []],
        every=TypeAdapter(Duration).validate_python(every) if every else None,
        start=moment(start) if start else None, until=moment(until) if until else None, tune=tune, jobs=jobs,
    )  # fmt: skip
    paths = step("report", write_report)(workspace, found)
    told = advice_lines(found)[0]
    title_run(f"backtest {model}: {found.advice.name or 'no recommendation'}")
    publish_table("backtest-policies", model, [dict(zip(COLUMNS, row, strict=True)) for row in table_rows(found)], told)
    picture = inline_image(draw(found), "The policies over time")
    publish_markdown("backtest", model, render_markdown(found, picture), told[:250])
    written = step("write", write_advice)(definition, found) if write else []
    return to_dict(found) | paths | {"written": written}
