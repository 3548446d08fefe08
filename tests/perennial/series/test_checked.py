"""The newest check's figures reach Prometheus through the API, as the ledger and the tables have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from perennial.series.checked import FIGURES, figures_of
from perennial.serving.checked import Checked
from perennial.workspace import Workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)


def entry(verdict: str = "hold", at: datetime = AT, **evidence: Any) -> dict[str, Any]:
    known = {"judged": True, "loss": {"name": "brier", "mean": 0.2, "at_promotion": 0.18}, "mature_predictions": 100,
             "coverage": 0.75, "trained_until": (at - timedelta(days=30)).isoformat()}  # fmt: skip
    return {"decision_id": f"d-{at:%d}", "as_of": at.isoformat(), "verdict": verdict, "evidence": known | evidence,
            "signals": [{"name": "drift", "value": 1.4}]}  # fmt: skip


def told(found: dict[str, Any], columns: Any = ()) -> dict[tuple[str, ...], float]:
    figures = list(figures_of("m", found, columns, AT + timedelta(days=1)))
    assert all(len(figure.labels) == len(FIGURES[figure.name][1]) for figure in figures)
    return {(figure.name, *figure.labels): figure.value for figure in figures}


def test_what_was_measured_is_told() -> None:
    found = told(entry("repair"), [{"column": "a", "missing_share": 0.1, "mean": 2.0, "deviation": None}])
    assert found["check_verdict", "m", "repair"] == 1
    assert found["check_verdict", "m", "hold"] == 0
    assert found["check_loss", "m", "brier"] == 0.2
    assert found["check_loss_at_promotion", "m", "brier"] == 0.18
    assert found["check_label_coverage", "m"] == 0.75
    assert found["check_drift_ratio", "m"] == 1.4
    assert found["check_training_age_days", "m"] == 31
    assert found["column_mean", "m", "a"] == 2.0
    assert ("column_deviation", "m", "a") not in found


def test_what_could_not_be_judged_is_no_figure() -> None:
    found = told(entry(judged=False, mature_predictions=0) | {"signals": []})
    names = {key[0] for key in found}
    assert {"check_loss", "check_label_coverage", "check_drift_ratio"} & names == set()


def test_a_scrape_tells_the_newest_check_and_follows_the_tables(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.serving.checked._FRESH_SECONDS", 0.0)
    monkeypatch.setattr("perennial.serving.checked._PATIENCE_SECONDS", 60.0)
    checked = Checked(workspace, lambda: ["m"], lambda: AT)
    assert "perennial_check_verdict{" not in checked.exposition().decode()
    for day, (verdict, mean) in enumerate([("hold", 1.0), ("retrain", 3.0)]):
        at = AT + timedelta(days=day)
        row = {"decision_id": f"d-{at:%d}", "start": at - timedelta(days=7), "end": at, "version": 1, "column": "a",
               "kind": "numeric", "rows": 10, "missing": 1, "unseen": 0, "finite": 9, "mean": mean, "deviation": 0.5,
               "low": 0.0, "high": 4.0, "quantiles": [0.0] * 5, "distinct": 9, "top": "{}", "points": [1.0],
               "hashes": b""}  # fmt: skip
        workspace.store.append("m", "column_statistics", pd.DataFrame([row]))
        workspace.ledger("m").record(entry(verdict, at), recorded_at=at)
        page = checked.exposition().decode()
        assert f'perennial_check_verdict{{model="m",verdict="{verdict}"}} 1.0' in page
        assert f'perennial_column_mean{{column="a",model="m"}} {mean}' in page
        assert 'perennial_column_missing_share{column="a",model="m"} 0.1' in page
    assert page.count("# TYPE perennial_column_mean gauge") == 1


def test_tables_that_are_away_leave_what_was_known(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("perennial.serving.checked._FRESH_SECONDS", 0.0)
    monkeypatch.setattr("perennial.serving.checked._PATIENCE_SECONDS", 60.0)
    workspace.ledger("m").record(entry("repair"), recorded_at=AT)
    checked = Checked(workspace, lambda: ["m"], lambda: AT)
    before = checked.exposition()
    monkeypatch.setattr("perennial.state.store.Store.version", lambda *_: (_ for _ in ()).throw(OSError("away")))
    assert checked.exposition() == before
    assert "no figures of the checks of m: OSError: away" in caplog.text
