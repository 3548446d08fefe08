"""The page over a small real model with a history of checks, and a server of it for tests. No test belongs here."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import small_model
import uvicorn
from small_model import day

from deployments.web.app import make_app
from deployments.web.settings import WebSettings
from perennial.definition import ModelDefinition
from perennial.operate.servers import free_port
from perennial.settings import Settings
from perennial.state import approval
from perennial.state.registry import Version
from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.steps.monitor import record_decision, run_check
from tasks.steps.score import load_version, score_unscored
from tasks.steps.shown.figures import record_figures

HOSTILE = '<script>alert("x")</script>'
DESCRIPTION = f"Is this digit even? {HOSTILE} & more"
FIRST, LAST = 13, 16


@dataclass(frozen=True)
class Storied:
    """A model that was checked often, has a second version that waits for a person, and rows in quarantine."""

    workspace: Workspace
    definition: ModelDefinition
    decisions: tuple[Decision, ...]
    waiting: Version


def rows(first: float, last: float) -> pd.DataFrame:
    """The images of the days, one category of which is a script."""
    frame = small_model.rows(first, last)
    return frame.assign(shade=frame["shade"].replace("dark", HOSTILE))


def make_story(workspace: Workspace) -> Storied:
    """A first champion, checks of it, a challenger that waits, and refused rows."""
    definition = _define(workspace, "automatic")
    small_model.add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    small_model.retrain(workspace, definition, as_of=day(10), pictures=True)
    decisions = []
    for number in range(FIRST, LAST + 1):
        since = 10 if number == FIRST else number - 1
        small_model.add(workspace, definition, rows(since, number), as_of=day(number))
        champion = workspace.registry.champion(definition.name)
        assert champion is not None
        pipeline = load_version(workspace.registry, champion, definition)
        score_unscored(workspace.store, definition, pipeline, version=champion.number, as_of=day(number))
        decisions.append(check(workspace, definition, day(number)))
    broken = rows(LAST, LAST + 1).head(20)
    broken.loc[broken.index[0], ["row", "ink_11"]] = [f"r-{HOSTILE}", 99.0]
    small_model.add(workspace, definition, broken, as_of=day(LAST + 0.5))
    definition = _define(workspace, "human")
    second = small_model.retrain(workspace, definition, as_of=day(LAST), pictures=True).version
    approval.ask(workspace.registry, second)
    workspace.registry.set_tags(second, {"beaten_version": "1"})
    waiting = workspace.registry.version(definition.name, second.number)
    return Storied(workspace, definition, tuple(decisions), waiting)


def _define(workspace: Workspace, answer: str) -> ModelDefinition:
    gate = {"slice_minimum_rows": 10, "approval": answer}
    return small_model.define(workspace, description=DESCRIPTION, gate=gate)


def check(workspace: Workspace, definition: ModelDefinition, at: datetime) -> Decision:
    """A check as the monitor flow makes it, without Prefect."""
    decision = run_check(workspace, definition, as_of=at)
    record_decision(workspace, decision)
    record_figures(workspace, definition, decision)
    return decision


def copied(story: Storied, folder: Path, **changes: Any) -> Storied:
    """The same in a home of its own, to be changed; artifacts are read where they lie."""
    shutil.copytree(story.workspace.home, folder / "home", ignore=shutil.ignore_patterns("artifacts"))
    settings = story.workspace.settings.model_copy(update={"home": folder / "home", **changes})
    workspace = Workspace(settings)
    return Storied(workspace, story.definition, story.decisions, story.waiting)


@contextmanager
def page(
    workspace: Workspace, settings: WebSettings | None = None, *, host: str = "127.0.0.1",
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[httpx.Client]:  # fmt: skip
    """A client of the page, served over HTTP; it has looked at everything once."""
    port = free_port()
    app = make_app(workspace, settings or WebSettings(), host=host, pause_seconds=0.2, clock=clock)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client:
            _wait_until_ready(client)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def _wait_until_ready(client: httpx.Client) -> None:
    """Until the watcher has looked at everything once: the event stream's first number tells."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the page never answered")


def form_of(client: httpx.Client, path: str) -> str:
    """The session's token in a page's forms."""
    text = client.get(path).raise_for_status().text
    marked = 'name="form" value="'
    assert marked in text, text
    return text.split(marked)[1].split('"')[0]


def fresh_settings(folder: Path) -> Settings:
    """Settings of a home in which nothing was ever done."""
    for name in ("models", "expectations"):
        (folder / name).mkdir(parents=True)
    return Settings(home=folder / "home", models=str(folder / "models"), expectations=str(folder / "expectations"))
