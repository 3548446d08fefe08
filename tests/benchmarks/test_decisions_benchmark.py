"""The proof of the decisions runs on any folder of sets, and writes every figure under its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decisions.py"


def _write(folder: Path, frame: pd.DataFrame, task: str) -> None:
    folder.mkdir(parents=True)
    rows = len(frame)
    frame.assign(t=np.arange(rows), w=np.arange(rows) * 9 // rows).to_parquet(folder / "rows.parquet")
    meta = {"task": task, "loss": "log_loss", "start": 3, "windows": 9, "file": "rows.parquet"}
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = 9 * 130
    drift = np.linspace(0, 3, rows)
    x = rng.normal(size=rows)
    kind = pd.Series(rng.choice(["a", "b"], rows), dtype="str")
    _write(tmp_path / "numbers", pd.DataFrame({"x": x, "kind": kind, "y": x + drift}), "regression")
    words = np.array([f"word{i}" for i in range(40)])
    late = rng.random(rows) < 0.4
    notes = [" ".join([*rng.choice(words, 5), "delayed" if hit else "punctual"]) for hit in late]
    _write(tmp_path / "notes", pd.DataFrame({"note": pd.Series(notes, dtype="str"), "y": late.astype(int)}), "binary")
    untidy = pd.DataFrame({"t": pd.date_range("2024-01-01", periods=rows, freq="h").astype("str")})
    untidy["level"] = [f"L{number}" for number in rng.integers(0, 400, rows)]
    untidy["empty"], untidy["flag"] = np.nan, rng.random(rows) < 0.5
    untidy["x"] = np.where(rng.random(rows) < 0.1, np.nan, x)
    untidy["y"] = np.where(x + drift > 1.5, "yes", "no")
    (tmp_path / "untidy").mkdir()
    untidy.to_csv(tmp_path / "untidy" / "rows.csv", index=False)
    meta = {"task": "binary", "windows": 9, "start": 3, "file": "rows.csv"}
    (tmp_path / "untidy" / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def test_any_folder_of_sets_gives_every_figure(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--sets", "numbers", "notes", "untidy"]
    command += ["--cache", str(tmp_path / "scores"), "--json", str(target)]
    command += [
        "--policies",
        "every_4th",
        "ks_bonferroni",
        "perennial",
        "--parts",
        "policies",
        "false_alarms",
        "faults",
        "learned",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())
    for name in ("numbers", "notes", "untidy"):
        ours = figures["gated"]["sets"][name]["perennial"]
        assert {"kept", "retrain_share", "repair_share", "refused", "waited", "undone", "loss"} <= set(ours)
        assert {"regret", "beside_never", "repair_longest", "kept_of_calendar"} <= set(ours)
        assert figures["halves"][name] == "held-out"
        for policy in ("never", "always", "every_4th", "ks_bonferroni"):
            row = figures["sets"][name][policy]
            assert {"kept", "retrain_share", "recalibrations", "cpu_seconds"} <= set(row)
        assert figures["sets"][name]["never"]["kept"] == 0
        assert figures["sets"][name]["always"]["retrain_share"] == 1
        # 400 levels in three windows of training are too many to know what is ordinary.
        assert name == "untidy" or figures["shuffled"][name]["alarms"] == 0
        assert figures["faults"][name]["named"]["missing"]["strong"][0] > 0
    learned = figures["learned"]["numbers"]
    assert learned["harm"] == pytest.approx(learned["loss_after"] / learned["clean_after"] - 1)
    assert figures["learned"]["notes"] == {}  # words have no column to break
    assert "as it ships, gate and probation in" in done.stdout


def test_without_the_gate_the_figure_stands_beside_the_baselines(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--sets", "numbers", "--json", str(target)]
    command += ["--cache", str(tmp_path / "scores"), "--without-gate", "--parts", "policies", "--half", "held-out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())
    assert "gated" not in figures
    assert figures["sets"]["numbers"]["perennial"]["kept"] > 0.5
    assert figures["by_half"]["held-out"]["perennial"]["sets"] == 1
    command[-1] = "chosen-on"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "no set of the half chosen-on" in done.stderr


def test_a_set_in_disorder_is_named_and_costs_no_other(data: Path, tmp_path: Path) -> None:
    (data / "notes" / "meta.json").write_text(json.dumps({"task": "binary", "start": 8, "file": "rows.parquet"}))
    target = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--sets", "numbers", "notes", "--json", str(target)]
    command += ["--cache", str(tmp_path / "scores"), "--policies", "perennial", "--parts", "policies"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "notes: ValueError" in done.stderr
    assert "start 8 of 9 windows leaves nothing to train or judge" in done.stderr
    assert list(json.loads(target.read_text())["sets"]) == ["numbers"]
