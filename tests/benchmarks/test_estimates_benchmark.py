"""The benchmark of estimates runs on any folder of sets and writes every figure."""

from __future__ import annotations

import json
from pathlib import Path

import estimates
import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow
WINDOWS = 14


def write(folder: Path, task: str, target: np.ndarray, x: np.ndarray) -> None:
    """A set of equal windows."""
    folder.mkdir(parents=True)
    order = np.arange(len(x))
    pd.DataFrame({"x": x, "y": target, "t": order, "w": order * WINDOWS // len(x)}).to_parquet(folder / "rows.parquet")
    meta = {"task": task, "loss": "log_loss", "start": 3, "windows": WINDOWS, "file": "rows.parquet"}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_any_folder_of_sets_gives_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = WINDOWS * 150
    harder = np.repeat(rng.permutation(WINDOWS) / WINDOWS * 4 - 2, 150)  # the inputs of some weeks are harder
    x = rng.normal(size=rows) + harder
    write(tmp_path / "values", "regression", x + rng.normal(size=rows) * np.exp(x / 2), x)
    write(tmp_path / "classes", "binary", (rng.random(rows) < 1 / (1 + np.exp(-2 * x))).astype(int), x)
    target = tmp_path / "figures.json"
    arguments = ["--data", str(tmp_path), "--sets", "values", "classes", "--json", str(target)]
    estimates.main([*arguments, "--label-delays", "1", "--kept"])
    figures = json.loads(target.read_text())["1"]
    for name in ("values", "classes"):
        for run in ("frozen", "perennial"):
            row = figures[name][run]
            assert row["checks"] == WINDOWS - 4
            assert row["all"]["windows"] > 5
            assert set(row["all"]["off"]) == {"estimate", "promotion", "recent"}
        assert figures[name]["kept"].keys() == {"without", "with"}
        # What moves the loss here shows in the inputs, which is the one thing that an estimate sees.
        assert figures[name]["frozen"]["all"]["off"]["estimate"] < figures[name]["frozen"]["all"]["off"]["recent"]
    assert figures["classes"]["frozen"]["auc_off"] < 0.1
    assert "AUC off" in capsys.readouterr().out
