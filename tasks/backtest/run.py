"""A backtest with its input and output: the workspace's tables in, the report's files and the YAML out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.workspace import Workspace
from tasks.backtest.comparison import BASELINES, Backtest, Progress, run_backtest
from tasks.backtest.past import Past, load_past
from tasks.backtest.policies import changes_text, make_candidates, write_policy
from tasks.backtest.report import COLUMNS, advice_lines, draw, render_markdown, summary, table_rows, to_dict
from tasks.backtest.trainings import Elsewhere
from tasks.compute.cluster import open_cluster
from tasks.steps.timeline import picture_bytes


def backtest_model(
    workspace: Workspace,
    definition: ModelDefinition,
    files: Sequence[Path] = (),
    *,
    every: timedelta | None = None,
    start: datetime | None = None,
    until: datetime | None = None,
    tune: bool = False,
    jobs: int = 2,
    progress: Progress | None = None,
) -> Backtest:
    """Replay the model's ingested history under its own policy, its variants and those of the files.

    Fits use the live champion's parameters, the defaults where there is no champion. Without `start`, checks are
    replayed in step with the newest real one.

    Raises:
        DefinitionError: A policy file is wrong.
        DataError: The history is too short.
    """
    every = every or definition.monitoring.window
    candidates = make_candidates(definition, files, every=every, taken=tuple(BASELINES))
    past = load_past(workspace.store, definition, until=until)
    with _elsewhere(past) as elsewhere:
        found = run_backtest(
            past,
            candidates,
            every=every,
            start=start,
            until=until,
            in_step_with=_newest_check(workspace, definition),
            parameters=_champion_parameters(workspace, definition),
            tuning_folder=workspace.work_folder(definition.name, "backtest") if tune else None,
            jobs=jobs,
            progress=progress,
            elsewhere=elsewhere,
        )
    return replace(found, notes=(*found.notes, *_left_out(definition)))


@contextmanager
def _elsewhere(past: Past) -> Iterator[Elsewhere | None]:
    """The past on the definition's cluster; None where it has none."""
    with open_cluster(past.definition) as cluster:
        if cluster is None:
            yield None
            return
        # A copy without what the original has derived of its frame: workers derive it themselves.
        with cluster.share(replace(past)) as shared:
            yield Elsewhere(cluster, shared)


def write_report(workspace: Workspace, backtest: Backtest) -> dict[str, str]:
    """The picture, the report and the figures as files; their paths by name."""
    folder = workspace.reports_folder(backtest.model)
    picture, page, figures = folder / "backtest.png", folder / "backtest.md", folder / "backtest.json"
    picture.write_bytes(picture_bytes(draw(backtest)))
    page.write_text(render_markdown(backtest, f"![The policies over time]({picture.name})"), encoding="utf-8")
    shown = {
        "columns": COLUMNS, "table": table_rows(backtest), "told": [summary(backtest), *advice_lines(backtest)],
        "yaml": _yaml(backtest),
    }  # fmt: skip
    staged = figures.with_suffix(".part")
    staged.write_text(json.dumps(to_dict(backtest) | {"shown": shown}), encoding="utf-8")
    staged.replace(figures)
    return {"picture": str(picture), "report": str(page), "figures": str(figures)}


def _yaml(backtest: Backtest) -> str:
    """The change that the recommendation makes to the definition; empty where nothing is recommended."""
    own, name = backtest.result("own").policy, backtest.advice.name
    wanted = backtest.result(name).policy if name else None
    return changes_text(own, wanted) if own and wanted else ""


def write_advice(definition: ModelDefinition, backtest: Backtest) -> list[str]:
    """Put the recommended policy into the definition's YAML; the keys that changed, none where it is the own one.

    Raises:
        DataError: Nothing was recommended; nothing is written then.
    """
    name = backtest.advice.name
    if name is None:
        raise DataError(
            f"nothing was written into {definition.path}: {backtest.advice.reason}",
            "Keep the policy, or choose by hand",
        )
    policy = backtest.result(name).policy
    assert policy is not None
    return write_policy(definition, policy)


def _left_out(definition: ModelDefinition) -> list[str]:
    """What of the definition the replay does not do."""
    notes = []
    if definition.retraining.schedule:
        notes.append("trainings by retraining.schedule are not replayed; the policy `schedule` shows what age brings")
    if definition.gate.approval == "human":
        notes.append("gate.approval is human: here whom the gate lets in is approved at once")
    if definition.serving.control_group:
        notes.append(
            "serving.control_group is set, and the log is not replayed: rows that were acted on judge and teach here "
            "as any, so these are naive figures"
        )
    return notes


def _newest_check(workspace: Workspace, definition: ModelDefinition) -> datetime | None:
    entry = workspace.ledger(definition.name).newest()
    return datetime.fromisoformat(entry["as_of"]) if entry else None


def _champion_parameters(workspace: Workspace, definition: ModelDefinition) -> dict[str, Any] | None:
    reign = workspace.registry.reign(definition.name)
    if reign is None:  # without asking MLflow, whose import takes seconds
        return None
    found: dict[str, Any] = json.loads(
        workspace.registry.version(definition.name, reign.version).tag("parameters", "{}")
    )
    return found
