"""Tests of what the page knows, and when: a real home, changed while it is watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_model import day
from web_world import Storied, copied, fresh_settings

from deployments.web.known.neighbours import Neighbours
from deployments.web.known.watch import Watcher
from perennial.workspace import Workspace
from tasks.intake.quarantine import DISCARDED, close, entries

NEVER = 3600.0


@contextmanager
def watching(workspace: Workspace) -> Iterator[Watcher]:
    """A watcher that looks by itself once, and then when it is told to."""
    neighbours = Neighbours(workspace.settings, clock=lambda: day(18))
    watcher = Watcher(workspace, neighbours, NEVER, clock=lambda: day(18))
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()
        neighbours.close()


@pytest.mark.slow
def test_who_waits_for_a_look_sees_what_was_done_before(story: Storied, tmp_path: Path) -> None:
    mine = copied(story, tmp_path)
    store, definition = mine.workspace.store, mine.definition
    with watching(mine.workspace) as watcher:
        assert watcher.look_now(60)
        assert watcher.glances["digits"].quarantined == 1
        names = entries(store, definition)["entry"].tolist()
        close(store, "digits", names, DISCARDED, at=day(18), by="Ada", reason="because")
        assert watcher.look_now(60)
        assert watcher.glances["digits"].quarantined == 0


def test_a_look_that_began_before_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have passed by already what is changed now."""
    rounds, go_on = threading.Semaphore(0), threading.Semaphore(0)
    workspace = Workspace(fresh_settings(tmp_path))

    def look(_watcher: Watcher) -> bool:
        rounds.release()
        go_on.acquire(timeout=60)
        return False

    monkeypatch.setattr(Watcher, "look", look)
    with watching(workspace) as watcher:
        try:
            assert rounds.acquire(timeout=60)  # the first is under way
            assert not watcher.look_now(0.2)
            go_on.release()
            assert rounds.acquire(timeout=60)  # it is over, and the next under way
            assert not watcher.look_now(0.2)
        finally:
            go_on.release(3)
        assert watcher.look_now(60)
