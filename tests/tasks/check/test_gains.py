"""What retrainings brought: shrunk, told, and a warning only where later rows have said it more than once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.check.gains import expected_gain, warning
from tasks.check.history import outcome_row, read_history, realised_row, settlement_row

START = datetime(2026, 1, 5, tzinfo=UTC)
NOW = START + timedelta(days=700)


def trained(number: int, gain: float, verdict: Any = "promote") -> dict[str, Any]:
    at = START + timedelta(days=7 * number)
    return outcome_row(f"d{number}", at, verdict, gain=gain, champion_loss=1.0, trained_rows=100 * number)


def realised(number: int, gain: float) -> dict[str, Any]:
    at = START + timedelta(days=7 * number + 35)
    return realised_row(f"d{number}", at, version=number, former=1, gain=gain, low=None, high=None, rows=500)


def test_without_trainings_nothing_is_claimed() -> None:
    nothing = read_history([], NOW)
    assert expected_gain(nothing).trainings == 0
    assert "no retraining" in expected_gain(nothing).told()
    assert warning(nothing) is None


def test_later_rows_count_instead_of_the_gates() -> None:
    rows = [trained(1, 0.10), trained(2, 0.08), realised(1, 0.03)]
    history = read_history(rows, NOW)
    assert history.gains == (0.03, 0.08)
    told = expected_gain(history).told()
    assert "the last 2 retrainings brought" in told
    assert "±" in told


def test_one_bad_holdout_is_no_warning_and_two_bad_promotions_are() -> None:
    kept_out = [trained(1, -0.4, "keep"), trained(2, -0.4, "keep")]
    assert warning(read_history(kept_out, NOW)) is None
    once = [trained(1, 0.02), realised(1, -0.2)]
    assert warning(read_history(once, NOW)) is None
    twice = [*once, trained(2, 0.02), realised(2, -0.1)]
    found = warning(read_history(twice, NOW))
    assert found is not None
    assert found[0] < 0 < found[1]
    assert warning(read_history(twice, START + timedelta(days=42))) is None, "the past did not know it yet"


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8))
def test_the_mean_is_shrunk_and_no_training_outweighs_all_others(gains: list[float]) -> None:
    history = read_history([trained(number, gain) for number, gain in enumerate(gains, 1)], NOW)
    found = expected_gain(history)
    newest = gains[-4:]
    assert found.trainings == len(newest)
    assert min(-0.5, min(newest)) <= found.mean <= max(0.5, max(newest))
    assert abs(found.mean) <= 0.5
    assert found.error > 0


def test_a_settled_doubt_is_what_the_training_came_to() -> None:
    waits = [trained(1, -0.01, "wait")]
    history = read_history(waits, NOW)
    assert history.waiting is not None
    assert (history.fruitless, history.tried_rows) == (0, 100)
    at = START + timedelta(days=30)
    won = [*waits, settlement_row("d1", at, "promote", version=2, former=1, reason="ahead")]
    assert read_history(won, NOW).waiting is None
    assert (read_history(won, NOW).fruitless, read_history(won, NOW).tried_rows) == (0, 0)
    lost = [*waits, settlement_row("d1", at, "keep", version=2, former=1, reason="time is up")]
    assert (read_history(lost, NOW).fruitless, read_history(lost, NOW).tried_rows) == (1, 100)
    newer = [*waits, trained(2, 0.05)]
    assert read_history(newer, NOW).waiting is None
