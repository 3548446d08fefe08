"""Environments of locks go when no check has used them for long; those in use, or being made, stay."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perennial.state.files import exclusive
from tasks.upgrade.environment import FOLDER, UNUSED, Lock, environment_of, forget_unused

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Environments last used so long ago: one in use, two unused, one young, and one that was never finished."""
    ages = {"mine": 40, "old": 31, "older": 90, "young": 29, "torn": 31}
    for name, days in ages.items():
        folder = tmp_path / FOLDER / name
        (folder / "bin").mkdir(parents=True)
        mark = folder if name == "torn" else folder / "complete.json"
        if name != "torn":
            mark.write_text("{}")
        moment = (NOW - timedelta(days=days)).timestamp()
        os.utime(mark, (moment, moment))
    return tmp_path


def _left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / FOLDER).iterdir() if path.is_dir())


def test_what_is_unused_goes(home: Path) -> None:
    used = home / FOLDER / "mine" / "bin" / "python"
    assert timedelta(days=29) < UNUSED < timedelta(days=31)
    assert forget_unused(home, used=used, now=NOW) == ["old", "older", "torn"]
    assert _left(home) == ["mine", "young"]


@pytest.mark.process
def test_one_that_is_used_again_stays(tmp_path: Path) -> None:
    lock = Lock({}, ())
    python = environment_of(lock, tmp_path, whole=False)
    mark = python.parent.parent / "complete.json"
    os.utime(mark, (0, 0))
    assert environment_of(lock, tmp_path, whole=False) == python
    assert datetime.now(UTC) - datetime.fromtimestamp(mark.stat().st_mtime, UTC) < timedelta(hours=1)
    assert forget_unused(tmp_path, used=tmp_path / FOLDER / "other" / "bin" / "python", now=datetime.now(UTC)) == []
    assert python.exists()


def test_one_that_is_being_made_stays(home: Path) -> None:
    with exclusive(home / FOLDER, "torn", wait_seconds=0, busy="made"):
        gone = forget_unused(home, used=home / FOLDER / "mine" / "bin" / "python", now=NOW)
    assert gone == ["old", "older"]
    assert _left(home) == ["mine", "torn", "young"]
