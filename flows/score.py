"""The flow that lets the champion score new rows, or a file. Thin: how is in tasks.steps.score."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.recording import moment, step, tell, title_run
from perennial.definition import ModelDefinition
from perennial.model.answers.noticed import Noticed, say
from perennial.state.registry import Version
from perennial.workspace import Workspace, open_workspace
from tasks.steps.score import (
    load_version,
    log_predictions,
    require_champion,
    score_file,
    score_unscored,
    version_intervals,
)


@flow(name="score", flow_run_name="score {model}", retries=0)
def score(
    model: str, input: str | None = None, output: str | None = None, as_of: datetime | None = None
) -> dict[str, Any]:
    """Score the ingested rows that nobody scored, or a file into another; both are logged.

    Args:
        model: The model's name.
        input: A parquet, CSV or JSON-lines file; the ingested rows by default.
        output: With `input`: the parquet or CSV file to write.
        as_of: The moment of scoring; now by default.

    Returns:
        rows, version, output; and warnings: categories that training never saw, with the nearest that it did, and
            images that can't be read.
    """
    workspace = open_workspace(patient=True)
    definition, at = workspace.definition(model), moment(as_of)
    champion = require_champion(workspace.registry, model, as_of=at)
    if input:
        target = output or str(Path(input).with_suffix(".scored.parquet"))
        found = step("score-file", _score_file)(workspace, definition, champion, Path(input), Path(target), at)
        return {"rows": found[0], "version": champion.number, "output": target, "warnings": found[1]}
    pipeline = step("load-champion", load_version)(workspace.registry, champion, definition)
    noticed = Noticed(pipeline)
    rows = step("score", score_unscored)(
        workspace.store, definition, pipeline, version=champion.number, as_of=at, noticed=noticed,
        intervals=version_intervals(champion, definition),
    )  # fmt: skip
    title_run(f"score {model}: {rows:,} rows by v{champion.number}")
    return {"rows": rows, "version": champion.number, "warnings": _told(noticed)}


def _score_file(
    workspace: Workspace, definition: ModelDefinition, champion: Version, source: Path, target: Path, at: datetime
) -> tuple[int, list[dict[str, Any]]]:
    """The number of rows, and what training never saw in them."""
    pipeline = load_version(workspace.registry, champion, definition)
    intervals = version_intervals(champion, definition)
    record = partial(
        _log, workspace, definition.name, version=champion.number, as_of=at, origin=source.name, intervals=intervals,
        serving=definition.serving,
    )  # fmt: skip
    classes = json.loads(champion.tag("classes") or "[]")
    chunks = score_file(
        pipeline, definition, source, target, version=champion.number, classes=classes, record=record,
        intervals=intervals,
    )  # fmt: skip
    count, noticed = 0, Noticed(pipeline)
    for rows, _, _ in chunks:
        count += len(rows)
        noticed.see(rows)
        tell(f"score: {count:,} rows")
    return count, _told(noticed)


def _told(noticed: Noticed) -> list[dict[str, Any]]:
    """The warnings, which the run's log says as well: of a scheduled run nobody reads what it returns."""
    warnings = noticed.warnings()
    for warning in warnings:
        get_run_logger().warning("%s", say(warning))
    return warnings


def _log(workspace: Workspace, model: str, rows: Any, score: Any, raw: Any, **facts: Any) -> None:
    log_predictions(workspace.store, model, rows, score, raw=raw, **facts)
