"""An API that shares the tables with a promoter, but no folder: it follows the champion through them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_world import LocalClient, promote_version, wait_for

from perennial.errors import ConflictError
from perennial.serving.processes import server
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.versions.host import Host
from perennial.serving.web.app import Api
from perennial.settings import Settings
from perennial.workspace import Workspace


def shared(workspace: Workspace, home: Path) -> Workspace:
    """The workspace of a machine with a home of its own, and the tables and registry of `workspace`."""
    old = workspace.settings
    return Workspace(
        Settings(home=home, models=old.models, tables=old.tables_root, tracking_uri=old.mlflow_uri)
    )  # fmt: skip


@pytest.fixture
def host(workspace: Workspace, tmp_path: Path) -> Iterator[Host]:
    host = Host(shared(workspace, tmp_path / "elsewhere"), 0.02, follow_seconds=0.02)
    yield host
    host.stop()


def version(host: Host) -> int | None:
    served = host.served.get("colours")
    return served.champion.version if served else None


def test_a_promotion_elsewhere_is_followed(workspace: Workspace, host: Host, tmp_path: Path) -> None:
    promoter = shared(workspace, tmp_path / "promoter")
    promote_version(promoter, "colours", 2)
    host.start()
    assert version(host) == 2
    assert host.problems() == []
    promote_version(promoter, "colours", 3)
    wait_for(lambda: version(host) == 3)
    assert (tmp_path / "elsewhere" / "live" / "colours.json").is_file()


def test_without_the_tables_the_champion_goes_on_and_it_is_said(
    workspace: Workspace, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_version(shared(workspace, tmp_path / "promoter"), "colours", 2)
    host.start()

    def broken(_model: str) -> bool:
        raise OSError("no route to the storage")

    monkeypatch.setattr(host._follower, "follow", broken)
    wait_for(host.problems)
    assert host.problems() == ["the shared tables don't tell of new champions: no route to the storage"]
    assert version(host) == 2
    monkeypatch.undo()
    wait_for(lambda: not host.problems())


def test_storage_that_hangs_keeps_no_api_from_starting(
    workspace: Workspace, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.serving.versions.host._FIRST_FOLLOW_SECONDS", 0.2)
    monkeypatch.setattr(host._follower, "follow", lambda _model: time.sleep(3))
    started = time.monotonic()
    host.start()
    assert time.monotonic() - started < 2.5
    assert version(host) is None


@pytest.fixture
def silent_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Tables in a storage that takes connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        yield Settings(home=tmp_path / "elsewhere", tables="s3://bucket/tables")


def test_silent_tables_keep_no_server_from_starting_but_another_layout_does(
    silent_tables: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_LAYOUT_SECONDS", 0.3)
    server._require_layout(silent_tables)
    assert "the tables do not answer" in caplog.text
    (silent_tables.home_path / "live").mkdir(parents=True)
    with pytest.raises(ConflictError, match="run: perennial migrate"):
        server._require_layout(silent_tables)


def test_with_silent_tables_labels_are_kept_and_the_live_version_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.serving.service._TABLES_SECONDS", 0.2)
    monkeypatch.setattr("perennial.serving.service._TABLES_REST_SECONDS", 0.5)
    over = threading.Event()
    api = Api(Service(workspace, ServingSettings(ship_seconds=300)), Tokens(""))
    with LocalClient(api) as client:
        monkeypatch.setattr(workspace.store, "read", lambda *_, **__: over.wait(20))
        for number in range(12):
            time.sleep(0.5 if number == 6 else 0.0)
            answer = client.post("/models/colours/labels", json={"id": f"x{number}", "truth": 1})
            assert (answer.status_code, answer.json()["unknown"]) == (200, [f"x{number}"])
            assert "the tables do not answer" in answer.json()["note"]
        told = client.get("/models/colours").json()
        assert (told["version"], told["labels"], told["tables"]) == (1, None, "no answer within 0.2 s")
        assert client.get("/metrics").status_code == 200
        over.set()
        monkeypatch.undo()
        client.service._tables_rest_until = 0.0
        later = client.post("/models/colours/labels", json={"id": "y", "truth": 1}).json()
        assert (later["unknown"], "tables" in later["note"]) == (["y"], False)
    labels = workspace.home / "serving" / "labels" / ".waiting" / "colours"
    assert sum(len(json.loads(path.read_bytes())) for path in labels.glob("*.jsonl")) == 13


def test_a_candidate_of_other_classes_gets_no_canary(workspace: Workspace) -> None:
    """Its scores would be of another shape, or of another order."""
    path = Path(workspace.settings.models) / "colours.yaml"
    path.write_text(path.read_text() + "serving: {shadow: 100%, candidate: previous}\n")
    promote_version(workspace, "colours", 2)
    host, live = Host(workspace), workspace.home / "live" / "colours.json"
    host.look()
    candidate = host.served["colours"].candidate
    assert candidate is not None
    assert (candidate.version, host.notes()) == (1, [])
    manifest = json.loads(live.read_text())
    manifest["previous"]["classes"] = json.dumps(["red", "green", "blue"])
    live.write_text(json.dumps(manifest))
    host.look()
    assert host.served["colours"].candidate is None
    (note,) = host.notes()
    assert "version 1 answers other classes than the champion" in note


def test_the_registry_is_asked_as_often_as_is_said(workspace: Workspace) -> None:
    often, seldom = (Service(workspace, ServingSettings(registry_seconds=seconds)) for seconds in (0.01, 600.0))
    with LocalClient(Api(often, Tokens(""))), LocalClient(Api(seldom, Tokens(""))):
        wait_for(lambda: often.host._registry_at and seldom.host._registry_at)
        (workspace.home / "mlflow.db").rename(workspace.home / "mlflow.away")
        wait_for(lambda: not often.host.registry_up)
        assert seldom.host.registry_up


def test_a_home_s_own_tables_need_no_publishing(workspace: Workspace) -> None:
    promote_version(workspace, "colours", 2)
    assert workspace.store.version("colours", "live") is None
    assert Host(workspace)._follower is None
