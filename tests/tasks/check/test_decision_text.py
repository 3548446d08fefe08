"""The record that people read: complete, three reasons at most, safe in a Markdown table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.check.decision import Decision
from tasks.check.signal import Signal
from tasks.check.text import evidence_lines, render_markdown, render_text

AS_OF = datetime(2025, 1, 8, 6, tzinfo=UTC)
EVIDENCE = {
    "rows": 600,
    "window_start": "2025-01-01T06:00:00+00:00",
    "mature_predictions": 580,
    "mature_labels": 290,
    "coverage": 0.5,
    "coverage_by_age": [[12.25, 145, 145], [10.5, 145, 145], [8.75, 145, 0], [7.0, 145, 0]],
    "labelled_rows": 9000,
    "trained_rows": 8000,
    "trained_until": "2024-12-20T00:00:00+00:00",
    "budget_used": 1,
    "budget": 6,
    "cooldown_until": "2025-01-10T00:00:00+00:00",
    "fruitless_retrainings": 2,
}


def _decision(**changes: Any) -> Decision:
    columns = [Signal(f"drift of c{i}", "drift", 0.1 * i, 0.3, "runs", i == 4, False, f"c{i}") for i in (4, 3, 2, 1, 0)]
    signals = (
        Signal("drift", "drift", 1.3, 1.0, "runs", True, False, "moved"),
        Signal("missing a|b", "health", None, 0.1, "before", True, True, "a|b is missing\nin 5 rows"),
        *columns,
    )
    given: dict[str, Any] = {
        "decision_id": "id-1",
        "model": "flights",
        "as_of": AS_OF,
        "champion_version": "3",
        "policy": "abc",
        "verdict": "repair",
        "reasons": ("a|b is missing\nin 5 rows", "second", "third", "fourth"),
        "signals": signals,
        "would_change": ("hold, once mended",),
        "evidence": EVIDENCE,
        "next_step": "Mend it.",
    }
    return Decision(**(given | changes))


def test_three_reasons_are_told_and_the_rest_counted() -> None:
    text = render_text(_decision())
    assert "third" in text
    assert "fourth" not in text
    assert "and 1 more" in text


def test_what_fired_comes_first_and_calm_columns_are_few() -> None:
    lines = render_text(_decision()).splitlines()
    signals = lines[lines.index("Signals") + 1 : lines.index("What would have changed it") - 1]
    assert signals[0].strip().startswith("missing a|b")
    assert "persists" in signals[0]
    assert not any("drift of c0" in line for line in signals)


def test_a_table_survives_pipes_and_line_breaks() -> None:
    rows = [line for line in render_markdown(_decision()).splitlines() if line.startswith("| ")]
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "1. a\\|b is missing in 5 rows" in render_markdown(_decision())


def test_evidence_tells_coverage_by_age_cooldown_and_backoff() -> None:
    lines = "\n".join(evidence_lines(_decision()))
    assert "290 of 580 mature predictions have labels (50%)" in lines
    assert "8.75 days 0/145" in lines
    assert "cooling down until 2025-01-10" in lines
    assert "2 retrainings in a row brought nothing" in lines
    new = evidence_lines(_decision(evidence=EVIDENCE | {"mature_predictions": 0}))
    assert any("old enough" in line for line in new)
