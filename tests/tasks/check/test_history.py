"""The ledger read back: what is older counts, attempts, fruitless ones, acceptances."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.check.history import acceptance_row, outcome_row, read_history, recalibration_row, rollback_row

NOW = datetime(2025, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _decision(name: str, days: float, verdict: str = "hold", fired: str = "", version: str = "1") -> dict[str, Any]:
    signals = [{"name": fired, "kind": "health", "fired": True}] if fired else []
    return {
        "decision_id": name,
        "as_of": (NOW - days * DAY).isoformat(),
        "verdict": verdict,
        "champion_version": version,
        "signals": signals,
    }


def _outcome(name: str | None, days: float, verdict: Any) -> dict[str, Any]:
    return outcome_row(name, NOW - days * DAY, verdict, gain=None, champion_loss=None, trained_rows=100)


def test_rows_of_now_and_later_are_not_seen() -> None:
    history = read_history([_decision("a", 1), _decision("b", 0), _decision("c", -1)], NOW)
    assert [row["decision_id"] for row in history.decisions] == ["a"]


def test_rows_of_other_kinds_are_ignored() -> None:
    note = {"kind": "note", "as_of": (NOW - DAY).isoformat()}
    assert read_history([note, _decision("a", 1)], NOW) == read_history([_decision("a", 1)], NOW)


def test_rows_may_come_in_any_order_and_with_datetimes() -> None:
    late = _decision("late", 1) | {"as_of": NOW - DAY}
    history = read_history([late, _decision("early", 2)], NOW)
    assert [row["decision_id"] for row in history.decisions] == ["early", "late"]


def test_an_outcome_of_a_decision_is_no_second_attempt() -> None:
    rows = [_decision("a", 9, "retrain"), _outcome("a", 8.9, "promote"), _outcome(None, 3, "keep")]
    history = read_history(rows, NOW)
    assert history.attempts == (NOW - 9 * DAY, NOW - 3 * DAY)
    assert history.attempts_since(NOW - 5 * DAY) == 1


def test_fruitless_trainings_in_a_row() -> None:
    rows = [_outcome("a", 9, "keep"), _outcome("b", 8, "promote"), _outcome("c", 7, "keep")]
    rows.append(_outcome("d", 6, "insufficient evidence"))
    assert read_history(rows, NOW).fruitless == 2
    assert read_history(rows, NOW).tried_rows == 100
    assert read_history(rows[:2], NOW).fruitless == 0
    assert read_history(rows[:2], NOW).tried_rows == 0


def test_a_newcomer_that_was_rolled_back_brought_nothing() -> None:
    undone = rollback_row("b", NOW - DAY, version=3, former=2, reason="worse")
    rows = [_outcome("a", 9, "promote"), _outcome("b", 8, "promote"), undone]
    assert read_history(rows, NOW).fruitless == 1
    assert read_history(rows, NOW).tried_rows == 100
    assert read_history([*rows, _outcome("c", 0.5, "promote")], NOW).fruitless == 0
    by_hand = rollback_row(None, NOW - DAY, version=3, former=2, reason="worse")
    assert read_history([_outcome(None, 9, "promote"), by_hand], NOW).fruitless == 0, "which one is not known"


def test_firing_since_counts_an_unbroken_row_of_one_model() -> None:
    rows = [_decision("a", 5, fired="x"), _decision("b", 4), _decision("c", 3, fired="x"), _decision("d", 2, fired="x")]
    history = read_history([*rows, _decision("e", 1, version="2")], NOW)
    assert history.firing_since({"1"}, "x") == NOW - 3 * DAY
    assert history.fired({"1"}, "x", 3) == [True, True, False]
    assert history.firing_since({"2"}, "x") is None


def test_acceptances_hold_for_the_signals_of_their_decision() -> None:
    rows = [
        _decision("a", 5, "repair", fired="missing x"),
        acceptance_row("a", NOW - 4 * DAY, by="Ada", reason="so be it"),
    ]
    history = read_history(rows, NOW)
    assert history.accepted({"1"})["missing x"]["by"] == "Ada"
    assert history.accepted({"2"}) == {}


def test_the_last_recalibration_is_remembered() -> None:
    rows = [_decision("a", 5, "recalibrate"), _decision("b", 2)]
    assert read_history(rows, NOW).recalibrated == NOW - 5 * DAY
    assert read_history([], NOW).recalibrated is None


def _map(days: float, verdict: Any, version: str = "1") -> dict[str, Any]:
    return recalibration_row(None, NOW - days * DAY, verdict, champion_version=version)


def test_a_refused_map_was_tried_until_one_is_let_in() -> None:
    refused = read_history([_map(5, "keep")], NOW)
    assert refused.map_was_tried({"1"}, "loss", 2)
    assert not refused.map_was_tried({"2"}, "loss", 2)
    assert not read_history([_map(5, "keep"), _map(4, "promote", "2")], NOW).map_was_tried({"1", "2"}, "loss", 2)
    assert read_history([], NOW).maps == ()


def test_a_map_asked_for_in_this_fall_was_tried() -> None:
    fall = [_decision("a", 9, "recalibrate", "loss"), _decision("b", 6, fired="loss"), _decision("c", 3, fired="loss")]
    assert read_history(fall, NOW).map_was_tried({"1"}, "loss", 0)
    # The fall ended: only so many checks back it still counts as the same.
    over = [*fall, _decision("d", 2), _decision("e", 1, fired="loss")]
    assert not read_history(over, NOW).map_was_tried({"1"}, "loss", 2)
    assert read_history(over, NOW).map_was_tried({"1"}, "loss", 5)
    # One that was asked for while nothing had fallen is no try to mend the fall.
    calm = [_decision("a", 3, "recalibrate"), _decision("b", 1, fired="loss")]
    assert not read_history(calm, NOW).map_was_tried({"1"}, "loss", 2)
