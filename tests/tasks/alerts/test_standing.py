"""What stands is what lasts: signals that persist, labels that stopped; what fired once is not told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from perennial.definition import Alerts, Monitoring
from perennial.state.store import Store
from tasks.alerts.standing import standing
from tasks.alerts.telling import look, record
from tasks.check.decision import NEXT_STEPS, Decision
from tasks.check.signal import Signal

AT = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = Monitoring(minimum_rows=40)
ALL_LABELLED = [[28.0, 25, 25], [21.0, 25, 25], [14.0, 25, 25], [7.0, 25, 25]]


def signal(name: str, kind: Any, persistent: bool = True) -> Signal:
    return Signal(name, kind, 2.0, 1.0, "somewhere", True, persistent, f"{name} is 2")


def decision(*signals: Signal, verdict: Any = "hold", ages: Any = ALL_LABELLED, **changes: Any) -> Decision:
    predictions, labels = sum(part[1] for part in ages), sum(part[2] for part in ages)
    evidence = {
        "mature_predictions": predictions, "mature_labels": labels, "coverage_by_age": ages,
        "coverage": labels / predictions if predictions else 0.0,
    }  # fmt: skip
    given = {
        "decision_id": "d0000000-1", "model": "digits", "as_of": AT, "champion_version": "1", "policy": "p",
        "reasons": ("nothing",), "would_change": (),
        "next_step": NEXT_STEPS[verdict].format(model="digits", decision="d"),
    }  # fmt: skip
    return Decision(**(given | {"verdict": verdict, "signals": signals, "evidence": evidence} | changes))


def test_nothing_stands_where_nothing_lasts() -> None:
    assert standing(decision(signal("drift", "drift", False), signal("loss", "quality", False)), POLICY) == ()


def test_what_lasts_stands_the_gravest_first_with_what_to_do() -> None:
    found = standing(
        decision(
            signal("drift", "drift"), signal("drift of b", "drift"), signal("drift of a", "drift"),
            signal("drift of c", "drift", False), signal("loss", "quality"), signal("missing: a", "health"),
            signal("truth", "label"), verdict="retrain",
        ), POLICY,
    )  # fmt: skip
    assert [(item.key, item.kind, item.grave) for item in found] == [
        ("data:missing: a", "data", True), ("quality:loss", "quality", True), ("drift", "drift", False),
    ]  # fmt: skip
    assert found[2].marks == ("a", "b")
    assert found[1].to_do.startswith("Nothing yet: a challenger is trained")
    assert "perennial accept digits d0000000 --reason WHY" in found[0].to_do


def test_what_a_cooldown_holds_back_is_said() -> None:
    reasons = ("retraining is called for (loss is 2), but the cooldown of 7d lasts until 2026-03-04 00:00",)
    (found,) = standing(decision(signal("loss", "quality"), reasons=reasons), POLICY)
    assert found.to_do == (
        "Retrain by hand if it can't wait, `perennial retrain digits`: the cooldown of 7d lasts until 2026-03-04 00:00"
    )


def test_labels_that_stopped_are_told_and_those_that_are_few_or_young_are_told_apart() -> None:
    def titles(*labelled: int, rows: int = 25) -> list[str]:
        ages = [[7.0 * (4 - part), rows, count] for part, count in enumerate(labelled)]
        return [item.title for item in standing(decision(ages=ages), POLICY)]

    assert titles(25, 25, 25, 25) == []
    assert titles(25, 25, 25, 0) == ["labels stopped coming"]
    assert titles(0, 0, 0, 0) == ["labels stopped coming"]
    assert titles(12, 12, 12, 10) == ["too few labels come"]
    assert titles(9, 9, 9, 0, rows=9) == []  # nine rows without labels may be chance
    assert titles(0, 0, 0, 0, rows=5) == []  # too few predictions say nothing


def test_a_look_is_told_once_and_what_was_said_is_kept(tmp_path: Any) -> None:
    store = Store(str(tmp_path))
    items = standing(decision(signal("loss", "quality")), POLICY)
    first = look(store, "digits", items, Alerts(), source="check", at=AT, decision_id="d1")
    payload = first.payload(["Decision d1"], "http://link")
    assert payload["subject"] == "digits: quality fell"
    assert payload["items"][0]["detail"] == "loss is 2"
    assert record(store, first, payload)
    again = look(store, "digits", items, Alerts(), source="check", at=AT, decision_id="d1")
    assert again.message is None
    assert not record(store, again, None)
    later = AT.replace(day=2)
    second = look(store, "digits", items, Alerts(), source="check", at=later, decision_id="d2")
    assert second.message is None
    assert not record(store, second, None)  # nothing changed: no line
    assert len(store.frame("digits", "alerts")) == 1
    watched = look(store, "digits", (), Alerts(), source="watch", at=later)
    assert (watched.message, set(watched.after)) == (None, {"quality:loss"})
