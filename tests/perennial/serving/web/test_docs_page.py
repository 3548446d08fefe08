"""Tests of the page at /docs, in a real browser that can reach nothing but the server."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from serving_world import answering

from perennial.workspace import Workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
def test_try_it_out_works_without_a_network(workspace: Workspace) -> None:
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    complaints: list[str] = []
    with answering(workspace) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{client.port}/docs")
        for name in ("invocations-colours", "infer-numbers"):
            _try(page, expect, name)
        browser.close()
        answered = client.get("/metrics").text

    assert not complaints
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {f"127.0.0.1:{client.port}"}
    assert 'perennial_rows_total{model="colours",role="champion",version="1"} 1.0' in answered
    assert 'perennial_rows_total{model="numbers",role="champion",version="1"} 1.0' in answered


def _try(page: Any, expect: Any, operation: str) -> None:
    """Open an operation, try it out with the example as it stands, and read the answer."""
    block = page.locator(f"[id$='{operation}'].opblock")
    block.locator(".opblock-summary-control").click()
    block.locator(".try-out__btn").click()
    block.locator("button.execute").click()
    expect(block.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(block.locator(".live-responses-table .highlight-code").first).to_contain_text("version")
