"""What a Dask cluster does for a search: equal results, one sending of the data, workers and schedulers lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import backtest_world
import dask
import numpy as np
import pandas as pd
import psutil
import pytest
import small_model
from distributed import Client, LocalCluster
from processes import DASK_METHOD, forked_dask_workers
from small_model import World

from perennial.definition import ModelDefinition, Runner
from perennial.errors import DefinitionError, ServiceError
from perennial.state.store import Store
from perennial.workspace import Workspace
from tasks.backtest.run import backtest_model
from tasks.compute import cluster as cluster_module
from tasks.compute.cluster import Cluster, open_cluster, tuning_executor
from tasks.learning.fitting import fit
from tasks.learning.search import TuningResult, tune
from tasks.rows.split import Fold, time_ordered_folds
from tasks.steps import monitor as monitoring
from tasks.steps import score as scoring

# Dask closes its connections in its own time; what is left of them when an interpreter goes says nothing of ours.
pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOWHERE = "127.0.0.1:0"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    """A scheduler on loopback with two workers of one thread."""
    nowhere = {"dashboard_address": NOWHERE, "worker_dashboard_address": NOWHERE}
    with forked_dask_workers(), LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **nowhere) as made:
        yield made


@pytest.fixture
def address(local: LocalCluster) -> str:
    return str(local.scheduler_address)


def definition(address: str | None, timeout: str = "2m", **training: Any) -> ModelDefinition:
    tuning = {"trials": 6, "seconds": None, "folds": 2, "validation_share": 0.3, **training.pop("tuning", {})}
    raw: dict[str, Any] = {
        "name": "m",
        "task": "classification",
        "data": {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y"},
        "features": {"numeric": ["x", "z"], "categorical": ["c"]},
        "training": {"parameters": {"max_iter": 5}, **training, "tuning": tuning},
    }
    if address:
        raw["runner"] = {"dask": address, "timeout": timeout}
    return ModelDefinition.model_validate(raw)


def rows(count: int = 300) -> tuple[pd.DataFrame, tuple[Fold, ...]]:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=count), rng.choice(["k", "l"], size=count)
    times = pd.date_range("2024-01-01", periods=count, freq="h", unit="us")
    y = (x + (c == "k") + rng.normal(size=count) > 0.5).astype(float)
    frame = pd.DataFrame({"time": times.tz_localize("UTC"), "x": x, "z": rng.normal(size=count), "c": c, "y": y})
    return frame, time_ordered_folds(times.to_numpy(), 2, 0.3)


def search(model: ModelDefinition, journal: Path, count: int = 300, **arguments: Any) -> TuningResult:
    frame, folds = rows(count)
    with tuning_executor(model) as executor:
        return tune(model, frame, folds, storage=journal, study_name="s", seed=3, executor=executor, **arguments)


def points(result: TuningResult) -> list[tuple[int, dict[str, Any], float | None, str | None]]:
    return [(trial.number, trial.parameters, trial.value, trial.error) for trial in result.trials]


def test_the_same_trials_with_the_same_values(address: str, tmp_path: Path) -> None:
    here = search(definition(None), tmp_path / "here")
    there = search(definition(address), tmp_path / "there")
    assert points(there) == points(here)
    assert (there.parameters, there.value) == (here.parameters, here.value)
    # The journal of the one is that of the other: where it is computed is no part of a search's identity.
    assert search(definition(address), tmp_path / "here").resumed_trials == 6


def test_a_failing_trial_has_its_reason_there_too(address: str, tmp_path: Path) -> None:
    wrong = {"parameters": {"max_iter": 5, "max_bins": 1}}
    with pytest.raises(Exception, match=r"all 6 tuning trials of m failed, the first by .*max_bins") as here:
        search(definition(None, **wrong), tmp_path / "here")
    with pytest.raises(type(here.value)) as there:
        search(definition(address, **wrong), tmp_path / "there")
    assert str(there.value) == str(here.value)


class Heavy:
    """A value that tells how often it was pickled here and unpickled there."""

    pickled = 0

    def __init__(self, count: int) -> None:
        self.values = np.arange(count, dtype=np.float64)

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__


def _sum(heavy: Any, item: int) -> tuple[int, int]:
    return int(heavy.values.sum()) + item, os.getpid()


def test_what_calls_share_is_sent_once(address: str) -> None:
    Heavy.pickled = 0
    with open_cluster(definition(address)) as cluster:
        assert cluster is not None
        assert cluster.threads == 2
        with cluster.share(Heavy(1_000_000)) as shared:
            before = Heavy.pickled
            found = list(shared.map(_sum, range(40)))
    assert [value for value, _ in found] == [499_999_500_000 + item for item in range(40)], "in order"
    assert len({process for _, process in found}) == 2, "both workers were at it"
    assert Heavy.pickled == before == 1


def _slow(share: Any, item: int) -> int:
    time.sleep(0.15)
    return int(share + item)


def _kill_workers(local: LocalCluster, count: int) -> None:
    """By their process numbers, which the cluster's own nannies have: nobody is asked who may be busy."""
    for nanny in list(local.workers.values())[:count]:
        assert nanny.pid
        os.kill(nanny.pid, signal.SIGKILL)


def test_a_killed_worker_loses_nothing_of_a_search(local: LocalCluster, address: str, tmp_path: Path) -> None:
    model = definition(address, tuning={"trials": 8, "workers": 4})
    told: list[int] = []

    def progress(trial: Any, _: Any) -> None:
        told.append(trial.number)
        if trial.number == 3:
            _kill_workers(local, 1)

    there = search(model, tmp_path / "there", progress=progress)
    here = search(definition(None, tuning={"trials": 8, "workers": 4}), tmp_path / "here")
    assert told == list(range(8)), "each trial is told once"
    assert points(there) == points(here)
    again = search(model, tmp_path / "there")
    assert again.resumed_trials == 8, "the journal has them all"
    assert points(again) == points(here)


def test_calls_in_flight_are_made_again_and_data_sent_again_when_all_workers_die(
    local: LocalCluster, address: str
) -> None:
    with open_cluster(definition(address)) as cluster:
        assert cluster is not None
        with cluster.share(100) as shared:
            found = []
            for value in shared.map(_slow, range(12)):
                if value == 101:
                    _kill_workers(local, 2)
                found.append(value)
    assert found == list(range(100, 112))


def test_a_call_that_ends_its_workers_is_named(local: LocalCluster, address: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(local.scheduler, "allowed_failures", 0)  # three by default, and each takes its time
    with open_cluster(definition(address)) as cluster:
        assert cluster is not None
        with (
            cluster.share(1) as shared,
            pytest.raises(ServiceError, match=r"died again and again at the same call.*more memory"),
        ):
            shared.call(_die, 1)
        with cluster.share(100) as shared:
            assert shared.call(_slow, 1) == 101, "the cluster can be used again"


def _die(share: Any, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return int(share + item)


def test_an_address_that_answers_nothing(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(
            ServiceError, match=rf"no Dask scheduler answers at {address} within 2s. Start it \(`dask scheduler`"
        ):
            search(definition(address, timeout="2s"), tmp_path / "j")
    assert time.monotonic() - started < 10


def test_a_server_that_is_no_scheduler(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceError, match=r"no Dask scheduler answers"):
            search(definition(address, timeout="2s"), tmp_path / "j")


@pytest.fixture
def scheduler() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler of its own, without workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
               "--dashboard-address", NOWHERE]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"tcp://127.0.0.1:{port}"
    try:
        Client(address, timeout=20, set_as_default=False).close()
        yield address, process
    finally:
        process.kill()
        process.wait()


def test_a_scheduler_without_workers_then_without_itself(
    scheduler: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    address, process = scheduler
    with pytest.raises(ServiceError, match=rf"cluster at {address} has had no worker for 1 s. Start workers"):
        search(definition(address, timeout="1s"), tmp_path / "j")
    client = Client(address, set_as_default=False)
    try:
        process.kill()
        process.wait()
        with pytest.raises(ServiceError, match=r"scheduler at .* went away. Start it and run the same again"):
            Cluster(client, address, 30)
    finally:
        client.close(timeout=1)


def _claim_version(version: str) -> None:
    import sklearn

    sklearn.__version__ = version
    cluster_module._fingerprint.cache_clear()


def test_workers_of_another_version_are_refused(address: str, tmp_path: Path) -> None:
    import sklearn

    with Client(address, set_as_default=False) as client:
        worker = next(iter(client.nthreads()))
        client.submit(_claim_version, "1.8.0", workers=[worker], pure=False).result()
        try:
            with pytest.raises(
                ServiceError, match=rf"worker {worker} has scikit-learn 1.8.0 instead of 1.9.*the image"
            ):
                search(definition(address, tuning={"trials": 12}), tmp_path / "j")
        finally:
            client.submit(_claim_version, sklearn.__version__, workers=[worker], pure=False).result()


def test_an_address_from_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER", address)
    with open_cluster(definition("$SCHEDULER")) as cluster:
        assert cluster is not None
        assert cluster.address == address
    monkeypatch.delenv("SCHEDULER")
    with (
        pytest.raises(DefinitionError, match=r"the environment variable SCHEDULER is not set. Put the address there"),
        open_cluster(definition("$SCHEDULER")),
    ):
        pass


def test_without_dask_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(DefinitionError, match=r"runner.dask of m needs Dask.*pip install 'perennial\[dask\]'"),
        open_cluster(definition("local")),
    ):
        pass
    with open_cluster(definition(None)) as cluster:
        assert cluster is None, "without a runner Dask is not looked for"


@pytest.mark.slow
def test_a_local_cluster_listens_on_loopback_only_and_leaves_nothing(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    model = definition("local", tuning={"trials": 2})
    with dask.config.set({DASK_METHOD: "spawn"}), open_cluster(model) as cluster:
        assert cluster is not None
        ours = [psutil.Process()]
        ours += [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        heard = {
            connection.laddr.ip
            for process in ours
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert heard == {"127.0.0.1"}
        frame, folds = rows()
        with cluster.trials(2) as executor:
            there = tune(model, frame, folds, storage=tmp_path / "a", study_name="s", seed=3, executor=executor)
    left = [process for process in ours[1:] if process.is_running() and "spawn_main" in " ".join(process.cmdline())]
    assert left == []
    assert points(there) == points(search(definition(None, tuning={"trials": 2}), tmp_path / "b"))


def _on(definition: ModelDefinition, address: str) -> ModelDefinition:
    return definition.model_copy(update={"runner": Runner(dask=address, timeout=timedelta(minutes=2))})


def test_a_file_is_scored_there_as_here(
    trained: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 100)
    pipeline = scoring.load_version(trained.workspace.registry, trained.training.version, trained.definition)
    small_model.rows(0, 13).to_parquet(tmp_path / "rows.parquet")
    found = {}
    for name, model in (("here", trained.definition), ("there", _on(trained.definition, address))):
        parts = list(
            scoring.score_file(pipeline, model, tmp_path / "rows.parquet", tmp_path / f"{name}.csv", version=1)
        )
        assert len(parts) == 10
        found[name] = pd.read_csv(tmp_path / f"{name}.csv")
    pd.testing.assert_frame_equal(found["there"], found["here"], check_exact=True)
    assert len(found["there"]) == len(small_model.rows(0, 13))


def test_ingested_rows_are_scored_there_as_here(
    trained: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 100)
    pipeline = scoring.load_version(trained.workspace.registry, trained.training.version, trained.definition)
    logged = []
    for name, model in (("here", trained.definition), ("there", _on(trained.definition, address))):
        workspace = Workspace(trained.workspace.settings.model_copy(update={"tables": str(tmp_path / name)}))
        small_model.add(workspace, trained.definition, small_model.rows(0, 4), as_of=small_model.day(4))
        count = scoring.score_unscored(workspace.store, model, pipeline, version=1, as_of=small_model.day(4))
        assert count > 200
        logged.append(workspace.store.frame("digits", "predictions").sort_values("id", ignore_index=True))
    pd.testing.assert_frame_equal(logged[0], logged[1], check_exact=True)


def test_a_large_window_is_checked_in_parts_there_as_whole_here(
    trained: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, as_of = trained.workspace, small_model.day(13)
    whole = monitoring.run_check(workspace, trained.definition, as_of=as_of)
    monkeypatch.setattr(monitoring, "PART_ROWS", 50)
    here = monitoring.run_check(workspace, trained.definition, as_of=as_of)
    there = monitoring.run_check(workspace, _on(trained.definition, address), as_of=as_of)
    assert here.evidence["rows"] == len(small_model.rows(10, 13)) > 4 * 50
    assert whole.to_dict() == here.to_dict() == there.to_dict()


def test_tables_that_the_workers_do_not_see(
    trained: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "PART_ROWS", 50)
    tables = tmp_path / "tables"
    shutil.copytree(trained.workspace.settings.tables_root, tables)
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(trained.workspace.settings.model_copy(update={"tables": "tables"}))
    workspace.__dict__["store"] = Store("tables")  # of a relative path, which the workers' own folders don't have
    with pytest.raises(
        ServiceError, match=r"workers see 0 of 216 rows of tables/digits/batches. Keep the tables where"
    ):
        monitoring.run_check(workspace, _on(trained.definition, address), as_of=small_model.day(13))


def test_a_backtest_there_is_the_backtest_here(
    workspace: Workspace, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backtest_world.define(workspace, training={"tuning": {"trials": 2, "workers": 2, "metric": "rmse"}})
    backtest_world.ingest_past(workspace, model, backtest_world.rows(63, shift=38), as_of=backtest_world.day(63))
    found = {}
    for name, definition in (("here", model), ("there", _on(model, address))):
        own = Workspace(workspace.settings.model_copy(update={"home": tmp_path / name, "tables": workspace.store.root}))
        found[name] = backtest_model(own, definition, start=backtest_world.day(35), tune=True)
    here, there = found["here"], found["there"]
    compared = ("name", "loss", "kept", "retrains", "promoted", "recalibrations", "actions", "checks", "window_losses")
    for ours, theirs in zip(here.results, there.results, strict=True):
        assert [str(getattr(ours, key)) for key in compared] == [str(getattr(theirs, key)) for key in compared]
        assert (theirs.cpu_seconds > 0) == (ours.cpu_seconds > 0)
    assert there.fits > 0


OWN = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

class Own(LogisticRegression):
    pass

def build(definition, parameters, seed):
    from sklearn.compose import ColumnTransformer
    return Pipeline([("pick", ColumnTransformer([("all", "passthrough", ["x", "z"])])), ("estimator", Own(C=0.1))])
"""


def _predict(shared: Any, item: pd.DataFrame) -> list[float]:
    return [float(value) for value in shared.predict_proba(item)[:, 1]]


def test_a_teams_own_estimator_is_known_there(address: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    model = definition(address, estimator="own.py:build", parameters={}, tuning={"trials": 0})
    model = model.model_copy(update={"path": tmp_path / "m.yaml"})
    here = model.model_copy(update={"runner": None})
    frame, _ = rows()
    assert points(search(model, tmp_path / "there")) == points(search(here, tmp_path / "here"))
    fitted = fit(here, frame, {}, 0).pipeline
    with open_cluster(model) as cluster:
        assert cluster is not None
        with cluster.share(fitted) as shared:
            assert shared.call(_predict, frame) == _predict(fitted, frame)
