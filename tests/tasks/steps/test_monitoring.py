"""A check of a moment sees what was known then, whenever it is asked; and its report may fail alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_model import World, add, day, rows

from perennial.errors import DataError, NotFoundError
from tasks.rows.frames import labelled_rows, require_known_rows
from tasks.steps import report as reports
from tasks.steps.monitor import (
    champion_answers,
    check_rows,
    count_labelled,
    freshness,
    gather_inputs,
    open_decisions,
    record_decision,
    run_check,
)
from tasks.steps.score import predictions_between


def test_a_check_of_the_past_stays_the_same(trained: World, make_workspace: Any, tmp_path: Path) -> None:
    """Rows, truth, corrections and predictions that come later change nothing about it."""
    import shutil

    world = trained.workspace
    shutil.copytree(world.home / "tables", tmp_path / "home" / "tables")
    shutil.copytree(world.settings.models, tmp_path / "models")
    shutil.copytree(world.settings.expectations, tmp_path / "expectations")
    copy = replace(world, settings=world.settings.model_copy(update={"tables": str(tmp_path / "home" / "tables")}))
    before = run_check(copy, trained.definition, as_of=day(13))
    assert run_check(copy, trained.definition, as_of=day(13)) == before
    assert before.champion_version == "1"
    assert record_decision(copy, before)
    assert not record_decision(copy, before)
    add(copy, trained.definition, rows(11, 20), as_of=day(20))
    labels = rows(0, 9)[["row", "even"]].assign(even=lambda frame: 1 - frame["even"])
    from tasks.rows.labels import label_frame

    label_frame(copy.store, trained.definition, labels, as_of=day(20), author="late")
    again = run_check(copy, trained.definition, as_of=day(13))
    assert again.to_dict() == before.to_dict()
    assert run_check(copy, trained.definition, as_of=day(20)).decision_id != before.decision_id


def test_what_a_check_reads(trained: World) -> None:
    world, definition = trained.workspace, trained.definition
    inputs = gather_inputs(world, definition, trained.training.version, as_of=day(13))
    assert len(inputs.window) == len(rows(10, 13))
    assert len(inputs.predictions) == len(rows(10, 13))
    assert inputs.labelled_rows == len(trained.training.prepared.frame)
    assert inputs.freshness.latest_event == rows(10, 13)["when"].max()
    assert inputs.freshness.future_rows == 0
    assert [row["kind"] for row in inputs.ledger] == ["outcome"]
    assert len(world.store.read("digits", "predictions")) == len(rows(10, 13))
    assert len(predictions_between(world.store, "digits", start=day(11), end=day(12), known_at=day(13))) == 72
    assert len(predictions_between(world.store, "digits", start=day(11), end=day(12), known_at=day(12.9))) == 0


@pytest.mark.parametrize(("minimum_rows", "first"), [(30, 12), (40, 11), (90, 10), (1000, 10)])
def test_where_windows_have_few_rows_older_ones_are_read_too(trained: World, minimum_rows: int, first: int) -> None:
    """A window has 72 rows, half of which must have their truth; predictions began on day 10."""
    definition = trained.definition
    daily = definition.monitoring.model_copy(update={"window": timedelta(days=6), "minimum_rows": minimum_rows})
    definition = definition.model_copy(update={"monitoring": daily})
    inputs = gather_inputs(trained.workspace, definition, trained.training.version, as_of=day(14))
    assert len(rows(12, 13)) == 72
    assert sorted(inputs.mature["id"]) == sorted(rows(first, 13)["row"].astype("str"))


def test_a_new_champion_answers_for_rows_that_it_has_not_learned_from(trained: World) -> None:
    """So that it need not wait for labels of its own predictions; what it has learned from stays as it was logged."""
    world, definition, version = trained.workspace, trained.definition, trained.training.version
    logged = predictions_between(world.store, "digits", start=day(10), end=day(13), known_at=day(13))
    assert champion_answers(world, definition, version, logged, as_of=day(13)) is logged
    foreign = logged.assign(version=99, score=0.25, raw_score=0.25)
    foreign.loc[0, "time"] = day(1)
    answers = champion_answers(world, definition, version, foreign, as_of=day(13))
    assert (answers["score"][0], answers["version"][0]) == (0.25, 99)
    assert set(answers["version"][1:]) == {version.number}
    np.testing.assert_allclose(answers["score"][1:], logged["score"][1:], atol=1e-9)
    assert answers["id"].equals(logged["id"])


def test_what_an_estimate_reads(trained: World) -> None:
    """What the champion was judged on is kept with it, and scored by the model that had not seen it."""
    world, definition = trained.workspace, trained.definition
    inputs = gather_inputs(world, definition, trained.training.version, as_of=day(13))
    held = trained.training.judged
    assert inputs.holdout is not None
    assert 50 < len(inputs.holdout) <= len(held.truth)
    assert set(inputs.holdout["_score"]) <= set(held.challenger)
    assert set(inputs.holdout["_truth"]) == {0, 1}
    assert inputs.mature_features is None  # a class needs none
    assert inputs.past is None  # no check has left an estimate yet
    told = run_check(world, definition, as_of=day(13)).evidence["estimate"]
    assert told["method"] == "CBPE"
    assert told["rows"] == len(rows(10, 13))


def test_the_references_side_is_computed_once_for_a_champion(trained: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = run_check(trained.workspace, trained.definition, as_of=day(13))

    def fail(*_arguments: Any, **_named: Any) -> None:
        raise AssertionError("a check has no business with the training rows")

    for name in ("build_reference", "profile", "measure_null"):
        monkeypatch.setattr(f"tasks.check.reference.{name}", fail)
    assert run_check(trained.workspace, trained.definition, as_of=day(13)) == wanted


def test_no_champion_at_that_moment(trained: World) -> None:
    told = (
        r"at 2024-02-24 00:00 digits had no champion: its first, version 1, reigns since .*`perennial backtest digits`"
    )
    with pytest.raises(NotFoundError, match=told):
        run_check(trained.workspace, trained.definition, as_of=day(9))


def test_a_past_that_was_ingested_later_is_no_empty_feed(workspace: Any) -> None:
    from small_model import define

    definition = define(workspace)
    require_known_rows(workspace.store, "digits", as_of=day(1))
    add(workspace, definition, rows(0, 2), as_of=day(5))
    told = r"none of the 72 rows of digits from before then was known: they were ingested from 2024-01-31 00:00 on"
    with pytest.raises(DataError, match=told):
        labelled_rows(workspace.store, definition, as_of=day(1))
    require_known_rows(workspace.store, "digits", as_of=day(5))


def test_a_rolling_export_says_nothing_and_a_stuck_feed_does(workspace: Any) -> None:
    from small_model import define

    definition = define(workspace)
    for number in range(1, 5):
        add(workspace, definition, rows(number / 4, number + 0.0), as_of=day(number))

    def duplicates(at: float) -> tuple[int, int]:
        found = freshness(workspace.store, "digits", start=day(at - 3), as_of=day(at))
        return found.duplicate_batches, found.duplicate_rows

    assert duplicates(4) == (0, 0)
    add(workspace, definition, rows(1, 4).iloc[::-1], as_of=day(4.5))  # a file twice, in another order
    assert duplicates(5) == (0, 0)
    add(workspace, definition, rows(1, 4).iloc[1:], as_of=day(6.5))
    assert duplicates(6.6) == (2, 2 * 216 - 1)
    add(workspace, definition, rows(3, 5), as_of=day(7))
    assert duplicates(7) == (0, 0)


def test_labelled_rows_are_counted_as_a_training_would(trained: World) -> None:
    store = trained.workspace.store

    found = count_labelled(store, trained.definition, trained.training.version, as_of=day(5))
    assert found == len(rows(0, 4)) + 1


def test_freshness(workspace: Any) -> None:
    from small_model import define

    definition = define(workspace)
    nothing = freshness(workspace.store, "digits", start=day(0), as_of=day(1))
    assert (nothing.latest_event, nothing.future_rows, nothing.duplicate_batches) == (None, 0, 0)
    add(workspace, definition, rows(0, 1), as_of=day(1))
    add(workspace, definition, rows(0.1, 1.01), as_of=day(1))
    add(workspace, definition, rows(5, 5.5), as_of=day(1.1))
    found = freshness(workspace.store, "digits", start=day(0), as_of=day(1.2))
    assert found.latest_event == rows(5, 5.5)["when"].max()
    assert found.future_rows == 36
    assert (found.duplicate_batches, found.duplicate_rows) == (0, 0)
    then = freshness(workspace.store, "digits", start=day(0), as_of=day(1))
    assert then.future_rows == 1  # the one of day 1 itself
    assert then.latest_event == rows(0, 1.01)["when"].max()


def test_open_decisions(trained: World, tmp_path: Path) -> None:
    settings = trained.workspace.settings.model_copy(update={"tables": str(tmp_path)})
    copy = replace(trained.workspace, settings=settings)
    ledger = copy.ledger("digits")

    def decide(name: str, at: float, verdict: str = "retrain") -> None:
        body = {"decision_id": name, "as_of": day(at).isoformat(), "verdict": verdict}
        ledger.record(body, recorded_at=day(at))

    def unclaimed(at: float) -> list[str]:
        found = open_decisions(copy, "digits", as_of=day(at), is_alive=lambda run: run != "dead")
        return [entry["decision_id"] for entry in found]

    assert unclaimed(20) == []
    decide("a", 14)
    decide("b", 15, "hold")
    assert unclaimed(13) == []
    assert unclaimed(15) == ["a"]
    decide("c", 16, "repair")
    assert unclaimed(16) == ["a"]
    decide("d", 17)
    assert unclaimed(17) == ["d"]
    ledger.claim("d", "dead", as_of=day(17), recorded_at=day(17), is_alive=lambda _: True)
    assert unclaimed(17) == ["d"], "its run died"
    ledger.claim("d", "run", as_of=day(17), recorded_at=day(17), is_alive=lambda run: run != "dead")
    assert unclaimed(18) == []
    decide("e", 18)
    assert unclaimed(18) == ["e"]
    copy.registry.promote(
        trained.training.version,
        action="promote",
        at=day(18) + timedelta(hours=1),
        recorded_at=day(18),
        by="x",
        reason="y",
    )
    assert unclaimed(19) == []


def test_a_decision_is_open_although_its_check_ended_a_probation_first(trained: World, tmp_path: Path) -> None:
    for by, expected in (("probation", ["a"]), ("Ada", [])):
        settings = trained.workspace.settings.model_copy(update={"tables": str(tmp_path / by)})
        copy = replace(trained.workspace, settings=settings)
        body = {"decision_id": "a", "as_of": day(18).isoformat(), "verdict": "retrain"}
        copy.ledger("digits").record(body, recorded_at=day(18))
        copy.registry.promote(
            trained.training.version, action="rollback", at=day(18), recorded_at=day(18), by=by, reason="it is worse"
        )
        found = open_decisions(copy, "digits", as_of=day(18), is_alive=lambda _: True)
        assert [entry["decision_id"] for entry in found] == expected


# --- the report ---


@pytest.fixture
def no_report(trained: World) -> Iterator[World]:
    yield trained
    for path in trained.workspace.reports_folder("digits").iterdir():
        path.unlink()


def test_the_report_is_made_once(no_report: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, definition = no_report.workspace, no_report.definition
    decision = run_check(world, definition, as_of=day(13))
    path = reports.write_report(world, definition, decision)
    assert path
    html, told = Path(path), json.loads(Path(path).with_suffix(".json").read_text())
    assert html.name == f"20240319T000000-{decision.decision_id[:8]}.html"
    assert "<html" in html.read_text()[:2000].lower()
    assert any("ink_00" in json.dumps(metric) for metric in told["metrics"])
    monkeypatch.setattr(reports, "render", None)
    assert reports.write_report(world, definition, decision) == path
    sample = check_rows(world, definition, as_of=day(13), limit=100)
    assert len(sample) == 100
    assert np.isfinite(sample["score"]).all()


def test_a_failing_report_fails_alone(
    no_report: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decision = run_check(no_report.workspace, no_report.definition, as_of=day(13))

    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError("of a library")

    monkeypatch.setattr(reports, "render", fail)
    assert reports.write_report(no_report.workspace, no_report.definition, decision) is None
    assert f"no report for decision {decision.decision_id}: ZeroDivisionError: of a library" in caplog.text
    assert list(no_report.workspace.reports_folder("digits").iterdir()) == []
    gone = replace(decision, champion_version="77")
    assert reports.write_report(no_report.workspace, no_report.definition, gone) is None
