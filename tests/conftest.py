"""Fixtures for all tests: one real Prefect server a session, started when the first test asks for it; workspaces."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import lean_processes  # noqa: F401 - before all that imports NumPy
import pytest
import services
import small_model
from alone import alone
from filelock import FileLock
from shared import made_once
from small_model import World

from perennial.operate.servers import prefect_server
from perennial.settings import Settings
from perennial.workspace import Workspace
from tasks.steps.score import load_version, score_unscored

_MUST_RUN = ("postgres", "s3", "browser")
_DEAR = {"prefect_url", "postgres", "s3", "mlflow_database"}
_EACH_SECOND = {
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
}
# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")
_NOT_QUICK = ("slow", "process", "long", "interpreters", "browser", "k8s", "oci", "postgres", "s3")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick is what has no marker of the others and asks for no server or registry: nobody marks it by hand.

    Modules with slow tests come first: at the end, no process is left alone with one. Those that wait are spread evenly
    among them, or processes would wait beside each other.
    """
    for item in items:
        dear = _DEAR & set(getattr(item, "fixturenames", ()))
        if not dear and not any(item.get_closest_marker(name) for name in _NOT_QUICK):
            item.add_marker("quick")
    slow, waits = ({item.path: True for item in items if item.get_closest_marker(name)} for name in ("slow", "waits"))
    works = [path for path in slow if path not in waits]
    place = {path: number for number, path in enumerate(works)}
    place |= {path: number * len(works) / len(waits) for number, path in enumerate(waits)}
    items.sort(key=lambda item: place.get(item.path, len(works)))


def pytest_collection_finish() -> None:
    """What was imported stays until the end: the garbage collector needs not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """A quick test's fixtures start no process either."""
    with alone(item.nodeid) if item.get_closest_marker("quick") else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """What makes a test quick is kept in every run, not only in that of the quick ones."""
    with alone(item.nodeid) if item.get_closest_marker("quick") else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Where CI=true, a test that a server's absence would skip has failed: nothing goes untested unseen."""
    report = yield
    must = [name for name in _MUST_RUN if item.get_closest_marker(name)]
    if report.skipped and must and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true forbids for {', '.join(must)}: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL server of this session."""
    server = services.Postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.S3]:
    """An S3-compatible server of this session."""
    server = services.S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3_environment(s3: services.S3, monkeypatch: pytest.MonkeyPatch) -> services.S3:
    """The server, with address and keys in this process's environment."""
    for name, value in {**services.KEYS, "AWS_ENDPOINT_URL": s3.address}.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def tables_root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh root for tables: a folder, and a bucket."""
    if request.param == "folder":
        return str(tmp_path / "tables")
    server: services.S3 = request.getfixturevalue("s3_environment")
    return f"{server.bucket(f't-{uuid.uuid4().hex}')}/tables"


@pytest.fixture(scope="session")
def kept(request: pytest.FixtureRequest) -> Path:
    """A folder for what costs seconds to make and depends on a library's version alone: for later runs too."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("databases")


def copy_database(source: Path, target: Path) -> None:
    """Of SQLite, which may be in use."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


@pytest.fixture(scope="session")
def prefect_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the session's Prefect server."""
    return Settings(home=tmp_path_factory.mktemp("prefect") / "home")


@pytest.fixture(scope="session")
def prefect_url(prefect_settings: Settings, kept: Path) -> Iterator[str]:
    """The /api address of a real Prefect server, which this process uses as long as the tests run.

    Its database's migrations cost 5 s and are kept. A flow within this process has no heartbeat, for whose thread
    each run would wait a second. Events are written, and looked for in vain, each second and not each fifth.
    """
    migrated = _migrated(kept)
    database = prefect_settings.home_path / "prefect" / "prefect.db"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in _EACH_SECOND.items():
            patch.setenv(name, value)
        with FileLock(migrated.with_suffix(".lock")):  # of several processes one migrates
            if first := not migrated.exists():
                url = stack.enter_context(prefect_server(prefect_settings, scheduler=True))
                copy_database(database, made := migrated.with_suffix(".new"))
                made.replace(migrated)
        if not first:
            copy_database(migrated, database)
            url = stack.enter_context(prefect_server(prefect_settings, scheduler=True))
        patch.undo()  # no other server's
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield url


def _migrated(kept: Path) -> Path:
    return kept / f"prefect-{version('prefect')}.db"


@pytest.fixture
def migrate_home(prefect_url: str, kept: Path) -> Callable[[Path], None]:
    """Gives a new home a database in which nothing was done yet, which spares its own server 5 s of migrations.

    Not that of the session's server: what other tests have deployed there would run in the new home.
    """

    def migrate(home: Path) -> None:
        copy_database(_migrated(kept), home / "prefect" / "prefect.db")

    return migrate


@pytest.fixture(scope="session")
def mlflow_database(kept: Path) -> Path:
    """An empty MLflow database with all migrations, which cost 5 s: to be copied."""
    import mlflow

    path = kept / f"mlflow-{mlflow.__version__}.db"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made = path.with_suffix(".new")
            made.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
            made.replace(path)
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
def mlflow_template(postgres: services.Postgres) -> str:
    """A database with all of MLflow's migrations: to be copied."""
    import mlflow

    mlflow.MlflowClient(f"postgresql+pg8000://{postgres.database('mlflow')}").search_experiments()
    return "mlflow"


@pytest.fixture
def remote_workspace(
    tmp_path: Path, postgres: services.Postgres, s3_environment: services.S3, mlflow_template: str,
    make_workspace: Callable[..., Workspace],
) -> Workspace:  # fmt: skip
    """A workspace whose tables and artifacts are in a bucket, and whose registry is on PostgreSQL."""
    name = f"w-{uuid.uuid4().hex}"
    bucket = s3_environment.bucket(name)
    workspace = make_workspace(tmp_path)
    (workspace.home / "mlflow.db").unlink()
    remote = {
        "tables": f"{bucket}/tables", "artifacts": f"{bucket}/artifacts",
        "tracking_uri": f"postgresql://{postgres.database(name, mlflow_template)}",
    }  # fmt: skip
    return Workspace(workspace.settings.model_copy(update=remote))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> World:
    """A model whose first champion learned from ten days and scored three more; for tests that only look."""
    workspace, training = made_once(tmp_path_factory, "trained", make_workspace, _train)
    return World(workspace, workspace.definition("digits"), training)


def _train(workspace: Workspace) -> small_model.Trained:
    definition = small_model.define(workspace)
    day = small_model.day
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=day(10), history=True)
    training = small_model.retrain(workspace, definition, as_of=day(10), decision_id="first", pictures=True)
    small_model.add(workspace, definition, small_model.rows(10, 13).drop(columns="even"), as_of=day(13))
    pipeline = load_version(workspace.registry, training.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(13))
    return training
