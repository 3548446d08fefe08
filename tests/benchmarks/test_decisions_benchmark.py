"""The proof of the decisions runs on any folder of sets, and writes every figure under its name."""

from __future__ import annotations

import json
from pathlib import Path

import decisions
import numpy as np
import pandas as pd
import pytest

# Without --processes 1 each set is measured in a process of its own.
pytestmark = [pytest.mark.slow, pytest.mark.process]


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


def arguments(data: Path, folder: Path, *sets: str) -> list[str]:
    """Of a run over these sets, whose figures are in figures.json."""
    cache, target = str(folder / "scores"), str(folder / "figures.json")
    return ["--data", str(data), "--cache", cache, "--json", target, "--sets", *sets]


def test_any_folder_of_sets_gives_every_figure(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["--policies", "every_4th", "ks_bonferroni", "perennial"]
    parts = ["--parts", "policies", "false_alarms", "faults", "learned", "--processes", "1"]
    decisions.main([*arguments(data, tmp_path, "numbers", "notes", "untidy"), *policies, *parts])
    figures = json.loads((tmp_path / "figures.json").read_text())
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
    assert "as it ships, gate and probation in" in capsys.readouterr().out


def test_without_the_gate_the_figure_stands_beside_the_baselines(data: Path, tmp_path: Path) -> None:
    plain = [*arguments(data, tmp_path, "numbers"), "--without-gate", "--parts", "policies", "--half"]
    decisions.main([*plain, "held-out"])  # in as many processes as there are processors
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "gated" not in figures
    assert figures["sets"]["numbers"]["perennial"]["kept"] > 0.5
    assert figures["by_half"]["held-out"]["perennial"]["sets"] == 1
    with pytest.raises(SystemExit, match="no set of the half chosen-on"):
        decisions.main([*plain, "chosen-on"])


def test_a_set_in_disorder_is_named_and_costs_no_other(data: Path, tmp_path: Path) -> None:
    (data / "notes" / "meta.json").write_text(json.dumps({"task": "binary", "start": 8, "file": "rows.parquet"}))
    with pytest.raises(SystemExit, match=r"not measured: notes: ValueError.*start 8 of 9 windows leaves nothing"):
        decisions.main(
            [
                *arguments(data, tmp_path, "numbers", "notes"),
                "--policies",
                "every_4th",
                "--parts",
                "policies",
                "--processes",
                "1",
            ]
        )
    assert list(json.loads((tmp_path / "figures.json").read_text())["sets"]) == ["numbers"]
