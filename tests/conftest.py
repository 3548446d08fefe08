"""Fixtures for all tests: one real Prefect server a session, started when the first test asks for it; workspaces."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import small_model
from small_model import World

from perennial.servers import prefect_server
from perennial.settings import Settings
from perennial.workspace import Workspace
from tasks.scoring import load_version, score_unscored


@pytest.fixture(scope="session")
def prefect_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the session's Prefect server."""
    return Settings(home=tmp_path_factory.mktemp("prefect") / "home")


@pytest.fixture(scope="session")
def prefect_url(prefect_settings: Settings) -> Iterator[str]:
    """The /api address of a real Prefect server, which this process uses as long as the tests run."""
    with prefect_server(prefect_settings, scheduler=True) as url:
        yield url


@pytest.fixture
def migrate_home(prefect_url: str, prefect_settings: Settings) -> Callable[[Path], None]:
    """Gives a new home the session server's database, which spares its own server 5 s of migrations."""

    def migrate(home: Path) -> None:
        source, target = (folder / "prefect" / "prefect.db" for folder in (prefect_settings.home_path, home))
        target.parent.mkdir(parents=True)
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)

    return migrate


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database with all migrations, which cost 5 s: to be copied."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def make_workspace(mlflow_database: Path) -> Callable[[Path], Workspace]:
    """Gives a folder a workspace of its own: state in `home`, definitions in `models`, suites in `expectations`."""

    def make(folder: Path) -> Workspace:
        for name in ("home", "models", "expectations"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(mlflow_database, folder / "home" / "mlflow.db")
        return Workspace(
            Settings(home=folder / "home", models=str(folder / "models"), expectations=str(folder / "expectations"))
        )

    return make


@pytest.fixture
def workspace(tmp_path: Path, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    """An isolated workspace with a real registry and no model yet."""
    return make_workspace(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> World:
    """A model whose first champion learned from ten days and scored three more; for tests that only look."""
    workspace = make_workspace(tmp_path_factory.mktemp("trained"))
    definition = small_model.define(workspace)
    day = small_model.day
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    training = small_model.retrain(workspace, definition, as_of=day(10), decision_id="first")
    small_model.add(workspace, definition, small_model.rows(10, 13).drop(columns="even"), as_of=day(13))
    pipeline = load_version(workspace.registry, training.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(13))
    return World(workspace, definition, training)
