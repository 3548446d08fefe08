"""What a fault leaves behind is measured on the faulty rows alone, and the damages are what they are called."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from prequential.figures import figures, summarise
from prequential.learned import DAMAGES, FAULT_WINDOWS, break_column, most_used_column
from prequential.runs import Run
from prequential.sets import DriftingSet


@pytest.fixture
def data() -> DriftingSet:
    rng = np.random.default_rng(0)
    window = np.repeat(np.arange(10), 100)
    x, idle = rng.normal(size=(2, 1000))
    features = pd.DataFrame({"idle": idle, "x": x, "kind": pd.Series(rng.choice(["a", "b"], 1000), dtype="str")})
    times = pd.Series(pd.date_range("2024-01-01", periods=1000, freq="h", tz="UTC"))
    return DriftingSet("made", "regression", features, None, 3 * x + rng.normal(size=1000), window, times, 4)


def test_the_column_that_the_model_leans_on_is_found(data: DriftingSet) -> None:
    assert most_used_column(data) == "x"


@pytest.mark.parametrize("fault", DAMAGES)
@pytest.mark.parametrize("column", ["x", "kind"])
def test_a_fault_touches_its_windows_only(data: DriftingSet, fault: str, column: str) -> None:
    broken = break_column(data, column, fault, 5)
    rows = slice(500, 500 + 100 * FAULT_WINDOWS)
    changed = broken.features[column].astype(object).fillna("-") != data.features[column].astype(object).fillna("-")
    assert changed.iloc[rows].mean() > 0.3
    assert not changed.drop(changed.index[rows]).any()
    assert broken.features.drop(columns=column).equals(data.features.drop(columns=column))
    assert broken.features.dtypes.equals(data.features.dtypes)
    if fault == "scrambled":
        assert sorted(broken.features[column].iloc[500:600]) == sorted(data.features[column].iloc[500:600])


def test_sets_without_a_gain_are_told_apart() -> None:
    never, always, ours = Run(loss=1.0), Run(loss=0.8, retrains=10), Run(loss=0.82, retrains=2)
    idle = Run(loss=1.05, retrains=10)
    rows = {name: {"perennial": figures(ours, never, best)} for name, best in (("paying", always), ("idle", idle))}
    summary = summarise(rows)["perennial"]
    assert (summary["sets"], summary["idle_sets"]) == (1, 1)
    assert summary["kept_mean"] == pytest.approx(0.9)
    assert summary["regret_mean"] == pytest.approx(-0.18)
    assert summary["retrain_share_mean"] == pytest.approx(0.2)
    assert summarise(rows, ["idle"])["perennial"]["kept_mean"] is None
