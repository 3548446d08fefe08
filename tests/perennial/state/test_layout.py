"""The layout is recorded, an older one is migrated by hand only, a newer one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from perennial import __version__
from perennial.cli import main
from perennial.errors import ConflictError, StorageError
from perennial.settings import Settings
from perennial.state.layout import LAYOUT_VERSION, RECORD, RESTORING, migrate, places, require
from perennial.state.live import Follower, publish_manifest
from perennial.state.storage import Objects, dump
from perennial.workspace import Workspace

LABEL = pd.DataFrame({"id": ["a"], "truth": 1.0, "labelled_at": pd.Timestamp("2024-01-01", tz="UTC"), "author": "x"})


@pytest.fixture
def settings(tmp_path: Path, tables_root: str) -> Settings:
    return Settings(home=tmp_path / "home", tables=tables_root)


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    """An installation of before there were records: tables, and a lock file."""
    settings = Settings(home=tmp_path / "home")
    Workspace(settings).store.append("m", "labels", LABEL)
    for root in (settings.home_path, Path(settings.tables_root)):
        (root / RECORD).unlink()
    (settings.home_path / "locks").mkdir()
    (settings.home_path / "locks" / "retrain-m.lock").touch()
    (settings.home_path / "locks" / "ship-m.lock").touch()
    return settings


def test_looking_makes_nothing(settings: Settings) -> None:
    assert [place.version for place in places(settings)] == [None, None]
    Workspace(settings).store.read("m", "labels")
    assert not settings.home_path.exists()
    assert [place.version for place in places(settings)] == [None, None]


def test_what_a_server_makes_at_its_start_is_no_old_layout(settings: Settings) -> None:
    for name in ("serving/spool", "locks", "logs", "prefect", "work", "reports"):
        (settings.home_path / name).mkdir(parents=True)
    (settings.home_path / "locks" / "demo.lock").touch()
    assert [place.version for place in places(settings)] == [None, None]
    Workspace(settings).store.append("m", "labels", LABEL)
    assert [place.version for place in places(settings)] == [LAYOUT_VERSION, LAYOUT_VERSION]


def test_the_first_row_is_written_with_the_records(settings: Settings) -> None:
    Workspace(settings).store.append("m", "labels", LABEL)
    for root in (str(settings.home_path), settings.tables_root):
        content = Objects(root).get(RECORD)
        assert content
        record = json.loads(content)
        assert (record["layout"], record["written_by"]) == (LAYOUT_VERSION, __version__)
    require(settings)


def test_a_home_that_only_follows_shared_tables_may_be_used_again(settings: Settings, tmp_path: Path) -> None:
    """An API's, or a second laptop's: nothing of it is ever the first row of a table."""
    publish_manifest(Workspace(settings).store, "m", "{}", 1)
    other = Settings(home=tmp_path / "other", tables=settings.tables)
    assert Follower(Workspace(other).store, other.home_path / "live").follow("m")
    assert [place.version for place in places(other)] == [LAYOUT_VERSION, LAYOUT_VERSION]
    require(other)


@pytest.mark.parametrize("place", ["home", "tables"])
def test_a_newer_layout_is_refused(settings: Settings, place: str) -> None:
    Workspace(settings).store.append("m", "labels", LABEL)
    root = str(settings.home_path) if place == "home" else settings.tables_root
    newer = {"layout": LAYOUT_VERSION + 1, "written_by": "9.1.0", "written_at": ""}
    Objects(root).put(RECORD, dump(newer))
    with pytest.raises(ConflictError) as caught:
        Workspace(settings).store.read("m", "labels")
    assert f"layout {LAYOUT_VERSION + 1}, written by Perennial 9.1.0; this one ({__version__}) knows" in str(
        caught.value
    )
    assert caught.value.remedy == "Install Perennial 9.1.0 or a newer one"
    with pytest.raises(ConflictError, match=r"written by Perennial 9\.1\.0"):
        list(migrate(settings))
    with pytest.raises(ConflictError), Workspace(settings).retraining("m", wait_seconds=0):
        pass


def test_an_older_one_is_refused_until_it_is_migrated(
    old: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConflictError, match=rf"layout 1, this Perennial .* works on layout {LAYOUT_VERSION}") as caught:
        Workspace(old).store.read("m", "labels")
    assert caught.value.remedy.endswith("run: perennial migrate")
    monkeypatch.setenv("PERENNIAL_HOME", str(old.home_path))
    assert main(["migrate"]) == 0
    told = capsys.readouterr().out
    assert "removed the lock file" in told
    assert told.count("layout 1 → 2") == 2
    assert [path.name for path in (old.home_path / "locks").iterdir()] == ["ship-m.lock"]
    assert len(Workspace(old).store.read("m", "labels")) == 1
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out == f"nothing to do: home and tables have layout {LAYOUT_VERSION}\n"


def test_no_migration_under_the_feet_of_an_older_program(old: Settings) -> None:
    with (
        FileLock(old.home_path / "locks" / "retrain-m.lock"),
        pytest.raises(ConflictError, match=r"retrain-m is held: a process of the older Perennial is at work"),
    ):
        list(migrate(old))
    assert [place.version for place in places(old)] == [1, 1], "it was left as it was"
    list(migrate(old))
    assert [place.version for place in places(old)] == [LAYOUT_VERSION, LAYOUT_VERSION]


def test_a_broken_off_restore_is_told(settings: Settings) -> None:
    Objects(settings.tables_root).put(RESTORING, b"{}")
    with pytest.raises(ConflictError, match=r"a restore into .* was broken off: it is not whole. Empty"):
        require(settings)


def test_a_torn_record_is_told(settings: Settings) -> None:
    Objects(settings.tables_root).put(RECORD, b'{"layout": ')
    with pytest.raises(StorageError, match=r"layout\.json can't be read"):
        require(settings)


def test_servers_refuse_it_before_they_start(old: Settings) -> None:
    from perennial.operate.supervisor import check_before_up
    from perennial.serving.processes.server import serve
    from perennial.serving.settings import ServingSettings

    with pytest.raises(ConflictError, match="run: perennial migrate"):
        check_before_up(old)
    with pytest.raises(ConflictError, match="run: perennial migrate"):
        serve("127.0.0.1", 0, old, ServingSettings())
