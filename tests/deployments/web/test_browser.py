"""The page in a real browser that can reach nothing but this machine: seen, acted on, read by a machine's eye."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
import web_world
from small_model import day
from test_app import eventually_shown
from web_world import HOSTILE, Storied, page

from deployments.register import register
from deployments.web.acts import environment_of
from deployments.web.settings import WebSettings, new_token
from perennial.operate.servers import prefect_environment
from perennial.workspace import Workspace

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def with_prefect(served_story: Storied, prefect_url: str) -> Iterator[Storied]:
    """The story with a real Prefect server, on which its flows are deployed."""
    settings = served_story.workspace.settings.model_copy(update={"prefect_api_url": prefect_url})
    mine = Storied(Workspace(settings), served_story.definition, served_story.decisions, served_story.waiting)
    with ThreadPoolExecutor(1) as elsewhere:  # in a thread without the browser's loop
        elsewhere.submit(copy_context().run, register, {"digits": mine.definition}).result()
        yield mine
        elsewhere.submit(copy_context().run, register, {}).result()


@pytest.fixture(scope="module")
def client(with_prefect: Storied) -> Iterator[httpx.Client]:
    with page(with_prefect.workspace) as client:
        eventually_shown(client, "/", "waits for a yes")
        yield client


class Tab:
    """A tab, and what it asked and complained of."""

    def __init__(self, browser: Any, base: str, **context: Any) -> None:
        self.context = browser.new_context(base_url=base, **context)
        self.context.set_default_timeout(200_000)
        self.tab = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("console", lambda item: self.complaints.append(item.text) if item.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))


@pytest.fixture
def tab(browser: Any, client: httpx.Client) -> Iterator[Any]:
    base = str(client.base_url)
    found = Tab(browser, base, viewport={"width": 1440, "height": 900}, timezone_id="America/New_York")
    yield found.tab
    found.context.close()
    assert found.complaints == []
    assert {url.split("/")[2] for url in found.asked if not url.startswith("data:")} == {base.split("/")[2]}


def test_from_the_overview_to_a_decision(tab: Any, with_prefect: Storied) -> None:
    from playwright.sync_api import expect

    tab.goto("/")
    line = tab.get_by_role("row").filter(has=tab.get_by_role("link", name="digits", exact=True))
    expect(line).to_contain_text("version 2 waits for a yes")
    line.get_by_role("link", name="digits", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("digits")
    expect(tab.get_by_text(HOSTILE).first).to_be_visible()
    last = with_prefect.decisions[-1]
    tab.locator(f'svg a[href$="{last.decision_id}"]').first.click()
    expect(tab.get_by_role("heading", name="Every signal")).to_be_visible()
    expect(tab.locator("main")).to_contain_text(last.reasons[0])
    # In the reader's zone, with UTC beside it.
    local = tab.locator("h1 time").inner_text()
    assert "UTC" in local
    assert local.split(" (")[0] != local.split("(")[1].removesuffix(" UTC)")


def test_approving_refusing_and_rolling_back(tab: Any, with_prefect: Storied) -> None:
    from playwright.sync_api import expect

    tab.goto("/")
    tab.get_by_role("link", name="version 2 waits for a yes").click()
    waiting = tab.locator("section.waiting")
    waiting.get_by_role("button", name="Approve").click()
    expect(waiting.get_by_label("Your name")).to_be_focused()  # the browser itself asks for what is missing
    waiting.get_by_label("Your name").fill("Ada")
    waiting.get_by_label("Why").fill(f"seen {HOSTILE}")
    waiting.get_by_role("button", name="Approve").click()
    expect(tab.locator(".note.done")).to_contain_text("version 2 of digits is champion now")
    tab.goto("/models/digits/versions/1")
    tab.get_by_text("Roll back to version 1", exact=True).click()
    tab.get_by_label("Why").fill("it was better")
    tab.get_by_role("button", name="Roll back").click()
    expect(tab.locator(".note.done")).to_contain_text("version 1 of digits is champion again")
    lines = with_prefect.workspace.registry.history("digits")
    assert [(line.version, line.by) for line in lines[1:]] == [(2, "Ada"), (1, "Ada")]
    tab.goto("/models/digits")
    told = tab.get_by_role("region", name="What people did")
    expect(told).to_contain_text(f"seen {HOSTILE}")


def test_releasing_a_refused_row(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.goto("/models/digits/quarantine")
    entry = tab.locator("details.fold").filter(has_text=f"r-{HOSTILE}")
    entry.locator("summary").first.click()
    entry.get_by_label("Your name").fill("Ada")
    entry.get_by_label("Why").fill("try it again")
    entry.get_by_role("button", name="Release").click()
    expect(tab.locator(".note.done")).to_contain_text("1 stay in quarantine")


def test_a_started_check_arrives_by_itself(tab: Any, with_prefect: Storied, prefect_url: str, tmp_path: Path) -> None:
    """The run that the page asks Prefect for is executed as the runner does it; the open page tells, without reload."""
    from playwright.sync_api import expect

    tab.goto("/models/digits")
    tab.evaluate("window.sameDocument = true")
    fold = tab.locator("details.fold").filter(has_text="Start a check")
    fold.locator("summary").click()
    fold.get_by_label("Your name").fill("Ada")
    fold.get_by_label("Why").fill("to see it")
    fold.get_by_role("button", name="Start a check").click()
    expect(tab.locator(".note.done")).to_contain_text("a run of monitor/digits was started")
    (run,) = _runs(prefect_url)
    assert "started by Ada" in run["tags"]
    tab.evaluate("window.sameDocument = true")
    before = len(with_prefect.workspace.ledger("digits").entries())
    environment = {
        **environment_of(with_prefect.workspace.settings),
        **prefect_environment(with_prefect.workspace.settings, prefect_url),
    }
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", run["id"]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,  # it copies its working folder
    )  # fmt: skip
    entries = with_prefect.workspace.ledger("digits").entries()
    assert len(entries) == before + 1, done.stdout[-3000:] + done.stderr[-3000:]
    expect(tab.locator(f'table a[href$="{entries[-1]["decision_id"]}"]').first).to_be_visible()
    assert tab.evaluate("window.sameDocument"), "the page was loaded anew"
    expect(tab.get_by_role("region", name="Runs")).to_contain_text("Completed")


def _runs(prefect_url: str) -> list[dict[str, Any]]:
    asked = {"flow_runs": {"tags": {"all_": ["started by Ada"]}}}
    found: list[dict[str, Any]] = httpx.post(f"{prefect_url}/flow_runs/filter", json=asked).json()
    return found


def test_who_writes_is_not_interrupted(tab: Any, with_prefect: Storied) -> None:
    from playwright.sync_api import expect

    tab.goto("/models/digits")
    fold = tab.locator("details.fold").filter(has_text="Start a retraining")
    fold.locator("summary").click()
    fold.get_by_label("Why").fill("half a sente")
    web_world.check(with_prefect.workspace, with_prefect.definition, day(web_world.LAST + 0.25))
    expect(tab.locator("#fresh")).to_be_visible()
    expect(fold.get_by_label("Why")).to_have_value("half a sente")


PAGES = ["/", "/models/digits", "/models/digits/checks", "/models/digits/columns/ink_11", "/models/digits/versions",
         "/models/digits/versions/2", "/models/digits/quarantine", "/models/digits/backtest"]  # fmt: skip


def test_pages_fit_and_a_screen_reader_finds_its_way(browser: Any, client: httpx.Client, with_prefect: Storied) -> None:
    """Each page once, wide and narrow, light and dark; of the colours nothing changes but the contrast."""
    axe = importlib.util.find_spec("axe_playwright_python")
    if axe is None or not axe.submodule_search_locations:
        pytest.skip("axe is not installed: pip install axe-playwright-python")
    script = (Path(axe.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
    decision = f"/models/digits/decisions/{with_prefect.decisions[-1].decision_id}"
    found = Tab(browser, str(client.base_url))
    tab = found.tab
    try:
        for path in [*PAGES, decision]:
            tab.goto(path)
            tab.evaluate(script)
            for width in (1440, 390):
                tab.set_viewport_size({"width": width, "height": 900})
                for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
                    tab.emulate_media(color_scheme=scheme)
                    seen = f"{path}, {width}, {scheme}"
                    assert tab.evaluate("document.documentElement.scrollWidth") <= width, seen
                    violations = tab.evaluate("rules => axe.run(rules).then((found) => found.violations)", rules)
                    serious = [item for item in violations if item["impact"] in ("serious", "critical")]
                    told = [(item["id"], [node["html"][:200] for node in item["nodes"][:3]]) for item in serious]
                    assert serious == [], f"{seen}: {json.dumps(told, indent=1)}"
    finally:
        found.context.close()
    assert found.complaints == []


def test_the_keyboard_reaches_what_can_be_done(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.goto("/models/digits")
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab.keyboard.press("Enter")
    summary = tab.locator("summary").filter(has_text="Start a check")
    for _ in range(60):
        tab.keyboard.press("Tab")
        if summary.evaluate("item => item === document.activeElement"):
            break
    expect(summary).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Start a check")).to_be_visible()


def test_a_session_is_begun_and_ended(browser: Any, story: Storied) -> None:
    from playwright.sync_api import expect

    token, entry = new_token("view", "lea")
    with page(story.workspace, WebSettings(tokens=entry)) as client:
        found = Tab(browser, str(client.base_url))
        found.tab.goto("/models/digits")
        found.tab.get_by_label("Your token").fill(token)
        found.tab.get_by_role("button", name="Sign in").click()
        expect(found.tab.get_by_role("heading", level=1)).to_contain_text("digits")
        expect(found.tab.get_by_text("Your token lets you look").first).to_be_attached()
        found.tab.get_by_role("button", name="Sign out").click()
        expect(found.tab.get_by_label("Your token")).to_be_visible()
        found.context.close()
    assert found.complaints == []
