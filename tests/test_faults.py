"""Storage, databases, disk and servers break for a while. After each: one state, one champion, nothing lost.

Each test says what happened meanwhile and that nobody had to mend anything, or that the message says what to do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import services
from small_model import add, day, define, retrain, rows

from perennial.errors import RegistryError, StorageError
from perennial.settings import PROJECT_ROOT
from perennial.state.leases import hold
from perennial.state.ledger import Ledger
from perennial.state.patience import patiently
from perennial.state.storage import Objects, storage_options
from perennial.state.store import Store
from perennial.workspace import Workspace

pytestmark = pytest.mark.waits
BY = pd.Timestamp("2024-01-01", tz="UTC")


def labels(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids), "truth": 1.0, "labelled_at": BY, "author": "test"})


@pytest.fixture
def proxy(s3: services.S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[services.FaultProxy]:
    """The S3 server behind something that breaks on demand, as this process's storage."""
    made = services.FaultProxy(s3.address)
    for name, value in {**services.KEYS, "AWS_ENDPOINT_URL": made.address}.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def root(proxy: services.FaultProxy, s3: services.S3) -> str:
    return f"{s3.bucket(f'f-{uuid.uuid4().hex}')}/tables"


def impatient(root: str, seconds: float = 1.0) -> Store:
    return Store(root, storage_options(root, patience_seconds=seconds))


def heal(proxy: services.FaultProxy, seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, lambda: setattr(proxy, "fault", ""))
    timer.start()
    return timer


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["refuse", "half", "down"])
def test_a_storage_that_fails_for_a_while_is_waited_for(proxy: services.FaultProxy, root: str, fault: str) -> None:
    store = impatient(root, 20)
    store.append("m", "labels", labels("a"), key="a")
    proxy.fault = fault
    timer = heal(proxy, 0.8)
    assert store.append("m", "labels", labels("b"), key="b").written
    timer.join()
    assert proxy.broken, "nothing was broken: the test shows nothing"
    assert sorted(store.frame("m", "labels")["id"]) == ["a", "b"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", r"did not append to m/labels: .*See that it is up \(`perennial doctor`\), then run it again"),
        ("half", r"did not append to m/labels: .*See that it is up"),
        ("deny", r"refuses to append to m/labels: .*Give this user or key the right to read, write and list"),
    ],
)
def test_a_storage_that_goes_on_failing_is_told_and_nothing_is_half_there(
    proxy: services.FaultProxy, root: str, fault: str, told: str
) -> None:
    store = impatient(root)
    store.append("m", "labels", labels("a"), key="a")
    proxy.fault = fault
    with pytest.raises(StorageError, match=told) as caught:
        store.append("m", "labels", labels("b"), key="b")
    assert len(str(caught.value)) < 600
    assert "\x1b" not in str(caught.value)
    assert store.frame("m", "labels")["id"].tolist() == ["a"], "readers go on"
    proxy.fault = ""
    assert store.append("m", "labels", labels("b"), key="b").written, "the same again does what was left undone"
    assert sorted(store.frame("m", "labels")["id"]) == ["a", "b"]


@pytest.mark.s3
def test_an_answer_that_is_lost_makes_nothing_twice(proxy: services.FaultProxy, root: str) -> None:
    """The write was carried out, its answer never came: the client must find its own work, not another's."""
    store = impatient(root, 20)
    ledger = Ledger(store, "m")
    for name in ("d1", "d2"):
        ledger.record({"decision_id": name, "as_of": BY.isoformat(), "verdict": "retrain"}, recorded_at=BY)
    proxy.fault, proxy.only, proxy.budget = "mute", "_delta_log", 1
    claim = ledger.claim("d1", "run", as_of=BY, recorded_at=BY, is_alive=lambda _run: True)
    assert proxy.broken == 1
    assert claim.attempt == 1
    assert {entry["decision_id"]: entry["claims"] for entry in ledger.entries()} == {"d1": ["run"], "d2": []}
    proxy.broken = 0
    assert store.append("m", "labels", labels("a"), key="a").written
    assert proxy.broken == 1
    assert store.frame("m", "labels")["id"].tolist() == ["a"]


@pytest.mark.s3
def test_a_slow_storage_is_only_slow(proxy: services.FaultProxy, root: str) -> None:
    store = impatient(root)
    store.append("m", "labels", labels("a"), key="a")
    proxy.fault, proxy.delay_seconds = "slow", 0.04
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(lambda number: store.append("m", "labels", labels(f"s{number}"), key=f"{number}"), range(3))
        )
    assert all(each.written for each in done)
    with hold(Objects(root), "m", wait_seconds=0, busy="busy", lease_seconds=3) as lease:
        time.sleep(1.5)
        lease.require()
    assert len(store.read("m", "labels")) == 4


@pytest.mark.s3
def test_the_predictions_of_an_outage_wait_in_the_spool(proxy: services.FaultProxy, root: str, tmp_path: Path) -> None:
    from perennial.serving.log.entries import Entry
    from perennial.serving.log.shipper import Shipper
    from perennial.serving.log.spool import Spool

    spool = Spool(tmp_path / "spool", 10**6)
    store = impatient(root, 0.3)
    shipper = Shipper(spool, store, tmp_path / "locks", ship_seconds=60, ship_rows=1, compact_commits=100)

    def answer(name: str) -> None:
        entry = Entry("champion", 1, time.time_ns() // 1000, 1, True, [name], [0.5], None, None, 0.0, ["x"], [[1.0]])
        assert spool.append("m", entry, 1), "requests are answered and remembered all the while"
        spool.seal()

    answer("before")
    assert shipper.ship() == 1
    for number, fault in enumerate(("refuse", "down")):
        proxy.fault = fault
        answer(f"during {number}")
        assert shipper.ship() == 0
        assert re.search(r"did not (append|read)", shipper.failing)
    proxy.fault = ""
    assert shipper.ship() == 2
    assert shipper.failing == ""
    assert shipper.ship() == 0
    assert sorted(store.frame("m", "predictions")["id"]) == ["before", "during 0", "during 1"]
    spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take what is left of a disk."""
    path = place / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


@pytest.mark.process
def test_a_full_disk_is_told_and_what_was_there_stays(small_disk: Path) -> None:
    from perennial.serving.log.spool import Spool

    store = Store(str(small_disk / "tables"))
    store.append("m", "labels", labels("a"), key="a")
    spool = Spool(small_disk / "spool", 10**9)
    assert spool.append("m", ["first"], 1)
    filler = fill(small_disk)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"tables is full \(could not append to m/labels\)\. Free"):
            store.append("m", "labels", labels("b"), key="b")
    with (
        pytest.raises(StorageError, match="is full"),
        hold(Objects(store.root), "m", wait_seconds=0, busy="busy"),
    ):
        pass
    assert not spool.append("m", ["x" * 8192], 1), "the request is told, and the spool stays whole"
    assert "can't be written" in spool.failing
    assert store.frame("m", "labels")["id"].tolist() == ["a"]
    filler.unlink()
    assert store.append("m", "labels", labels("b"), key="b").written
    with hold(Objects(store.root), "m", wait_seconds=0, busy="busy"):
        pass
    assert spool.append("m", ["second"], 1)
    from perennial.serving.log.spool import read_segment

    (segment,) = spool.folder.glob("m/*.jsonl")
    assert read_segment(segment) == ([["first"], ["second"]], 0)
    spool.close()
    assert sorted(store.frame("m", "labels")["id"]) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.s3
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_database_that_goes_away_in_the_middle_of_a_retraining(
    remote_workspace: Workspace, postgres: services.Postgres, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """PostgreSQL is killed as the run is being logged, and comes back after a while: the training goes on by itself."""
    from tasks.steps import register as registration

    workspace = Workspace(remote_workspace.settings, patient=True)
    definition = define(workspace)
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    log_model: Callable[..., str] = registration.log_model
    calls = 0

    def stop_it(*arguments: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            postgres.stop()
            threading.Timer(seconds, postgres.start).start()
        return log_model(*arguments)

    monkeypatch.setattr(registration, "log_model", stop_it)
    training = retrain(workspace, definition, as_of=day(10))
    assert calls == 2, "nothing was broken: the test shows nothing"
    registry = workspace.registry
    assert [version.number for version in registry.versions("digits")] == [1]
    assert training.version.number == 1
    assert [line.version for line in registry.history("digits")] == [1]
    assert len(registry.client.search_runs([registry.experiment_id("digits")])) == 1
    assert {name: int(number) for name, number in registry.client.get_registered_model("digits").aliases.items()} == {
        "champion": 1
    }

    # And one that stays away is told, with what to do; the same training goes on afterwards and makes nothing twice.
    postgres.stop()
    impatient_workspace = Workspace(workspace.settings.model_copy(update={"patience_seconds": 1.0}), patient=True)
    try:
        with pytest.raises(RegistryError, match=r"the registry or its storage did not answer within 1 s .* doctor"):
            retrain(impatient_workspace, definition, as_of=day(10))
    finally:
        postgres.start()
    again = retrain(impatient_workspace, definition, as_of=day(10))
    assert again.version.number == 1
    assert [line.version for line in registry.history("digits")] == [1]


def test_what_is_wrong_is_not_waited_for() -> None:
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, 60)
    assert time.monotonic() - started < 10


# Two processes, forked from one that has imported all: that costs as much as the training.
RETRAIN = """
import os, sys
import mlflow.sklearn
from datetime import datetime
sys.path[:0] = [sys.argv[1]]
import small_model
from perennial.errors import ConflictError
from perennial.workspace import open_workspace
children = []
for number in range(2):
    child = os.fork()
    if child:
        children.append(child)
        continue
    workspace = open_workspace()
    definition = workspace.definition("digits")
    try:
        with workspace.retraining("digits", wait_seconds=0) as lease:
            made = small_model.retrain(workspace, definition, as_of=datetime.fromisoformat(sys.argv[2]))
            lease.require()
        told = f"version {made.version.number}"
    except ConflictError as error:
        told = str(error)
    os.write(1, f"{told}\\n".encode())
    os._exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.slow
def test_two_workers_that_start_the_same_retraining(workspace: Workspace) -> None:
    definition = define(workspace)
    add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    environment = {
        **os.environ, "PERENNIAL_HOME": str(workspace.home), "PERENNIAL_MODELS": workspace.settings.models,
        "PERENNIAL_EXPECTATIONS": workspace.settings.expectations,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RETRAIN, str(Path(__file__).parent / "worlds"), day(10).isoformat()], cwd=PROJECT_ROOT,
        env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert sorted(text.split()[0] for text in told) == ["digits", "version"], told
    assert any(re.match(r"digits is being retrained by process \d+ on ", text) for text in told)
    assert [version.number for version in workspace.registry.versions("digits")] == [1]
    assert [line.version for line in workspace.registry.history("digits")] == [1]
