"""One registered home for all of the API's tests: making it costs MLflow's start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serving_world import copy_home, definition_of, make_workspace, register
from shared import made_once

from perennial.workspace import Workspace


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """A home with `colours` (three versions, the first is champion) and `numbers` (regression)."""

    def prepared(folder: Path) -> Workspace:
        (folder / "home").mkdir()
        shutil.copy(mlflow_database, folder / "home" / "mlflow.db")
        return make_workspace(folder / "home", definition_of(), definition_of("numbers", "regression"))

    def registered(workspace: Workspace) -> None:
        register(workspace, "colours", "one")
        register(workspace, "colours", "two", seed=1, promote=False)
        register(workspace, "colours", "three", seed=2, promote=False)
        register(workspace, "numbers", "one")

    return made_once(tmp_path_factory, "world", prepared, registered)[0].home


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Workspace:
    """A copy of it, free to be changed."""
    return copy_home(world, tmp_path / "home")
