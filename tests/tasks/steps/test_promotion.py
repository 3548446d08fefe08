"""The one way in: what the stored model predicts is looked at first, and a person is asked for maps too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import small_model
from small_model import day

from perennial.errors import ConflictError, RegistryError
from perennial.workspace import Workspace
from tasks.steps.promote import let_in, require_golden
from tasks.steps.register import GOLDEN_FILE, register_training


@pytest.fixture(scope="module")
def waiting(make_workspace: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, small_model.Trained]:
    """A model whose version 1 was let past the gate and waits for a person."""
    workspace = make_workspace(tmp_path_factory.mktemp("promotion"))  # type: ignore[operator]
    definition = small_model.define(workspace, gate={"approval": "human"})
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    return workspace, small_model.retrain(workspace, definition, as_of=day(10))


def test_a_new_map_waits_for_a_person_too(waiting: tuple[Workspace, small_model.Trained]) -> None:
    workspace, trained = waiting
    assert require_golden(workspace, trained.prepared.definition, trained.version) <= 1e-9
    record = replace(trained.record, key="map", figures={}, tables={}, curves={})
    version = register_training(workspace.registry, record)
    reign = let_in(
        workspace, trained.prepared.definition, version, trained.judged.report, beaten=None, action="recalibrate",
        at=day(10), by="test", decision_id=None,
    )  # fmt: skip
    assert reign is None
    assert workspace.registry.version("digits", version.number).tag("approval") == "pending"
    assert workspace.registry.history("digits") == []


def test_a_stored_model_that_predicts_otherwise_does_not_get_in(
    waiting: tuple[Workspace, small_model.Trained],
) -> None:
    workspace, trained = waiting
    rows, score = trained.record.golden
    record = replace(trained.record, key="off", figures={}, tables={}, curves={})
    with pytest.raises(RegistryError, match=r"golden scores are off by 0\.001"):
        register_training(workspace.registry, replace(record, golden=(rows, score + 1e-3)))
    version = register_training(workspace.registry, record)
    (golden,) = workspace.home.rglob(f"{version.run_id}/**/{GOLDEN_FILE}")
    frame = pd.read_parquet(golden)
    frame.assign(_score=frame["_score"] + 1e-3).to_parquet(golden)  # somebody changes what it must answer
    with pytest.raises(RegistryError, match=r"predicts other than it was trained: its \d+ golden .* up to 0\.001"):
        let_in(
            workspace, trained.prepared.definition, version, trained.judged.report, beaten=None, action="promote",
            at=day(10), by="test", decision_id=None,
        )  # fmt: skip
    assert workspace.registry.history("digits") == []
    np.testing.assert_array_equal(rows.columns, trained.record.golden[0].columns)


def test_a_map_for_a_champion_that_went_is_not_let_in(waiting: tuple[Workspace, small_model.Trained]) -> None:
    workspace, trained = waiting
    automatic = small_model.define(workspace, gate={"approval": "automatic"})
    report, registry = trained.judged.report, workspace.registry
    first = let_in(
        workspace, automatic, trained.version, report, beaten=None, action="promote", at=day(10), by="test",
        decision_id=None,
    )  # fmt: skip
    assert first is not None
    late = replace(trained.version, number=99)
    with pytest.raises(ConflictError, match=r"judged against 7. The next check looks again"):
        let_in(
            workspace, automatic, late, report, beaten=replace(late, number=7), action="recalibrate", at=day(11),
            by="test", decision_id=None,
        )  # fmt: skip
    assert [line.version for line in registry.history("digits")] == [1]
