"""The story told from the tables: what counts, what is compared, a page that needs no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import small_model

from perennial.workspace import Workspace
from tasks.rows.labels import label_frame
from tasks.steps.monitor import record_decision, run_check
from tasks.steps.score import load_version, require_champion, score_unscored
from tasks.steps.timeline import Timeline, build_timeline, draw_timeline, picture_bytes, render_page


@pytest.fixture(scope="module")
def story(make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    workspace = make_workspace(tmp_path_factory.mktemp("story"))
    definition = small_model.define(workspace)
    small_model.add(workspace, definition, small_model.rows(0, 12), as_of=small_model.day(12), history=True)
    small_model.retrain(workspace, definition, as_of=small_model.day(12))
    for end in (15, 18, 21):
        at = small_model.day(end)
        champion = require_champion(workspace.registry, "digits")
        fresh = small_model.rows(end - 3, end)
        small_model.add(workspace, definition, fresh.drop(columns="even"), as_of=at)
        pipeline = load_version(workspace.registry, champion, definition)
        score_unscored(workspace.store, definition, pipeline, version=champion.number, as_of=at)
        label_frame(
            workspace.store, definition, fresh[fresh["when"] < small_model.day(end - 1)], as_of=at, author="test"
        )
        record_decision(workspace, run_check(workspace, definition, as_of=at))
    return build_timeline(workspace, definition, as_of=small_model.day(21))


def test_periods_and_totals(story: Timeline) -> None:
    assert [period.end for period in story.periods] == [small_model.day(end) for end in (15, 18, 21)]
    assert [period.rows for period in story.periods] == [216, 216, 216]
    assert [period.labelled for period in story.periods] == [144, 144, 144]
    assert sum(story.count(verdict) for verdict in ("hold", "recalibrate", "retrain", "repair")) == 3
    # No other champion answered, so what a never-retrained one would have said is what was said.
    assert story.live == pytest.approx(story.first)


def test_page_and_picture_stand_alone(story: Timeline) -> None:
    picture = picture_bytes(draw_timeline(story))
    assert picture.startswith(b"\x89PNG")
    page = render_page(story, picture)
    assert page.count("<tr>") == 4
    assert not re.search(r'(src|href)="(?!data:)', page)
