"""An API that shares the tables with a promoter, but no folder: it follows the champion through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving_world import promote_version

from perennial.serving.host import Host
from perennial.settings import Settings
from perennial.workspace import Workspace


def shared(workspace: Workspace, home: Path) -> Workspace:
    """The workspace of a machine with a home of its own, and the tables and registry of `workspace`."""
    old = workspace.settings
    return Workspace(
        Settings(home=home, models=old.models, tables=old.tables_root, tracking_uri=old.mlflow_uri)
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


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
    monkeypatch.setattr("perennial.serving.host._FIRST_FOLLOW_SECONDS", 0.2)
    monkeypatch.setattr(host._follower, "follow", lambda _model: time.sleep(3))
    started = time.monotonic()
    host.start()
    assert time.monotonic() - started < 2.5
    assert version(host) is None


def test_a_home_s_own_tables_need_no_publishing(workspace: Workspace) -> None:
    promote_version(workspace, "colours", 2)
    assert workspace.store.version("colours", "live") is None
    assert Host(workspace)._follower is None
