"""The report for people copes with columns that would abort a library's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
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


def test_truth_values_and_moments_are_in_the_report(trained: World, tmp_path: Path) -> None:
    features = trained.definition.features.model_copy(update={"boolean": ("member",), "datetime": ("seen",)})
    definition = trained.definition.model_copy(update={"features": features})
    generator = np.random.default_rng(0)
    time = pd.Series(pd.date_range("2024-01-01", periods=200, freq="h", tz="UTC"))
    frame = pd.DataFrame({"member": generator.choice(["True", "False"], 200), "prediction": generator.random(200)})
    frame["seen"] = time - pd.to_timedelta(generator.integers(0, 2000, 200), unit="h")
    target = tmp_path / "report.html"
    # What is kept of the training has the definition's own time, the window the normal form's.
    render(frame.assign(**{definition.data.time: time}), frame.assign(_time=time), definition, target)
    told = json.dumps(json.loads(target.with_suffix(".json").read_text())["metrics"])
    for name in ("member", "seen \\u00b7 hour", "seen \\u00b7 weekday", "seen \\u00b7 days before the row"):
        assert name in told
