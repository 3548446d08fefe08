"""Reviewing on the page: one row at a time, answered by form and by keyboard, under the person's own name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import small_model
from small_model import World, day, merge
from test_app import eventually_shown
from web_world import HOSTILE, form_of, page

from deployments.web.settings import WebSettings, new_token
from perennial.review.events import Answer, Offer, read_reviews
from perennial.review.items import Rules, items_of
from perennial.workspace import Workspace
from tasks.rows.frames import label_steps
from tasks.steps.review.fill import fill_reviews

pytestmark = pytest.mark.process
PATH = "/models/digits/review"


class Clock:
    """Ten seconds pass with every look at it, whichever thread looks: it never goes back."""

    def __init__(self) -> None:
        self._looks = count(1)

    def __call__(self) -> datetime:
        return day(13) + timedelta(seconds=10 * next(self._looks))


def make(trained: World, folder: Path, **review: Any) -> Workspace:
    """The trained model with tables of its own, twelve predictions of which are put up."""
    shutil.copytree(trained.workspace.home / "tables", folder / "tables")
    (folder / "models").mkdir()
    raw = merge(small_model.RAW, {"description": HOSTILE, "review": {"per_day": 12, "double_share": 0, **review}})
    (folder / "models" / "digits.yaml").write_text(json.dumps(raw))
    paths = {"tables": str(folder / "tables"), "models": str(folder / "models")}
    workspace = replace(trained.workspace, settings=trained.workspace.settings.model_copy(update=paths))
    fill_reviews(workspace, workspace.definition("digits"), as_of=day(13))
    return workspace


@pytest.fixture
def workspace(trained: World, tmp_path: Path) -> Workspace:
    return make(trained, tmp_path)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with page(workspace, clock=Clock()) as client:
        client.follow_redirects = True
        yield client


def begin(client: httpx.Client, name: str) -> str:
    """Say who reviews; the page that follows."""
    text = client.post(f"{PATH}/as", data={"form": form_of(client, PATH), "by": name}).raise_for_status().text
    assert f"{name}: 0 answered today" in text
    return text


def send(client: httpx.Client, text: str, **fields: str) -> str:
    """Answer the row that a page shows."""
    hidden = dict(re.findall(r'<input type="hidden" name="(form|id|shown_at)" value="([^"]*)">', text)[:3])
    return client.post(PATH, data=hidden | fields).raise_for_status().text


def row_of(text: str) -> str:
    found = re.search(r'name="id" value="([^"]+)"', text)
    assert found, text
    return found[1]


def test_a_person_begins_answers_and_undoes(client: httpx.Client, workspace: Workspace) -> None:
    eventually_shown(client, "/", "12 predictions to review")
    text = begin(client, "anna")
    assert HOSTILE not in text
    assert "12 wait" in text
    assert "The model says <strong>" in text
    first = row_of(text)
    text = send(client, text, says="truth", truth="1", note="clear")
    assert f"{first}: 1. The model had said " in text
    assert "anna: 1 answered today, 11 wait" in text
    second = row_of(text)
    assert second != first
    text = send(client, text, says="skip")
    assert f"{second}: left to others" in text
    text = client.get(PATH).text
    third = row_of(text)
    text = send(client, text, says="cannot_tell")
    assert "Undo the last answer" in text
    text = client.post(PATH, data={"form": form_of(client, PATH), "id": third, "says": "undo"}).text
    assert f"{third}: taken back" in text
    answers = read_reviews(workspace.store, "digits").answers
    assert [(one.author, one.says, one.truth, one.note) for one in answers[first]] == [("anna", "truth", "1", "clear")]
    assert answers[first][0].seconds == pytest.approx(30, abs=25)
    assert [one.says for one in answers[second] + answers[third]] == ["skip", "cannot_tell", "undo"]
    import pandas as pd

    assert label_steps(workspace.store, "digits", ids=pd.Series([first]))["author"].tolist() == ["anna"]


def test_what_is_refused_changes_nothing_and_is_said(client: httpx.Client, workspace: Workspace) -> None:
    text = begin(client, "anna")
    assert "✗ Refused: even: &#39;7&#39; is neither" in send(client, text, says="truth", truth="7")
    assert "Refused: the form says nothing" in send(client, text, says="maybe")
    assert "was never put up for review" in send(client, text.replace(row_of(text), "r0000"), says="truth", truth="1")
    stolen = client.post(PATH, data={"id": row_of(text), "says": "truth", "truth": "1", "form": "guessed"})
    assert stolen.status_code == 403
    assert read_reviews(workspace.store, "digits").answers == {}
    assert client.get("/models/nothing/review").status_code == 404
    assert client.get(f"{PATH}/images/shade?id=r0001").status_code == 404


def test_the_score_is_hidden_until_answered_where_the_definition_says_so(trained: World, tmp_path: Path) -> None:
    with page(make(trained, tmp_path, hide_score=True), clock=Clock()) as client:
        client.follow_redirects = True
        text = begin(client, "anna")
        assert "The model says" not in text
        assert "The model had said " in send(client, text, says="truth", truth="0")


def test_by_token_the_name_is_the_tokens_and_a_viewer_may_only_look(workspace: Workspace) -> None:
    made = {role: new_token(role, name) for role, name in (("label", "ada"), ("view", "vic"))}
    settings = WebSettings(tokens=",".join(entry for _, entry in made.values()))
    for role, (token, _) in made.items():
        with page(workspace, settings, clock=Clock()) as client:
            client.follow_redirects = True
            client.post("/sign-in", data={"form": form_of(client, "/sign-in"), "token": token, "next": PATH})
            text = client.get(PATH).text
            if role == "view":
                assert "to review needs one of the role label" in text
                sent = {"form": form_of(client, PATH), "id": "r0001", "says": "truth", "truth": "1", "by": "eve"}
                assert client.post(PATH, data=sent).status_code == 403
            else:
                send(client, text, says="truth", truth="1", by="eve")
    answers = [one for said in read_reviews(workspace.store, "digits").answers.values() for one in said]
    assert [one.author for one in answers] == ["ada"]


def test_a_model_without_reviews_has_no_such_page(trained: World) -> None:
    with page(trained.workspace) as client:
        assert "Reviewing" not in client.get("/models/digits").text
        assert "digits has no reviews" in client.get(PATH).text


def test_progress_counts_what_others_saw_too() -> None:
    from deployments.web.reviewing import progress
    from perennial.review.events import Reviews

    offers = {
        name: Offer(name, day(1), "random", 1.0, 1.0, True, 2, day(9), day(0), 0.5, 1)
        for name in ("one", "two", "three")
    }
    said = {"one": [("anna", "1"), ("ben", "1")], "two": [("anna", "1"), ("ben", "0"), ("cleo", "0")],
            "three": [("anna", "1")]}  # fmt: skip
    answers = {
        name: [Answer(name, day(1 + place / 10), who, "truth", word) for place, (who, word) in enumerate(told)]
        for name, told in said.items()
    }
    found = progress(items_of(Reviews(offers, answers), Rules(), day(3)), "anna", day(1))
    assert (found.answered, found.settled, found.as_settled) == (3, 2, 1)


@pytest.mark.browser
@pytest.mark.slow
def test_ten_rows_by_keyboard(client: httpx.Client, workspace: Workspace, browser: Any, tmp_path: Path) -> None:
    """Digits, s and u, and nothing else; wide and narrow, with nothing that a browser complains of."""
    tab = browser.new_context(base_url=str(client.base_url), viewport={"width": 390, "height": 800}).new_page()
    tab.set_default_timeout(200_000)
    complaints: list[str] = []
    tab.on("console", lambda item: complaints.append(item.text) if item.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(PATH)
    tab.keyboard.type("anna")  # the field has the focus already
    tab.keyboard.press("Enter")
    tab.wait_for_selector("[data-review] h2")
    for place in range(10):
        row = tab.locator("[data-review] h2").inner_text()
        with tab.expect_navigation():
            tab.keyboard.press("s" if place == 3 else str(place % 2))
        assert tab.locator("[data-review] h2").inner_text() != row
    with tab.expect_navigation():
        tab.keyboard.press("u")
    assert "taken back" in tab.locator(".note.done").inner_text()
    assert "anna: 8 answered today, 3 wait" in tab.locator("main").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []
    tab.screenshot(path=tmp_path / "review.png", full_page=True)
    assert sum(len(said) for said in read_reviews(workspace.store, "digits").answers.values()) == 11


def test_a_skip_is_undone_too(client: httpx.Client) -> None:
    text = begin(client, "anna")
    name = row_of(text)
    text = send(client, text, says="skip")
    assert f"Undo the last answer ({name})" in text
    text = client.post(PATH, data={"form": form_of(client, PATH), "id": name, "says": "undo"}).text
    assert f"{name}: taken back" in text
    assert row_of(text) == name
    assert "Undo the last answer" not in text


def png_of(shade: int) -> bytes:
    from io import BytesIO

    from PIL import Image

    made = BytesIO()
    Image.new("L", (40, 30), shade).save(made, "PNG")
    return made.getvalue()


def add_pictures(workspace: Workspace, tables: Path) -> None:
    """Every row of the model's gets a picture of 40 × 30 points; every tenth is no image at all."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    path = str(tables / "digits" / "batches")
    parts = DeltaTable(path).metadata().partition_columns
    rows = workspace.store.read("digits", "batches")
    pictures = [b"no image" if place % 10 == 0 else png_of(place % 256) for place in range(rows.num_rows)]
    rows = rows.append_column("picture", pa.array(pictures, pa.binary()))
    write_deltalake(path, rows, mode="overwrite", schema_mode="overwrite", partition_by=parts or None)


@pytest.mark.browser
@pytest.mark.slow
def test_a_rows_image_is_shown(trained: World, tmp_path: Path, browser: Any) -> None:
    workspace = make(trained, tmp_path)
    add_pictures(workspace, tmp_path / "tables")
    raw = json.loads((tmp_path / "models" / "digits.yaml").read_text())
    raw["features"] |= {"image": ["picture"]}
    (tmp_path / "models" / "digits.yaml").write_text(json.dumps(raw))
    with page(workspace, clock=Clock()) as client:
        tab = browser.new_context(base_url=str(client.base_url), viewport={"width": 390, "height": 800}).new_page()
        tab.set_default_timeout(200_000)
        tab.goto(PATH)
        tab.keyboard.type("anna")
        tab.keyboard.press("Enter")
        shown = tab.locator("img.review")
        sizes = []
        for _ in range(11):
            shown.wait_for(state="attached")
            assert shown.get_attribute("alt").startswith("picture of r")
            shown.evaluate("image => image.complete || new Promise(done => image.onload = image.onerror = done)")
            sizes.append(shown.evaluate("image => [image.naturalWidth, image.naturalHeight]"))
            with tab.expect_navigation():
                tab.keyboard.press("1")
        tab.screenshot(path=tmp_path / "picture.png", full_page=True)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [40, 30] in sizes
    assert all(size in ([40, 30], [0, 0]) for size in sizes)
