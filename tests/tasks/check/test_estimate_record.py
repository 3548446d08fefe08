"""The record of estimates: what was told is put beside what came true, and trust asks for more than luck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from decision_world import START
from scipy.special import logit

from tasks.calibration.fit import Recalibrator
from tasks.check.estimate import record as estimate_record
from tasks.check.estimate.record import Realised, Record
from tasks.check.history import read_history

WEEK = timedelta(days=7)


def told(number: int, *, value: float = 0.5, **changes: Any) -> dict[str, Any]:
    """A check of week `number` as the ledger has it, with an estimate."""
    at = START + number * WEEK
    estimate = {"value": value, "promotion": 0.4, "recent": 0.45, "versions": ["1"], "map": None} | changes
    evidence = {"window_start": (at - WEEK).isoformat(), "estimate": estimate, "judged": True, "loss": {"mean": number}}
    return {"kind": "decision", "as_of": at.isoformat(), "champion_version": "1", "evidence": evidence, "signals": [],
            "verdict": "hold", "decision_id": str(number)}  # fmt: skip


def logged(number: int, rows: int = 300, score: float = 0.3, **changes: Any) -> pd.DataFrame:
    """The log of the window that the check of week `number` was about."""
    at = pd.Timestamp(START + (number - 1) * WEEK)
    times = pd.Series(at + pd.to_timedelta(np.linspace(0, 7 * 86_400 - 1, rows), unit="s")).astype(
        "datetime64[us, UTC]"
    )
    made = pd.DataFrame({"id": [f"{number}-{i}" for i in range(rows)], "time": times, "raw_score": score})
    return made.assign(score=score, version="1", truth=np.arange(rows) % 2.0).assign(**changes)


class TestRecord:
    def test_only_windows_whose_labels_are_due_count_and_none_twice(self) -> None:
        daily = [told(1) | {"as_of": (START + WEEK + timedelta(days=day)).isoformat()} for day in range(35)]
        history = read_history(daily, datetime(2030, 1, 1, tzinfo=UTC))
        found = estimate_record.past_windows(history, WEEK, START + 4 * WEEK)
        moments = [datetime.fromisoformat(row["as_of"]) for row in found]
        assert moments == [START + week * WEEK for week in (4, 3, 2, 1)]
        many = read_history([told(number) for number in range(1, 60)], datetime(2030, 1, 1, tzinfo=UTC))
        assert len(estimate_record.past_windows(many, WEEK, START + 60 * WEEK)) == estimate_record.PAST_WINDOWS
        assert estimate_record.past_windows(many, WEEK, START + 200 * WEEK) == (), "what is long past is not searched"

    def test_an_estimate_is_put_beside_what_came_true(self) -> None:
        (found,) = estimate_record.realise([told(3)], logged(3), "log_loss", 100, 0.5)
        assert found.realised == pytest.approx(-np.log(0.3 * 0.7) / 2)
        assert (found.estimate, found.promotion, found.recent, found.rows) == (0.5, 0.4, 0.45, 300)
        bent = told(3, map=Recalibrator("classification", "platt", (1.0, logit(0.5) - logit(0.3))).to_dict())
        (mapped,) = estimate_record.realise([bent], logged(3), "log_loss", 100, 0.5)
        assert mapped.realised == pytest.approx(np.log(2))

    def test_few_labels_other_versions_and_other_weeks_are_left_out(self) -> None:
        few = logged(3).assign(truth=np.where(np.arange(300) < 120, 1.0, np.nan))
        assert estimate_record.realise([told(3)], few, "log_loss", 100, 0.5) == ()
        assert len(estimate_record.realise([told(3)], few, "log_loss", 100, 0.3)) == 1
        assert estimate_record.realise([told(3)], logged(3, version="2"), "log_loss", 100, 0.5) == ()
        assert estimate_record.realise([told(3)], logged(4), "log_loss", 100, 0.5) == ()

    def test_of_each_window_a_bounded_sample_is_read(self) -> None:
        history = read_history([told(2), told(3)], START + 9 * WEEK)
        asked: list[tuple[datetime, datetime]] = []

        def read(start: datetime, end: datetime) -> pd.DataFrame:
            asked.append((start, end))
            return logged(2, rows=20_000)

        found = estimate_record.past_rows(history, WEEK, START + 8 * WEEK, read)
        assert found is not None
        assert asked == [(START + 2 * WEEK, START + 3 * WEEK), (START + WEEK, START + 2 * WEEK)]
        assert len(found) == 2 * estimate_record.PAST_ROWS
        assert estimate_record.past_rows(read_history([], START), WEEK, START, read) is None

    def test_trust_needs_windows_and_to_be_better_than_guessing(self) -> None:
        def record(
            own: float, promotion: float | None, recent: float | None, windows: int = 8, noise: float = 0.0
        ) -> Record:
            moments = [START + number * WEEK for number in range(windows)]
            return estimate_record.measure(
                [
                    Realised(
                        at,
                        0.5 + own * sign,
                        None if promotion is None else 0.5 + promotion * sign,
                        None if recent is None else 0.5 + recent * sign,
                        0.5,
                        100,
                    )
                    for at, sign in zip(moments, [1, -1] * windows, strict=False)
                ]
            )

        assert record(0.01, 0.05, 0.03).distrust == ""
        assert record(0.01, 0.05, None).distrust == ""
        assert "not surely less than the last realised windows (0.005)" in record(0.01, 0.05, 0.005).distrust
        assert "no change since promotion (0.01)" in record(0.01, 0.01, 0.05).distrust
        near = [Realised(START + n * WEEK, 0.51, None, 0.5 + 0.015 * (n % 2), 0.5, 100) for n in range(8)]
        assert "not surely less than the last realised windows (0.0106)" in estimate_record.measure(near).distrust
        assert "5 of its estimates have met their labels, 6 are needed" in record(0.01, 0.05, 0.05, windows=5).distrust
        assert estimate_record.measure([]).distrust

    def test_recent_losses_are_of_different_weeks(self) -> None:
        history = read_history([told(number) for number in range(1, 10)], START + 20 * WEEK)
        assert estimate_record.recent_loss(history, WEEK, None) == pytest.approx(np.mean([9, 8, 7, 6]))
        assert estimate_record.recent_loss(history, WEEK, (START + 10 * WEEK, 1.0)) == pytest.approx(
            np.mean([1, 9, 8, 7])
        )
        assert estimate_record.recent_loss(history, 2 * WEEK, None) == pytest.approx(np.mean([9, 7, 5, 3]))
        assert estimate_record.recent_loss(read_history([], START), WEEK, None) is None
