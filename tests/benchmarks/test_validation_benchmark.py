"""The benchmark of the validation runs, and its figures are what they are called."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from perennial.settings import PROJECT_ROOT


def test_prints_ratios_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = runpy.run_path(str(PROJECT_ROOT / "benchmarks" / "validation.py"))
    target = tmp_path / "figures.json"
    benchmark["main"](["--rows", "2000", "--json", str(target)])
    figures = json.loads(target.read_text(encoding="utf-8"))
    assert (figures["rows"], figures["columns"], figures["expectations"]) == (2000, 20, 15)
    ratio = figures["ours_cpu_seconds"] / figures["plain_summary_cpu_seconds"]
    assert figures["ratio_to_summary"] == pytest.approx(ratio, rel=0.05)
    assert "2,000 rows x 20 columns, 15 expectations" in capsys.readouterr().out
