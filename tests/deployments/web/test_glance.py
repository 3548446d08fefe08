"""Tests of a model at a glance: what is read of a ledger, what waits for a person, and who comes first."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.web.known.glance import Glance, next_run, read_points, urgency, waiting_for
from deployments.web.known.reading import stands_for
from perennial.state.registry import Reign
from tasks.check.history import acceptance_row, outcome_row, rollback_row

START = datetime(2024, 1, 1, tzinfo=UTC)


def decision(number: int, verdict: str = "hold", loss: float = 0.5, **evidence: Any) -> tuple[str, str]:
    body = {
        "decision_id": f"d{number}", "as_of": (START + timedelta(days=number)).isoformat(), "verdict": verdict,
        "champion_version": "3", "reasons": ["because", "and"], "unknown": {"to": "pages"},
        "signals": [
            {"name": "drift", "kind": "drift", "value": 1.5, "threshold": 1.0, "fired": True, "persistent": False,
             "detail": "moved", "threshold_source": "x"},
            {"name": "missing wind", "kind": "health", "value": 0.9, "threshold": 0.1, "fired": verdict == "repair",
             "persistent": True, "detail": "gone", "threshold_source": "x"},
        ],
        "evidence": {
            "rows": 10, "coverage": 0.8, "mature_predictions": 9, "judged": True, "window": {"columns": {}},
            "loss": {"name": "brier", "mean": loss, "interval": [0.4, None], "at_promotion": 0.4, "rows": 9},
            **evidence,
        },
    }  # fmt: skip
    return "decision", json.dumps(body)


def test_points_are_in_order_and_know_what_came_of_them() -> None:
    rows = [
        decision(2, "retrain"),
        decision(1, "repair"),
        ("claim", json.dumps({"attempt": 1})),
        ("outcome", json.dumps(outcome_row("d2", START, "wait", gain=None, champion_loss=None, trained_rows=5))),
        ("settlement", json.dumps({"kind": "settlement", "decision_id": "d2", "gate_verdict": "promote"})),
        ("acceptance", json.dumps(acceptance_row("d1", START, by="Ada", reason="it moved"))),
        ("act", json.dumps({"act": "check"})),
    ]
    points, loss = read_points(rows)
    assert loss == "brier"
    assert [(point.decision_id, point.outcome, point.accepted) for point in points] == [
        ("d1", "", True),
        ("d2", "promote", False),
    ]
    assert points[0].complaints == ("missing wind",)
    assert (points[1].loss, points[1].low, points[1].high, points[1].drift) == (0.5, 0.4, None, 1.5)


def test_a_rollback_is_what_came_of_a_decision_in_the_end() -> None:
    rows = [
        decision(1, "retrain"),
        ("outcome", json.dumps(outcome_row("d1", START, "promote", gain=0.1, champion_loss=0.5, trained_rows=5))),
        ("rollback", json.dumps(rollback_row("d1", START, version=4, former=3, reason="worse"))),
    ]
    assert read_points(rows)[0][0].outcome == "rolled back"


def test_a_check_that_could_not_judge_has_no_loss() -> None:
    rows = [decision(1, loss=0.5, loss_={"x": 1}, mature_predictions=0)]
    (point,), _ = read_points(rows)
    assert point.coverage is None
    bare = ("decision", json.dumps({"decision_id": "x", "as_of": START.isoformat(), "verdict": "hold",
                                    "champion_version": "1"}))  # fmt: skip
    (point,), name = read_points([bare])
    assert (point.loss, point.drift, point.reason, name) == (None, None, "", "")


def glance(name: str, *rows: tuple[str, str], quarantined: int = 0, problem: str = "") -> Glance:
    points, loss = read_points(rows)
    reign = Reign(1, 3, None, "promote", START, START, "gate", "better", None)
    return Glance(name, reigns=(reign,), points=points, loss=loss, quarantined=quarantined, problem=problem)


def test_what_waits_for_a_person() -> None:
    assert waiting_for(glance("m", decision(1)), []) == []
    assert [item.kind for item in waiting_for(glance("m", decision(1, "repair"), quarantined=2), [{"version": 7}])] == [
        "repair",
        "approval",
        "quarantine",
    ]
    accepted = ("acceptance", json.dumps(acceptance_row("d1", START, by="Ada", reason="fine")))
    assert waiting_for(glance("m", decision(1, "repair"), accepted), []) == []
    # An older complaint waits for nobody: the newest check says how things stand.
    assert waiting_for(glance("m", decision(1, "repair"), decision(2)), []) == []
    assert [item.kind for item in waiting_for(Glance("new"), [])] == ["first"]


def test_models_are_sorted_by_what_needs_a_person() -> None:
    broken = glance("z", problem="z.yaml: wrong")
    repair, worse, fine = (
        glance("y", decision(1, "repair")),
        glance("x", decision(1, loss=0.8)),
        glance("a", decision(1)),
    )
    ordered = sorted([fine, worse, repair, broken], key=lambda item: urgency(waiting_for(item, []), item))
    assert [item.model for item in ordered] == ["z", "y", "x", "a"]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [("0 6 * * *", "2024-01-01T06:00:00+00:00"), (None, None), ("0 0 30 2 *", None)],
)
def test_the_next_check(schedule: str | None, wanted: str | None) -> None:
    found = next_run(schedule, START)
    assert (found.isoformat() if found else None) == wanted


def test_a_column_says_which_text_or_image_it_stands_for() -> None:
    watched = [{"feature": "photo", "kind": "image", "names": {"width": "photo: width (2)"}, "vocabulary": []}]
    reference = json.dumps({"runs": [], "watched": watched}).encode()
    assert stands_for(reference, "photo: width (2)") == ("photo", "width")
    assert stands_for(reference, "photo: width") is None
    assert stands_for(json.dumps({"runs": []}).encode(), "photo: width") is None
    assert stands_for(None, "photo: width") is None
