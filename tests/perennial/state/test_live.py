"""Manifests between machines: published in shared tables, and followed where no folder is shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perennial.state.live import Follower, publish_manifest, write_manifest
from perennial.state.store import Store


def text(sequence: int, version: int) -> str:
    return json.dumps({"model": "m", "sequence": sequence, "version": version})


def version_in(folder: Path) -> int:
    return int(json.loads((folder / "m.json").read_text(encoding="utf-8"))["version"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "tables"))


def test_what_is_published_is_followed_once(store: Store, tmp_path: Path) -> None:
    follower = Follower(store, tmp_path / "live")
    assert not follower.follow("m")
    assert not (tmp_path / "live").exists()
    publish_manifest(store, "m", text(1, 1), 1)
    assert follower.follow("m")
    assert version_in(tmp_path / "live") == 1
    assert not follower.follow("m")
    publish_manifest(store, "m", text(2, 5), 2)
    assert follower.follow("m")
    assert version_in(tmp_path / "live") == 5


def test_the_same_manifest_is_published_once_but_may_come_back(store: Store, tmp_path: Path) -> None:
    for manifest in (text(1, 1), text(1, 1)):
        publish_manifest(store, "m", manifest, 1)
    assert len(store.read("m", "live")) == 1
    publish_manifest(store, "m", text(1, 2), 1)  # the challenger in it has changed
    publish_manifest(store, "m", text(1, 1), 1)
    assert Follower(store, tmp_path / "live").follow("m")
    assert version_in(tmp_path / "live") == 1


def test_a_torn_manifest_is_followed_again(store: Store, tmp_path: Path) -> None:
    follower = Follower(store, tmp_path / "live")
    publish_manifest(store, "m", text(1, 1), 1)
    assert follower.follow("m")
    for torn in (b"", b"{", b"\xff"):
        (tmp_path / "live" / "m.json").write_bytes(torn)
        assert follower.follow("m")
        assert version_in(tmp_path / "live") == 1
        assert not follower.follow("m")


def test_a_late_publisher_takes_nothing_back(store: Store, tmp_path: Path) -> None:
    publish_manifest(store, "m", text(3, 7), 3)
    publish_manifest(store, "m", text(2, 6), 2)
    Follower(store, tmp_path / "live").follow("m")
    assert version_in(tmp_path / "live") == 7


def test_a_home_that_is_ahead_of_the_tables_stays_ahead(store: Store, tmp_path: Path) -> None:
    publish_manifest(store, "m", text(1, 1), 1)
    write_manifest(tmp_path / "live", "m", text(2, 2))
    assert not Follower(store, tmp_path / "live").follow("m")
    assert version_in(tmp_path / "live") == 2
