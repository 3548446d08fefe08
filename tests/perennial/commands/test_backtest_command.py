"""`perennial backtest`: its table, JSON, refusals, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import backtest_world
import pytest
from backtest_world import day

from perennial.cli import main
from perennial.workspace import Workspace

pytestmark = pytest.mark.slow
# What the gate says is not looked at: fewer resamples say it too.
GATE = {"resamples": 200}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]) -> Workspace:
    workspace = make_workspace(tmp_path_factory.mktemp("command"))
    definition = backtest_world.define(workspace, gate=GATE)
    backtest_world.ingest_past(workspace, definition, backtest_world.rows(119, shift=49), as_of=day(119))
    return workspace


@pytest.fixture
def here(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's YAML, as the command sees it: with comments."""
    for name in ("home", "models", "expectations"):
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(getattr(shop.settings, name)))
    backtest_world.define(shop, gate=GATE)
    path = shop.settings.model_folders[0] / "shop.yaml"
    text = path.read_text()
    assert text.count("  growth: 1.5\n") == 1
    path.write_text("# The shop.\n" + text.replace("  growth: 1.5\n", "  growth: 1.5   # as agreed\n"))
    return path


def test_the_table_the_picture_and_the_advice_written(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "eager.yaml"
    policy.write_text("growth: 1.2\nrecalibrate: false\n")
    before = here.read_text().replace("# as agreed\n", "# as agreed\n  recalibrate: false\n")  # worse than need be
    here.write_text(before)
    assert main(["backtest", "shop", "--policy", str(policy), "--from", "2024-01-29", "--write"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("shop: 12 windows of 7d from 2024-01-29 to 2024-04-22, 2016 rows; quality is mse; ")
    assert any(line.startswith("eager ") for line in lines)
    assert any(line.startswith("always ") and " 1.00 " in line for line in lines)
    (advice,) = [line for line in lines if line.startswith("Recommended: ")]
    name = advice.removeprefix("Recommended: ").partition(".")[0]
    assert any(line.startswith(f"{name} *") for line in lines)
    assert "[" in captured.err
    assert "12 of 13" in captured.err
    assert (here.parent.parent / "home" / "reports" / "shop" / "backtest.png").exists()
    after = here.read_text()
    assert after != before
    assert after.startswith("# The shop.\n")
    assert "growth: 1.5   # as agreed\n" in after
    assert lines[-1].startswith(f"{here} says now: ")


def test_json_and_a_history_that_is_too_short_for_advice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = here.read_text()
    arguments = ["backtest", "shop", "--from", "2024-02-26", "--until", "2024-03-11", "--jobs", "1"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["windows"], found["recommendation"]["windows_needed"]) == (2, 12)
    assert found["recommendation"]["policy"] is None
    assert set(found["policies"]["own"]) >= {"kept", "retrains", "recalibrations", "cpu_seconds", "window_losses"}
    assert found["policies"]["always"]["kept"] == 1
    assert main([*arguments, "--write"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: nothing was written into {here}: 2 windows of 7d are too few to tell policies apart: 12 are needed, "
        "that is 10 more (70d). Keep the policy, or choose by hand."
    )
    assert here.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--every", "soon"], 2, "'soon' is no duration: a number and a unit, such as 12h, 7d or 2w"),
        (["--every", "0d"], 2, "'0d' is not longer than nothing"),
        (["--from", "yesterday"], 2, "'yesterday' is no ISO 8601 time"),
        (["--policy", "absent.yaml"], 2, "File 'absent.yaml' does not exist"),
        (["--from", "2024-04-18"], 1, "that is 1 windows of 7d, and 2 are the least. Ingest more of the past"),
    ],
)
def test_refusals(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:  # fmt: skip
    assert main(["backtest", "shop", *arguments]) == code
    assert told in capsys.readouterr().err


def test_a_policy_file_with_an_error(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "calm.yaml"
    path.write_text("growth: 0.5")
    assert main(["backtest", "shop", "--policy", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: monitoring.growth = 0.5: input should be greater than 1. Correct the value.\n"
    )
