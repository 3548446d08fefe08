"""Tests of what people do from the page: real commands, a real MLflow server, every act in the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from small_model import day
from test_app import eventually_gone, eventually_shown
from web_world import HOSTILE, Storied, form_of, page

from deployments.web.acts import ACTS, environment_of
from perennial.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(served_story: Storied) -> Iterator[httpx.Client]:
    with page(served_story.workspace, clock=lambda: day(18)) as client:
        eventually_shown(client, "/", "version 2 waits for a yes")
        yield client


def act(client: httpx.Client, name: str, path: str, **fields: str) -> tuple[str, str]:
    """Do something by the form of a page; what the page says then: done or refused, and the words."""
    form = {"form": form_of(client, path), "back": path, "by": "Ada", "reason": "because I looked", **fields}
    answer = client.post(f"/models/digits/acts/{name}", data=form)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == path
    shown = client.get(path).text
    found = re.search(r'<p class="note (done|refused)" role="status">(.*?)</p>', shown, re.S)
    assert found, shown
    return found[1], found[2]


def test_a_version_is_shown_with_its_evidence(client: httpx.Client) -> None:
    text = client.get("/models/digits/versions/2").text
    assert "It waits for a person" in text
    assert text.index('formaction="/models/digits/acts/approve"') < text.index("What the gate found")
    for told in ("better_than_champion", "brier", "ROC", "Calibration", "What the model leans on", "version 1</a>"):
        assert told in text, told
    assert "ordinarily missing" in client.get("/models/digits/columns/ink_11").text
    assert 'href="/models/digits/versions/1"' in client.get("/models/digits/versions").text


def test_two_versions_are_set_side_by_side(client: httpx.Client) -> None:
    path = "/models/digits/versions/2/against/1"
    assert "They were not compared yet" in client.get(path).text
    form = {"form": form_of(client, path), "other": "1"}
    assert client.post("/models/digits/versions/2/against", data=form).headers["location"] == path
    text = client.get(path).text
    assert "Both on the same" in text
    assert "Where they disagree most" in text
    assert "has learned from" in text
    wrong = {"form": form_of(client, path), "other": "1; rm"}
    assert client.post("/models/digits/versions/2/against", data=wrong).status_code == 400


def test_an_act_needs_a_name_and_a_reason(client: httpx.Client, served_story: Storied) -> None:
    path = "/models/digits/versions/2"
    before = len(served_story.workspace.ledger("digits").acts())
    for fields, told in (({"reason": "  "}, "the reason is empty"), ({"by": ""}, "your name is empty"),
                         ({"reason": "x\0y"}, "letter that can&#39;t be shown"),
                         ({"version": "--help"}, "is none")):  # fmt: skip
        kind, words = act(client, "approve", path, **({"version": "2"} | fields))
        assert (kind, told in words) == ("refused", True), words
    assert len(served_story.workspace.ledger("digits").acts()) == before


def test_two_people_at_once_and_the_way_back(client: httpx.Client, served_story: Storied) -> None:
    """Two approve the same version: one does, the other is refused in the command's words; then it is rolled back."""
    path, registry = "/models/digits/versions/2", served_story.workspace.registry
    reason = f"looks right {HOSTILE}"
    form = {"form": form_of(client, path), "back": path, "reason": reason, "version": "2"}
    cookies = dict(client.cookies)

    def approve(who: str) -> None:
        with httpx.Client(base_url=client.base_url, cookies=cookies, timeout=300) as other:
            assert other.post("/models/digits/acts/approve", data=form | {"by": who}).status_code == 303

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(approve, ["Ada", "Bo"]))
    acts = [item for item in served_story.workspace.ledger("digits").acts() if item["act"] == "approve"]
    assert len(acts) == 2
    (winner,), (loser,) = ([item for item in acts if item["done"] is done] for done in (True, False))
    assert winner["told"] == "version 2 of digits is champion now"
    (line,) = [line for line in registry.history("digits") if line.version == 2]
    assert (line.action, line.by, line.reason) == ("approve", winner["by"], reason)
    assert any(told in loser["told"] for told in ("waits for approval", "was quicker", "is champion already")), loser
    assert HOSTILE not in eventually_shown(client, "/models/digits", "What people did")
    # Once more: nothing waits any more, and the page says so as the command does.
    kind, words = act(client, "refuse", path, version="2")
    assert (kind, "no version of digits waits" in words or "version 2 of digits waits" in words) == ("refused", True)
    kind, words = act(client, "rollback", "/models/digits/versions/1", version="1")
    assert (kind, "version 1 of digits is champion again, instead of version 2" in words) == ("done", True), words
    assert registry.history("digits")[-1].by == "Ada"


def test_refused_rows_are_released_or_discarded(client: httpx.Client, served_story: Storied) -> None:
    path = "/models/digits/quarantine"
    entry = re.search(r'name="entry" value="([0-9a-f]{16})"', client.get(path).text)
    assert entry
    kind, words = act(client, "release", path, entry=entry[1])
    assert (kind, "1 stay in quarantine" in words) == ("done", True), words
    kind, words = act(client, "discard", path, entry=entry[1])
    assert (kind, words.strip()) == ("done", "✓ 1 rows discarded")
    eventually_gone(client, "/models/digits", "1 row in quarantine")
    kind, words = act(client, "discard", "/models/digits", entry=entry[1])
    assert (kind, "no open entry" in words) == ("refused", True)


def test_what_prefect_should_do_says_that_it_is_away(client: httpx.Client) -> None:
    kind, words = act(client, "check", "/models/digits")
    assert kind == "refused"
    assert "no Prefect server of this home is running" in words
    assert "<code>perennial up</code>" in words


def test_a_complaint_that_is_none_is_accepted_by_nobody(client: httpx.Client, served_story: Storied) -> None:
    decision = served_story.decisions[0].decision_id
    kind, words = act(client, "accept", "/models/digits", decision=decision)
    assert (kind, "names no decision of digits that complains of its data" in words) == ("refused", True)


def test_a_form_can_not_smuggle_options(served_story: Storied) -> None:
    for name, field in (("approve", "version"), ("rollback", "version"), ("accept", "decision"), ("release", "entry")):
        arguments = ACTS[name].arguments
        assert arguments is not None
        with pytest.raises(DataError):
            arguments({field: "--by=somebody"})
    assert environment_of(served_story.workspace.settings)["PERENNIAL_TRACKING_URI"].startswith("http://127.0.0.1")
