"""Reviews over the API: asked, answered, refused by name, and on their way to the labels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from serving_world import LocalClient, copy_home, definition_of, records, rows_of

from perennial.review.events import Offer, read_reviews, write_events
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens, new_token
from perennial.serving.web.app import Api
from perennial.workspace import Workspace

FEATURES = ("a", "b", "empty", "colour", "code")
PATH = "/models/colours/reviews"


def offer(home: Workspace, name: str, wanted: int = 1) -> Offer:
    now = datetime.now(UTC)
    times = {row["id"]: row["time"] for row in home.store.read("colours", "predictions").to_pylist()}
    return Offer(
        name, now, "margin", 1.0, 0.1, False, wanted, now + timedelta(days=3), times[name], 0.4, 1, predicted="0"
    )


@pytest.fixture(scope="module")
def home(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A home whose model asks for reviews, with four predictions put up; two people are wanted for the last."""
    workspace = copy_home(world, tmp_path_factory.mktemp("api") / "home")
    path = workspace.settings.model_folders[0] / "colours.yaml"
    path.write_text(yaml.safe_dump(definition_of(review={"per_day": 5})), encoding="utf-8")
    return workspace


@pytest.fixture(scope="module")
def client(home: Workspace) -> Iterator[LocalClient]:
    with LocalClient(Api(Service(home, ServingSettings(ship_seconds=0.2)), Tokens(""))) as client:
        frame = rows_of(4, 5)
        body = {"dataframe_records": records(frame, *FEATURES), "ids": ["r0", "r1", "r2", "r3"]}
        assert client.post("/models/colours/invocations", json=body).status_code == 200
        until(lambda: home.store.count("colours", "predictions") == 4)
        write_events(home.store, "colours", [*(offer(home, f"r{n}") for n in range(3)), offer(home, "r3", 2)])
        yield client


def until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def labels(home: Workspace, name: str) -> list[tuple[str, float | None]]:
    rows = home.store.read("colours", "labels").sort_by("labelled_at").to_pylist()
    return [(row["author"], row["truth"]) for row in rows if row["id"] == name]


def test_a_person_is_asked_with_the_rows_that_were_sent(client: LocalClient) -> None:
    answer = client.get(PATH, params={"author": "anna", "limit": 100})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["waiting"] == 4
    item = next(item for item in body["items"] if item["id"] == "r1")
    sent = records(rows_of(4, 5), *FEATURES)[1]
    assert {name: value for name, value in item["features"].items() if value is not None} == {
        name: value for name, value in sent.items() if value is not None
    }
    assert (item["score"], item["choices"], item["again"]) == (0.4, ["0", "1"], False)
    assert set(item) == {"id", "time", "features", "score", "predicted", "choices", "again", "expires_at"}
    assert len(client.get(PATH, params={"author": "anna", "limit": 2}).json()["items"]) == 2


def test_an_answer_becomes_a_label_and_is_not_asked_again(client: LocalClient, home: Workspace) -> None:
    told = {"id": "r0", "author": "anna", "truth": 1, "seconds": 2.5, "note": "clear"}
    assert client.post(PATH, json=told).json() == {"model": "colours", "written": 1, "unchanged": 0, "labels": 1}
    assert client.post(PATH, json=told).json()["unchanged"] == 1
    until(lambda: labels(home, "r0") == [("anna", 1.0)])
    waiting = {item["id"] for item in client.get(PATH, params={"author": "ben", "limit": 100}).json()["items"]}
    assert waiting == {"r1", "r2", "r3"}
    assert client.post(PATH, json={"id": "r0", "author": "anna", "undo": True}).json()["labels"] == 1
    until(lambda: labels(home, "r0") == [("anna", 1.0), ("anna", None)])
    (said, undone) = read_reviews(home.store, "colours").answers["r0"]
    assert (said.seconds, said.note, undone.says) == (2.5, "clear", "undo")


def test_two_people_are_needed_and_a_dispute_has_no_label(client: LocalClient, home: Workspace) -> None:
    assert client.post(PATH, json=[{"id": "r3", "author": "anna", "truth": "1"}]).json()["labels"] == 0
    assert client.post(PATH, json=[{"id": "r3", "author": "ben", "truth": "0"}]).json()["labels"] == 0
    again = client.get(PATH, params={"author": "anna"}).json()["items"][0]
    assert (again["id"], again["again"]) == ("r3", True)
    assert client.post(PATH, json=[{"id": "r3", "author": "cleo", "truth": "0"}]).json()["labels"] == 2
    until(lambda: labels(home, "r3") == [("ben", 0.0), ("cleo", 0.0)])


def test_skip_and_that_it_cannot_be_told_are_answers(client: LocalClient) -> None:
    answers = [{"id": "r1", "author": "anna", "skip": True}, {"id": "r2", "author": "anna", "cannot_tell": True}]
    assert client.post(PATH, json={"answers": answers}).json() == {
        "model": "colours", "written": 2, "unchanged": 0, "labels": 0,
    }  # fmt: skip
    assert {item["id"] for item in client.get(PATH, params={"author": "dora"}).json()["items"]} >= {"r1"}


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"id": "r1", "author": "anna", "truth": "maybe"}, 422, "y: 'maybe' is neither '0' nor '1'"),
        ([{"id": "r1", "author": "a", "truth": 1}, {"id": "r1", "author": "a"}], 422, "answer 1 (counted from 0)"),
        ({"id": "r1", "truth": 1}, 422, "has no author"),
        ({"id": "r9", "author": "anna", "truth": 1}, 404, "'r9' was never put up for review in colours"),
        ({"id": "r1", "author": "anna", "label": 1}, 422, "has 'label', which nobody reads"),
        ({"answers": [], "author": "anna"}, 422, "has 'author', which nobody reads"),
        ({"answers": []}, 400, "there is no answer in the body"),
        ([{"id": "r1"}] * 501, 413, "501 answers are more than 500"),
    ],
)
def test_what_is_no_answer_is_refused_whole(
    client: LocalClient, home: Workspace, body: Any, status: int, problem: str
) -> None:
    before = home.store.count("colours", "reviews")
    answer = client.post(PATH, json=body)
    assert (answer.status_code, problem in answer.json()["error"]) == (status, True), answer.text
    assert home.store.count("colours", "reviews") == before


def test_who_asks_must_say_so_and_a_model_without_reviews_has_none(client: LocalClient) -> None:
    assert "say who asks" in client.get(PATH).json()["error"]
    assert "limit is not from 1 to 100" in client.get(PATH, params={"author": "a", "limit": "-1"}).json()["error"]
    assert client.get(PATH, params={"author": "a", "who": "b"}).status_code == 422
    none = client.get("/models/numbers/reviews", params={"author": "anna"})
    assert (none.status_code, none.json()["error"]) == (404, "numbers has no reviews")
    assert client.post("/models/numbers/reviews", json={"id": "r", "author": "a", "truth": 1}).status_code == 404


def test_the_document_has_them_only_where_they_are(client: LocalClient) -> None:
    document = client.get("/openapi.json").json()
    assert "/models/numbers/reviews" not in document["paths"]
    operation = document["paths"][PATH]
    asked = operation["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(client.get(PATH, params={"author": "dora"}).json(), asked)
    body = operation["post"]["requestBody"]["content"]["application/json"]
    jsonschema.validate(body["example"], body["schema"])


def test_a_token_of_another_scope_is_not_for_it(home: Workspace) -> None:
    token, digest = new_token()
    with LocalClient(Api(Service(home, ServingSettings()), Tokens(f"predict:{digest}"))) as client:
        headers = {"authorization": f"Bearer {token}"}
        assert client.get(PATH, params={"author": "anna"}, headers=headers).status_code == 403
        assert client.get(PATH, params={"author": "anna"}).status_code == 401


def test_tables_that_are_away_are_said_to_be(client: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.errors import StorageError
    from perennial.review import events

    def fail(*_: Any, **__: Any) -> None:
        raise StorageError("the storage does not answer")

    monkeypatch.setattr(events, "read_reviews", fail)
    answer = client.get(PATH, params={"author": "anna"})
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "10"
    assert "the storage does not answer" in answer.json()["error"]
