"""Tests of the figures that a check keeps, held against the predictions themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_model
from small_model import World, day

from perennial.state.registry import Registry
from perennial.workspace import Workspace
from tasks.measures.quality import row_losses
from tasks.steps.monitor import run_check
from tasks.steps.score import predictions_between
from tasks.steps.shown.figures import figures_of, record_figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> World:
    """Three scored days, their truth, and a second champion since."""
    workspace = make_workspace(tmp_path_factory.mktemp("figures"))
    definition = small_model.define(workspace, gate={"slice_minimum_rows": 10}, monitoring={"minimum_rows": 20})
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    first = small_model.retrain(workspace, definition, as_of=day(10))
    small_model.add(workspace, definition, small_model.rows(10, 14), as_of=day(14))
    from tasks.steps.score import load_version, score_unscored

    pipeline = load_version(workspace.registry, first.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(14))
    return World(workspace, definition, first)


def test_the_live_figure_is_the_mean_loss_of_what_was_answered(world: World) -> None:
    rows = {
        (row["kind"], row["part"]): row for row in figures_of(world.workspace, world.definition, "d", as_of=day(14))
    }
    live = rows["live", ""]
    made = predictions_between(world.workspace.store, "digits", start=day(10), end=day(13), known_at=day(14))
    truth = small_model.rows(10, 13).set_index("row")["even"]
    losses = row_losses(made["id"].map(truth).to_numpy(float), made["score"].to_numpy(float), "brier")
    assert (live["loss"], live["rows"], live["version"]) == ("brier", len(made), 1)
    assert live["value"] == pytest.approx(losses.mean())
    assert live["low"] < live["value"] < live["high"]
    # The first champion answered all of it: both are the same.
    assert rows["first", ""]["value"] == pytest.approx(live["value"])
    shades = small_model.rows(10, 13).set_index("row")["shade"]
    for shade in ("light", "middle", "dark"):
        inside = (made["id"].map(shades) == shade).to_numpy()
        if inside.sum() >= 30:
            assert rows["slice", f"shade = {shade}"]["value"] == pytest.approx(losses[inside].mean())
            assert rows["slice", f"shade = {shade}"]["rows"] == inside.sum()


def test_the_first_champion_is_scored_anew_where_another_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log says is by version 2, so that version 1's answers have to be made: they are what they were."""
    import tasks.steps.shown.figures as figures

    def by_another(*given: object, **named: object) -> pd.DataFrame:
        made = predictions_between(*given, **named)  # type: ignore[arg-type]
        return made.assign(version=2, score=0.5)

    before = [
        row for row in figures_of(world.workspace, world.definition, "d", as_of=day(14)) if row["kind"] == "first"
    ]
    monkeypatch.setattr(figures, "predictions_between", by_another)
    rows = {row["kind"]: row for row in figures_of(world.workspace, world.definition, "d", as_of=day(14))}
    assert rows["live"]["value"] == pytest.approx(0.25)
    assert (rows["first"]["version"], rows["first"]["rows"]) == (1, before[0]["rows"])
    assert rows["first"]["value"] == pytest.approx(before[0]["value"], abs=1e-9)


def test_the_control_group_has_a_figure_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.steps.shown.figures as figures

    def in_groups(*given: object, **named: object) -> pd.DataFrame:
        made = predictions_between(*given, **named)  # type: ignore[arg-type]
        return made.assign(group=np.where(np.arange(len(made)) % 3 == 0, "control", "treated"))

    monkeypatch.setattr(figures, "predictions_between", in_groups)
    rows = {row["kind"]: row for row in figures_of(world.workspace, world.definition, "d", as_of=day(14))}
    assert rows["control"]["rows"] == -(-rows["live"]["rows"] // 3)


def test_too_few_rows_have_no_figure_and_nothing_is_written_twice(world: World) -> None:
    assert list(figures_of(world.workspace, world.definition, "d", as_of=day(9))) == []
    decision = run_check(world.workspace, world.definition, as_of=day(14))
    count = record_figures(world.workspace, world.definition, decision)
    assert count >= 2
    assert record_figures(world.workspace, world.definition, decision) == 0
    assert world.workspace.store.count("digits", "figures") == count


def test_a_first_champion_that_is_gone_costs_its_own_figure_only(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import tasks.steps.shown.figures as figures
    from perennial.errors import RegistryError

    def by_another(*given: object, **named: object) -> pd.DataFrame:
        return predictions_between(*given, **named).assign(version=2)  # type: ignore[arg-type]

    def gone(*_: object) -> Path:
        raise RegistryError("the artifact is gone")

    monkeypatch.setattr(figures, "predictions_between", by_another)
    monkeypatch.setattr(Registry, "artifacts", gone)
    kinds = {row["kind"] for row in figures_of(world.workspace, world.definition, "d", as_of=day(14))}
    assert "live" in kinds
    assert "first" not in kinds
    assert "no figure of the first champion of digits: the artifact is gone" in caplog.text
