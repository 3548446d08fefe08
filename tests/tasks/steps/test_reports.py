"""The report for people copes with columns that would abort a library's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_model import World, rows

from tasks.steps.report import render


def test_empty_and_infinite_columns_are_left_out(trained: World, tmp_path: Path) -> None:
    reference, current = rows(0, 1), rows(1, 2)
    current["ink_00"] = np.nan
    current["ink_01"] = np.inf
    current["prediction"] = reference["prediction"] = 0.5
    target = tmp_path / "report.html"
    render(reference, current.drop(columns="ink_02"), trained.definition, target)
    told = json.dumps(json.loads(target.with_suffix(".json").read_text())["metrics"])
    for name in ("ink_00", "ink_01", "ink_02"):
        assert name not in told
    for name in ("ink_03", "shade", "prediction"):
        assert name in told
    assert target.stat().st_size > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
