"""The registry: one version a training, one champion at a time, and aliases and manifest that follow the history."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from processes import FORKS
from small_model import World

from perennial.errors import ConflictError, NotFoundError, RegistryError
from perennial.model.artifacts import folder_digest
from perennial.state.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, Reign, Version
from perennial.state.store import Store
from perennial.workspace import Workspace

T = datetime(2024, 3, 1, tzinfo=UTC)


# On PostgreSQL and S3 as well, where it matters that what is written there is the same.
ANYWHERE = pytest.mark.parametrize(
    "workspace",
    ["embedded", pytest.param("remote", marks=[pytest.mark.postgres, pytest.mark.s3])],
    indirect=True,
)


@pytest.fixture
def workspace(request: pytest.FixtureRequest, tmp_path: Path, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    if getattr(request, "param", "embedded") == "embedded":
        return make_workspace(tmp_path)
    found: Workspace = request.getfixturevalue("remote_workspace")
    return found


@pytest.fixture
def registry(workspace: Workspace) -> Registry:
    return workspace.registry


def make(registry: Registry, key: str, **tags: str) -> Version:
    run = registry.run_for("m", key, name=key, tags={})
    source = registry_folder(registry, run)
    return registry.register("m", training_key=key, run_id=run, source=source, tags=tags)


def registry_folder(registry: Registry, run: str) -> str:
    """Files of a run that stand for its model."""
    registry.client.log_text(run, "weights", "model/weights.txt")
    return f"runs:/{run}/model"


def crown(registry: Registry, version: Version, at: datetime = T, **facts: Any) -> Reign:
    return registry.promote(
        version, action="promote", at=at, recorded_at=at, by="test", reason=f"version {version.number}", **facts
    )


def aliases(registry: Registry) -> dict[str, int]:
    found = registry.client.get_registered_model("m").aliases
    return {name: int(number) for name, number in found.items()}


def manifest(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.home / "live" / "m.json").read_text(encoding="utf-8"))
    return found


def race(barrier: Any, number: int, uri: str, artifacts: str, tables: str, live: str, results: Any) -> None:
    registry = Registry(uri, artifacts, Store(tables), Path(live))
    version = registry.version("m", number)
    barrier.wait(60)
    try:
        crown(registry, version)
        results.put((number, "promoted"))
    except ConflictError as error:
        results.put((number, str(error)))


# --- registering ---


@ANYWHERE
def test_registration_is_idempotent_by_key(registry: Registry) -> None:
    first = make(registry, "k", data_version="batches@1")
    again = registry.register("m", training_key="k", run_id=first.run_id, source=first.source, tags={})
    assert again == first
    assert (first.number, first.tag("data_version"), first.tag("unknown", "none")) == (1, "batches@1", "none")
    assert first.digest == folder_digest(registry.artifacts(first))
    assert [version.number for version in registry.versions("m")] == [1]
    assert make(registry, "other").number == 2
    assert aliases(registry) == {CHALLENGER: 2}
    assert registry.find("m", "nothing") is None
    assert registry.find("unknown", "k") is None


@ANYWHERE
def test_reading_a_run_s_files_leaves_nothing_behind(
    registry: Registry, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check left copies of its champion's reference in the temporary folder, for good."""
    version = make(registry, "k")
    registry.client.log_text(version.run_id, "seen", "gate.json")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    found = registry.run_artifact(version, "gate.json")
    assert found.read_text() == "seen"
    assert (registry.artifacts(version) / "weights.txt").read_text() == "weights"
    # What was downloaded is together, and goes with the process.
    assert [item for item in temporary.iterdir() if not item.name.startswith("perennial-")] == []
    if not registry.tracking_uri.startswith("postgresql"):
        assert found.is_relative_to(workspace.home)
    with pytest.raises(RegistryError, match=r"absent.json can't be read"):
        registry.run_artifact(version, "absent.json")


@pytest.mark.parametrize("place", ["gs://bucket/1/gate.json", "s3://bucket/1/gate.json", "runs:/1/gate.json"])
def test_what_is_elsewhere_is_downloaded_to_where_it_goes_with_the_process(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A registry on this machine may name artifacts that are not: MLflow would leave a folder for each."""
    targets: list[str | None] = []
    monkeypatch.setattr(
        "mlflow.artifacts.download_artifacts", lambda *_, dst_path, **__: targets.append(dst_path) or "somewhere"
    )
    registry.fetch(place)
    (target,) = targets
    assert target
    assert Path(target).parent.name.startswith("perennial-")


def test_a_training_has_one_run(registry: Registry) -> None:
    run = registry.run_for("m", "k", name="once", tags={"a": "b"})
    assert registry.client.get_run(run).data.tags["a"] == "b"
    assert registry.run_for("m", "other", name="other", tags={}) != run
    assert registry.experiment_id("m") == registry.experiment_id("m")


@ANYWHERE
def test_a_half_made_run_is_replaced(registry: Registry) -> None:
    """What it logged may differ from what the restarted training logs, which MLflow would refuse."""
    run = registry.run_for("m", "k", name="once", tags={})
    registry.client.log_param(run, "depth", 3)
    again = registry.run_for("m", "k", name="again", tags={})
    registry.client.log_param(again, "depth", 4)
    found = registry.client.search_runs([registry.experiment_id("m")])
    assert [item.info.run_id for item in found] == [again]


def test_tags_are_written_under_our_name(registry: Registry) -> None:
    version = make(registry, "k")
    registry.set_tags(version, {"approval": "pending"})
    assert registry.version("m", 1).tag("approval") == "pending"
    assert registry.version("m", 1).tags["perennial.approval"] == "pending"


@ANYWHERE
def test_what_does_not_exist(registry: Registry) -> None:
    assert registry.champion("m") is None
    assert registry.versions("m") == []
    assert registry.history("m") == []
    registry.settle("m")
    version = make(registry, "k")
    with pytest.raises(NotFoundError, match=r"m has no version 7. See `perennial status m`"):
        registry.version("m", 7)
    with pytest.raises(RegistryError, match=r"the artifact .*none\.json can't be read"):
        registry.run_artifact(version, "none.json")
    assert registry.run_artifact(version, "model/weights.txt").read_text() == "weights"


# --- promoting ---


@ANYWHERE
def test_the_first_champion_and_the_next(registry: Registry, workspace: Workspace) -> None:
    one, two = make(registry, "one"), make(registry, "two", definition_hash="abc")
    assert crown(registry, one).previous is None
    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: 2}
    reign = crown(registry, two, T + timedelta(days=1), decision_id="d")
    assert (reign.sequence, reign.version, reign.previous, reign.decision_id) == (2, 2, 1, "d")
    assert aliases(registry) == {CHAMPION: 2, PREVIOUS: 1}
    expected = {
        "model": "m", "version": 2, "digest": two.digest, "source": two.source, "run_id": two.run_id, "sequence": 2,
        "at": "2024-03-02T00:00:00+00:00", "reason": "version 2", "definition_hash": "abc",
    }  # fmt: skip
    assert manifest(workspace) | expected == manifest(workspace)
    assert [line.sequence for line in registry.history("m")] == [1, 2]
    assert registry.history("m")[1] == reign


def test_promoting_the_champion_changes_nothing(registry: Registry, workspace: Workspace) -> None:
    one = make(registry, "one")
    first = crown(registry, one)
    before = (workspace.home / "live" / "m.json").stat().st_mtime_ns
    assert crown(registry, one, T + timedelta(days=1)) == first
    assert len(registry.history("m")) == 1
    assert (workspace.home / "live" / "m.json").stat().st_mtime_ns == before


@ANYWHERE
def test_who_was_champion_when(registry: Registry) -> None:
    one, two = make(registry, "one"), make(registry, "two")
    crown(registry, one)
    crown(registry, two, T + timedelta(days=2))
    expected = {-1: None, 0: 1, 1: 1, 2: 2, 3: 2}
    found = {days: registry.champion("m", as_of=T + timedelta(days=days)) for days in expected}
    assert {days: version and version.number for days, version in found.items()} == expected


@pytest.mark.process
def test_of_two_promotions_at_once_one_wins_each_line(registry: Registry, workspace: Workspace) -> None:
    for key in ("one", "two"):
        make(registry, key)
    results, barrier, settings = FORKS.Queue(), FORKS.Barrier(2), workspace.settings
    places = (settings.mlflow_uri, settings.artifacts_root, settings.tables_root, str(workspace.home / "live"))
    processes = [FORKS.Process(target=race, args=(barrier, number, *places, results)) for number in (1, 2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=90) for _ in processes)
    for process in processes:
        process.join(60)
    history = registry.history("m")
    assert [line.sequence for line in history] == list(range(1, len(history) + 1))
    assert {line.version for line in history} == {number for number, said in found.items() if said == "promoted"}
    for said in found.values():
        assert said == "promoted" or said.startswith("another promotion of m was quicker. See")
    assert aliases(registry)[CHAMPION] == manifest(workspace)["version"] == history[-1].version


def test_a_promoter_that_was_overtaken_leaves_the_newest(registry: Registry, workspace: Workspace) -> None:
    """One promoter writes the alias of line 1 only after another has written line 2 and its alias."""
    one, two = make(registry, "one"), make(registry, "two")
    write, overtaken = registry._write_manifest, threading.Event()

    def slow(version: Version, reign: Reign) -> None:
        if not overtaken.is_set():
            overtaken.set()
            crown(registry, two, T + timedelta(days=1))
        write(version, reign)

    registry._write_manifest = slow  # type: ignore[method-assign]
    crown(registry, one)
    assert overtaken.is_set()
    assert aliases(registry)[CHAMPION] == manifest(workspace)["version"] == 2


@ANYWHERE
def test_a_crash_after_the_history_is_mended(registry: Registry, workspace: Workspace) -> None:
    one, two = make(registry, "one"), make(registry, "two")
    crown(registry, one)
    settle = registry.settle

    def die(model: str) -> None:
        raise KeyboardInterrupt

    registry.settle = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        crown(registry, two, T + timedelta(days=1))
    registry.settle = settle  # type: ignore[method-assign]
    assert aliases(registry)[CHAMPION] == manifest(workspace)["version"] == 1
    champion = registry.champion("m")
    assert champion
    assert champion.number == 2
    crown(registry, two, T + timedelta(days=2))
    assert aliases(registry) == {CHAMPION: 2, PREVIOUS: 1}
    assert manifest(workspace)["version"] == 2
    assert len(registry.history("m")) == 2


def test_the_manifest_is_never_half(registry: Registry, workspace: Workspace) -> None:
    """A reader in another thread finds a whole one whenever it looks."""
    one, two = make(registry, "one"), make(registry, "two")
    crown(registry, one)
    path, stop, seen = workspace.home / "live" / "m.json", threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(json.loads(path.read_text(encoding="utf-8"))["version"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(4):
        crown(registry, (two, one)[number % 2], T + timedelta(days=number + 1))
    stop.set()
    reader.join()
    assert seen <= {1, 2}
    assert seen
    assert [item.name for item in path.parent.iterdir()] == ["m.json"]


# --- going back ---


@pytest.fixture
def three(registry: Registry) -> Registry:
    """Versions 1, 2 and 3 were champions in turn; 4 never was."""
    versions = [make(registry, key) for key in ("one", "two", "three", "four")]
    for number, version in enumerate(versions[:3]):
        crown(registry, version, T + timedelta(days=number))
    return registry


def back(registry: Registry, to: int | None = None) -> Reign:
    return registry.rollback("m", to=to, at=T + timedelta(days=9), recorded_at=T, by="ada", reason="worse")


@ANYWHERE
def test_rollback_goes_to_the_one_before_and_further(three: Registry, workspace: Workspace) -> None:
    reign = back(three)
    assert (reign.version, reign.previous, reign.action, reign.by) == (2, 3, "rollback", "ada")
    assert aliases(three) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: 4}
    assert manifest(workspace)["version"] == 2
    assert back(three).version == 1
    with pytest.raises(NotFoundError, match=r"m had no champion before version 1. Name one with --to VERSION"):
        back(three)
    assert aliases(three)[CHAMPION] == 1


def test_rollback_to_a_named_one_and_forward_again(three: Registry) -> None:
    assert back(three, 1).version == 1
    assert back(three, 3).version == 3
    assert [line.version for line in three.history("m")] == [1, 2, 3, 1, 3]


def test_rollback_refuses(three: Registry) -> None:
    with pytest.raises(ConflictError, match=r"version 3 of m is the champion already. Name another"):
        back(three, 3)
    with pytest.raises(NotFoundError, match=r"version 4 of m was never champion. Champions were 1, 2, 3"):
        back(three, 4)
    with pytest.raises(NotFoundError, match=r"version 9 of m was never champion"):
        back(three, 9)
    with pytest.raises(NotFoundError, match=r"other never had a champion. Train one: `perennial retrain other`"):
        three.rollback("other", to=None, at=T, recorded_at=T, by="ada", reason="x")
    assert len(three.history("m")) == 3


@pytest.mark.parametrize(
    ("thing", "of", "values"),
    [("model_version_tag", ("digits", "1"), "abcdef"), ("registered_model_alias", ("digits",), "111111")],
)
def test_many_write_one_new_thing_at_once(trained: World, thing: str, of: tuple[str, ...], values: str) -> None:
    """MLflow looks, then inserts: the second of two fails where it would have to change what the first wrote."""
    client, rounds = trained.workspace.registry.client, [f"new-{number}" for number in range(10)]
    together = threading.Barrier(len(values))

    def write(name: str, value: str) -> None:
        together.wait()
        getattr(client, f"set_{thing}")(*of, name, value)

    try:
        with ThreadPoolExecutor(len(values)) as pool:
            for name in rounds:
                list(pool.map(write, [name] * len(values), values))
        version = client.get_model_version("digits", "1")
        assert set(rounds) <= {*version.tags, *version.aliases}
    finally:  # others look at this version, too
        for name in rounds:
            getattr(client, f"delete_{thing}")(*of, name)


def test_another_mistake_of_a_write_is_told_at_once(trained: World) -> None:
    with pytest.raises(MlflowException, match=r"(?i)not found"):
        trained.workspace.registry.client.set_model_version_tag("nobody", "1", "x", "y")
