"""One registered home for all of the API's tests: making it costs MLflow's start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serving_world import copy_home, definition_of, make_workspace, register

from perennial.workspace import Workspace


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """A home with `colours` (three versions, the first is champion) and `numbers` (regression)."""
    home = tmp_path_factory.mktemp("world")
    shutil.copy(mlflow_database, home / "mlflow.db")
    workspace = make_workspace(home, definition_of(), definition_of("numbers", "regression"))
    register(workspace, "colours", "one")
    register(workspace, "colours", "two", seed=1, promote=False)
    register(workspace, "colours", "three", seed=2, promote=False)
    register(workspace, "numbers", "one")
    return home


@pytest.fixture
def workspace(world: Path, tmp_path: Path) -> Workspace:
    """A copy of it, free to be changed."""
    return copy_home(world, tmp_path / "home")
