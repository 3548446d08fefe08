"""What is relied on of Evidently's inside: a drift test of one's own is told the column; its page has our places."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tasks.steps.shown.drawn import draw_distributions, with_lead


def test_drift_is_what_we_say_it_is() -> None:
    random = np.random.default_rng(0)
    before = pd.DataFrame({"x": random.normal(size=300), "y": random.normal(size=300), "c": ["a", "b", None] * 100})
    now = before.assign(x=before["x"] + 9)
    for ratios in ({"y": 2.5, "c": 1.2, "x": 0.5}, {"x": 0.1, "c": 0.2, "y": 0.3}):
        page, told = draw_distributions(now, before, ["x", "y"], ["c"], ratios)
        values = {item["config"]["column"]: item["value"] for item in json.loads(told)["metrics"][:3]}
        assert values == pytest.approx(ratios)
        assert list(values) == list(ratios)
        assert page.count("Data drift detected") == sum(ratio > 1 for ratio in ratios.values())
    led = with_lead(page, "a title", "<p>ours</p>")
    assert led.index("<title>a title</title>") < led.index("<p>ours</p>") < led.index("root_metric")


def test_another_page_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for ours"):
        with_lead("<html><body class='x'></body></html>", "t", "l")
