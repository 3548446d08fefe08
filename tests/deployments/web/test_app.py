"""Tests of the page over real HTTP: what it shows, whom it lets in, what it refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import small_model
import web_world
from small_model import day
from web_world import HOSTILE, Storied, form_of, page

from deployments.web.settings import WebSettings, new_token
from perennial.state.ledger import Ledger
from perennial.workspace import Workspace


def eventually_shown(client: httpx.Client, path: str, text: str, seconds: float = 90) -> str:
    deadline = time.monotonic() + seconds
    while text not in (shown := client.get(path).text):
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)
    return shown


def eventually_gone(client: httpx.Client, path: str, text: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while text in (shown := client.get(path).text):
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)


@pytest.fixture(scope="module")
def client(story: Storied) -> Iterator[httpx.Client]:
    with page(story.workspace, clock=lambda: day(18)) as client:
        eventually_shown(client, "/", "digits")
        yield client


def test_the_overview_tells_each_models_state(client: httpx.Client, story: Storied) -> None:
    text = client.get("/").text
    last = story.decisions[-1]
    assert f'<a href="/models/digits/decisions/{last.decision_id}">' in text
    assert last.verdict in text
    assert "1 row in quarantine" in text
    assert 'aria-label="loss over the last checks"' in text
    assert "no MLflow server of this home is running" in text
    assert "no Prefect server of this home is running" in text


PATHS = [
    "/", "/models/digits", "/models/digits/checks", "/models/digits/columns/ink_11", "/models/digits/versions",
    "/models/digits/versions/1", "/models/digits/quarantine", "/models/digits/backtest",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_content_becomes_markup(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"\son\w+=|style=|javascript:", answer.text), "inline script or style"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_what_is_hostile_is_shown_as_it_is_written(client: httpx.Client) -> None:
    escaped = "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;"
    assert escaped in client.get("/models/digits").text  # its description, and a slice of the category
    assert f"shade = {escaped}" in client.get("/models/digits").text
    assert f"r-{escaped}" in client.get("/models/digits/quarantine").text


def test_a_models_page_draws_its_story_with_the_first_champion(client: httpx.Client, story: Storied) -> None:
    text = client.get("/models/digits").text
    for decision in story.decisions:
        assert text.count(f"/models/digits/decisions/{decision.decision_id}") >= 2  # a mark and a line
    assert "What the next check would need to decide otherwise" in text
    for reason in story.decisions[-1].would_change:
        assert reason.replace("'", "&#39;") in text
    assert 'aria-label="Quality of digits over time, with verdicts and champions"' in text
    assert "Labels by age" in text
    assert len(client.get("/models/digits").content) < 300_000


def test_a_decision_is_told_whole(client: httpx.Client, story: Storied) -> None:
    decision = story.decisions[-1]
    text = client.get(f"/models/digits/decisions/{decision.decision_id}").text
    for sentence in (*decision.reasons, *decision.would_change, *(signal.name for signal in decision.signals)):
        assert sentence.replace("'", "&#39;").split("`")[0] in text
    # Its first letters suffice, as they do for the commands.
    assert client.get(f"/models/digits/decisions/{decision.decision_id[:8]}").status_code == 200


def test_a_decision_tells_what_acting_does(
    client: httpx.Client, story: Storied, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, told = f"/models/digits/decisions/{story.decisions[-1].decision_id}", "Where predictions are acted on"
    assert told not in client.get(address).text
    as_it_is = Ledger.entry

    def acted_on(self: Ledger, *given: Any, **named: Any) -> dict[str, Any]:
        found = as_it_is(self, *given, **named)
        found["evidence"]["intervention"] = {"warning": "Acting changes <it>.", "told": ["12 of 30 could be acted on"]}
        return found

    monkeypatch.setattr(Ledger, "entry", acted_on)
    text = client.get(address).text
    assert told in text
    assert "Acting changes &lt;it&gt;." in text
    assert "<li>12 of 30 could be acted on</li>" in text


def test_a_column_is_shown_with_its_statistics(client: httpx.Client, story: Storied) -> None:
    text = client.get("/models/digits/columns/ink_11").text
    assert text.count("<tr>") == len(story.decisions) + 1
    assert "The ordinary range is missing here" in text  # MLflow has it, and is away


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/models/digit", "Did you mean digits?"),
        ("/models/digits/decisions/ffff", "has no decision ffff"),
        ("/models/digits/columns/nothing", "has looked at a column"),
        ("/models/digits/reports/..%2F..%2Fmlflow.db", "Not Found"),
        ("/models/digits/reports/other.html", "has no report"),
        ("/nowhere", "Not Found"),
    ],
)
def test_what_is_not_there_is_said_on_a_page(client: httpx.Client, path: str, told: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert told in answer.text
    assert "All models" in answer.text


def test_looking_changes_nothing(client: httpx.Client, story: Storied) -> None:
    def state() -> list[tuple[str, int]]:
        root = story.workspace.home
        files = (item for item in root.rglob("*") if item.is_file() and not item.name.startswith("mlflow.db"))
        return sorted((str(item), item.stat().st_mtime_ns) for item in files)

    before = state()
    for path in PATHS:
        client.get(path)
    assert state() == before


def test_acts_are_no_pages(client: httpx.Client) -> None:
    for act in ("approve", "retrain", "discard"):
        assert client.get(f"/models/digits/acts/{act}").status_code == 405
    assert client.get("/sign-out").status_code == 405


def test_forged_forms_are_refused(client: httpx.Client, story: Storied) -> None:
    path, fields = "/models/digits/acts/check", {"by": "Eve", "reason": "because"}
    form = form_of(client, "/models/digits")
    forged: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"form": "x" * len(form)}, {}),
        ({"form": form}, {"origin": "http://evil.example"}),
        ({"form": form}, {"sec-fetch-site": "cross-site"}),
        ({"form": form}, {"cookie": "; ".join(f"{name}=made.up.cookie" for name in client.cookies)}),
    ]
    for extra, headers in forged:
        answer = client.post(path, data=fields | extra, headers=headers)
        assert answer.status_code == 403, (extra, headers)
        assert "nothing was changed" in answer.text
    assert story.workspace.ledger("digits").acts() == []


def test_a_form_that_is_too_long_is_refused(client: httpx.Client) -> None:
    form = form_of(client, "/models/digits")
    answer = client.post("/models/digits/acts/check", data={"form": form, "reason": "x" * 70_000, "by": "Eve"})
    assert answer.status_code == 413


def test_names_of_elsewhere_are_not_answered(client: httpx.Client) -> None:
    # A page elsewhere whose name is made to mean 127.0.0.1 must not read this one.
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_people_come_in_by_tokens_and_may_what_their_role_says(story: Storied, tmp_path: Path) -> None:
    mine = web_world.copied(story, tmp_path)
    (looker, one), (boss, two) = new_token("view", "lea"), new_token("approve", "bo@example.org")
    with page(mine.workspace, WebSettings(tokens=f"{one},{two}"), host="0.0.0.0") as client:
        asked = client.get("/models/digits")
        assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=/models/digits")
        assert client.get("/events").status_code == 401
        wrong = client.post("/sign-in", data={"form": form_of(client, "/sign-in"), "token": "guess"})
        assert (wrong.status_code, "not known" in wrong.text) == (403, True)
        _sign_in(client, looker)
        eventually_shown(client, "/", "digits")
        assert "lea (view)" in client.get("/").text
        refused = client.post("/models/digits/acts/check", data={"form": form_of(client, "/"), "reason": "why"})
        assert refused.status_code == 403
        assert "this needs a token of the role approve" in refused.text
        client.post("/sign-out", data={"form": form_of(client, "/")})
        assert client.get("/").status_code == 303
        # The author is the token's, whatever the form says.
        _sign_in(client, boss)
        form = form_of(client, "/models/digits")
        client.post("/models/digits/acts/check", data={"form": form, "reason": "to see", "by": "Eve"})
        (act,) = mine.workspace.ledger("digits").acts()
        assert (act["by"], act["reason"], act["done"]) == ("bo@example.org", "to see", False)
        assert "Prefect" in act["told"]


def _sign_in(client: httpx.Client, token: str) -> None:
    answer = client.post(
        "/sign-in", data={"form": form_of(client, "/sign-in"), "token": token, "next": "//evil.example/"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_a_session_ends(story: Storied) -> None:
    token, entry = new_token("approve", "bo")
    with page(story.workspace, WebSettings(tokens=entry, session_hours=2 / 3600)) as client:
        _sign_in(client, token)
        form = form_of(client, "/")
        time.sleep(3.1)
        answer = client.post("/models/digits/acts/check", data={"form": form, "reason": "late"})
        assert answer.status_code == 401
        assert "your session has ended: nothing was changed" in answer.text
        assert client.get("/").status_code == 303
    assert story.workspace.ledger("digits").acts() == []


def test_who_asks_too_often_is_slowed_down(story: Storied) -> None:
    with page(story.workspace, WebSettings(tokens=new_token("view", "x")[1], acts_a_minute=3)) as client:
        form = form_of(client, "/sign-in")
        codes = [client.post("/sign-in", data={"form": form, "token": str(n)}).status_code for n in range(5)]
    assert codes == [403, 403, 403, 429, 429]


@pytest.mark.process
def test_an_empty_home_says_what_to_do_first(tmp_path: Path) -> None:
    workspace = Workspace(web_world.fresh_settings(tmp_path))
    with page(workspace) as client:
        eventually_shown(client, "/", "No model is defined yet")
        small_model.define(workspace)
        eventually_shown(client, "/", "it has no champion yet")
        text = client.get("/models/digits").text
        assert "perennial ingest digits HISTORY.parquet --history" in text
        assert "perennial retrain digits" in text
        for path in ("checks", "versions", "quarantine", "backtest"):
            assert client.get(f"/models/digits/{path}").status_code == 200, path


@pytest.mark.process
def test_a_broken_definition_hides_no_other_model(tmp_path: Path) -> None:
    workspace = Workspace(web_world.fresh_settings(tmp_path))
    small_model.define(workspace)
    (workspace.settings.model_folders[0] / "broken.yaml").write_text("name: broken\ntaks: x\n")
    with page(workspace) as client:
        text = eventually_shown(client, "/", "digits")
        assert text.index("broken") < text.index(">digits<")  # it needs a person most
        assert "Did you mean task?" in text


def test_what_happens_arrives_as_an_event(story: Storied, tmp_path: Path) -> None:
    mine = web_world.copied(story, tmp_path)
    with page(mine.workspace) as client:
        eventually_shown(client, "/", "digits")
        with client.stream("GET", "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: hello"
            made = web_world.check(mine.workspace, mine.definition, day(web_world.LAST) + timedelta(hours=3))
            assert next(line for line in lines if line.startswith("event:")) == "event: changed"
        assert made.decision_id in client.get("/models/digits").text


def test_a_report_is_shown_without_any_rights(story: Storied, tmp_path: Path) -> None:
    mine = web_world.copied(story, tmp_path)
    folder = mine.workspace.reports_folder("digits")
    decision = story.decisions[-1]
    name = f"{decision.as_of:%Y%m%dT%H%M%S}-{decision.decision_id[:8]}.html"
    (folder / name).write_text(f"<p>report</p>{HOSTILE}")
    with page(mine.workspace) as client:
        eventually_shown(client, "/", "digits")
        assert f"/reports/{name}" in client.get(f"/models/digits/decisions/{decision.decision_id}").text
        policy = client.get(f"/models/digits/reports/{name}").headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts;")
        assert "allow-same-origin" not in policy
        assert client.get("/models/digits/reports/.hidden.html").status_code == 404
