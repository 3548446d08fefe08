"""Examples of what moved: found in the rows, kept beside the report, shown as plain text and small pictures."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_model
from described_world import described, picture
from PIL import Image
from small_model import World, day
from web_world import page

from perennial.workspace import Workspace
from tasks.check.decision import Decision
from tasks.check.text import render_text
from tasks.steps import monitor
from tasks.steps.monitor import champion_reference, record_decision, run_check
from tasks.steps.report import write_report
from tasks.steps.score import load_version, score_unscored
from tasks.steps.shown.examples import (
    excerpt,
    find_examples,
    lines,
    read_examples,
    render_html,
    render_markdown,
    write_examples,
)

pytestmark = pytest.mark.slow
HOSTILE = '<script>alert("x")</script> `code` | [a](javascript:alert(1))\n\x1b[31mred \u202egnissorc'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> World:
    """A champion that reads comments and pictures; since then pictures are brighter and comments are hostile."""
    workspace = make_workspace(tmp_path_factory.mktemp("examples"))
    features = {"text": ["comment"], "image": ["photo"]}
    definition = small_model.define(workspace, features=features, monitoring={"window": "6d"})
    small_model.add(workspace, definition, described(small_model.rows(0, 10)), as_of=day(10), history=True)
    trained = small_model.retrain(workspace, definition, as_of=day(10))
    later = described(small_model.rows(10, 13), level=220.0, seed=5_000)
    later["comment"] = later["comment"].str[:10].where(np.arange(len(later)) % 2 == 0, HOSTILE)
    small_model.add(workspace, definition, later, as_of=day(13))
    pipeline = load_version(workspace.registry, trained.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(13))
    return World(workspace, definition, trained)


@pytest.fixture(scope="module")
def decision(world: World) -> Decision:
    decision = run_check(world.workspace, world.definition, as_of=day(13))
    record_decision(world.workspace, decision)
    return decision


def test_the_brightness_of_every_picture_jumps_and_three_of_them_are_shown(world: World, decision: Decision) -> None:
    moved = {item["feature"]: item for item in decision.evidence["moved"]}
    assert moved["photo"]["told"].startswith("the pictures of photo have become brighter: 1")
    found = write_examples(world.workspace, world.definition, decision)
    (photo,) = [item for item in found if item.feature == "photo"]
    grey = {}
    for when, values in (("before", photo.before), ("now", photo.now)):
        assert len(values) == 3
        opened = [Image.open(io.BytesIO(base64.b64decode(value.picture))) for value in values]
        assert all(max(image.size) <= 96 for image in opened)
        grey[when] = np.mean([np.asarray(image.convert("L")).mean() for image in opened])
    assert grey["before"] == pytest.approx(120, abs=6)
    assert grey["now"] == pytest.approx(218, abs=6)
    assert all(value.row.startswith("r0") for value in photo.now)
    (kept,) = world.workspace.reports_folder("digits").glob("*.examples.json")
    assert read_examples(kept) == found == write_examples(world.workspace, world.definition, decision)
    assert "alert(" not in json.dumps(decision.to_dict())  # what rows hold goes when the reports go


def test_hostile_texts_stay_texts(world: World, decision: Decision) -> None:
    found = write_examples(world.workspace, world.definition, decision)
    (comment,) = [item for item in found if item.feature == "comment"]
    assert len(comment.before) == len(comment.now) == 3
    told = render_text(decision, lines(found))
    assert "Examples of what moved" in told
    assert "\x1b" not in told
    assert "\u202e" not in told
    markdown = render_markdown([replace(comment, now=(replace(comment.now[0], text=excerpt(HOSTILE)),))])
    assert all(line.startswith("    ") for line in markdown.splitlines() if "script" in line)
    html = render_html([replace(comment, told=HOSTILE, now=(replace(comment.now[0], text=HOSTILE, row=HOSTILE),))])
    assert "<script" not in html
    assert "&lt;script" in html
    assert excerpt("a" * 5_000) == "a" * 199 + "…"
    assert excerpt("two\nlines\ud800") == "two lines"


def test_the_page_shows_them(world: World, decision: Decision) -> None:
    found = write_examples(world.workspace, world.definition, decision)
    number = next(place for place, item in enumerate(found) if item.feature == "photo")
    path = f"/models/digits/decisions/{decision.decision_id}"
    with page(world.workspace) as client:
        text = client.get(path).raise_for_status().text
        assert "Examples of what moved" in text
        assert "The pictures of photo have become brighter" in text
        assert "<script>alert" not in text
        answer = client.get(f"{path}/examples/{number}/now/0").raise_for_status()
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content == base64.b64decode(found[number].now[0].picture)
        for wrong in (f"{number}/now/9", f"{number}/then/0", "99/now/0", f"{1 - number}/now/0"):
            assert client.get(f"{path}/examples/{wrong}").status_code == 404
        column = client.get("/models/digits/columns/photo%3A%20brightness").raise_for_status().text
        assert "photo: brightness" in column


def test_the_report_shows_them_below_what_moved(world: World, decision: Decision) -> None:
    write_examples(world.workspace, world.definition, decision)
    path = write_report(world.workspace, world.definition, decision)
    assert path is not None
    text = Path(path).read_text(encoding="utf-8")
    places = [text.index(f"<h2>{heading}") for heading in ("Examples of what moved", "Quality", "Distributions")]
    assert text.index("<h1>") < places[0] < places[1] < places[2] < text.index('id="root_metric')
    assert "data:image/jpeg;base64," in text
    assert HOSTILE not in text


def test_what_is_redacted_is_not_shown(world: World, decision: Decision) -> None:
    serving = world.definition.serving.model_copy(update={"redact": ("comment", "photo")})
    hidden = world.definition.model_copy(update={"serving": serving})
    found = find_examples(world.workspace, hidden, decision)
    assert [(item.before, item.now, item.hidden) for item in found] == [((), (), "its values are redacted")] * 2


def test_a_check_without_movement_keeps_nothing(world: World, decision: Decision) -> None:
    still = replace(decision, evidence={**decision.evidence, "moved": []}, decision_id="0" * 36)
    assert write_examples(world.workspace, world.definition, still) == ()


def test_a_failure_costs_the_examples_and_not_the_check(
    world: World, decision: Decision, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_given: object, **_named: object) -> None:
        raise RuntimeError("no rows")

    monkeypatch.setattr("tasks.steps.shown.examples.window_rows", fail)
    assert write_examples(world.workspace, world.definition, replace(decision, decision_id="1" * 36)) == ()
    assert "no examples for decision 1111" in caplog.text


def test_images_are_described_a_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = champion_reference(world.workspace.registry, world.training.version)
    span = {"start": day(10), "as_of": day(13)}
    whole = monitor.read_window(world.workspace.store, world.definition, reference, **span)
    monkeypatch.setattr(monitor, "PICTURED_ROWS", 20)
    parts = monitor.read_window(world.workspace.store, world.definition, reference, **span)
    assert isinstance(whole, pd.DataFrame)
    assert isinstance(parts, pd.DataFrame)
    assert "photo" not in parts
    pd.testing.assert_frame_equal(
        *(frame.sort_values("_time", ignore_index=True) for frame in (whole, parts)), check_like=True
    )


def test_a_broken_picture_kills_no_check(world: World, tmp_path: Path) -> None:
    """Not even where the champion has to answer rows that another model answered."""
    rows = described(small_model.rows(13, 14), seed=9_000)
    rows.loc[rows.index[:3], "photo"] = pd.Series([b"broken", picture(1)[:60], b""], index=rows.index[:3], dtype=object)
    small_model.add(world.workspace, world.definition, rows, as_of=day(14))
    logged = pd.DataFrame({"id": rows["row"], "time": rows["when"], "score": 0.5, "raw_score": 0.5, "version": 7})
    champion = world.training.version
    answers = monitor.champion_answers(world.workspace, world.definition, champion, logged, as_of=day(14))
    assert (answers["version"] == champion.number).all()
    decision = run_check(world.workspace, world.definition, as_of=day(14))
    column = decision.evidence["window"]["columns"]["photo: unreadable"]
    assert column[1] == pytest.approx(3 / decision.evidence["rows"], abs=1e-4)
