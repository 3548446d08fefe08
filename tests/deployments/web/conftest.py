"""A model with a history of checks, made once; a browser, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import services
import web_world
from shared import made_once
from web_world import Storied

from perennial.state.registry import Version
from perennial.workspace import Workspace
from tasks.check.decision import Decision

# What a command takes to start on a busy machine is no fault of a page's.
WAIT_SECONDS = 200
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Storied:
    """For tests that only look."""

    def make(workspace: Workspace) -> tuple[tuple[Decision, ...], Version]:
        told = web_world.make_story(workspace)
        return told.decisions, told.waiting

    workspace, (decisions, waiting) = made_once(tmp_path_factory, "story", make_workspace, make)
    return Storied(workspace, workspace.definition("digits"), decisions, waiting)


@pytest.fixture(scope="module")
def served_story(story: Storied, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storied]:
    """A copy of it to be changed, whose registry is behind MLflow's own HTTP."""
    folder = tmp_path_factory.mktemp("served")
    mine = web_world.copied(story, folder)
    with services.mlflow_application(folder / "home" / "mlflow.db", story.workspace.home / "artifacts", folder) as url:
        remote = mine.workspace.settings.model_copy(update={"tracking_uri": url})
        yield Storied(Workspace(remote), mine.definition, mine.decisions, mine.waiting)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, which can reach nothing but this machine.

    Of a module only: as long as it is there, this thread has a running loop, by which Prefect's functions would wait.
    """
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: tests/system-packages.sh installs it")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield found
        found.close()
