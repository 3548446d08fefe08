"""docs/operate.md is tried: its commands run in their order on a real installation, and each alarm there is told."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from small_model import add, day, define, retrain, rows

from perennial.cli import main
from perennial.serving.settings import ServingSettings
from perennial.settings import PROJECT_ROOT, Settings
from perennial.workspace import Workspace

TEXT = (PROJECT_ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines() if line.strip()
]
ALERTS = PROJECT_ROOT / "docker" / "prometheus" / "alerts.yaml"


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """A line as a shell would run it: assignments first, variables expanded."""
    words = shlex.split(os.path.expandvars(line))
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
        assert words.pop(0) == "perennial", line
        return main(words)


@pytest.mark.slow
def test_its_commands_run(
    make_workspace: Callable[[Path], Workspace], tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    workspace = make_workspace(tmp_path / "installation")
    definition = define(workspace)
    add(workspace, definition, rows(0, 13), as_of=day(13), history=True)
    first = retrain(workspace, definition, as_of=day(10))
    second = retrain(workspace, definition, as_of=day(13))
    if second.reign is None:  # the gate kept it out: a person lets it in
        workspace.registry.promote(
            second.version, action="approve", at=day(13), recorded_at=day(13), by="test", reason="for the manual"
        )
    settings = workspace.settings
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)  # or each flow starts a server of its own
    monkeypatch.setenv("BACKUPS", str(tmp_path / "backups"))
    assert len(COMMANDS) >= 10
    told: dict[str, str] = {}
    for line in COMMANDS:
        code = run(line, monkeypatch)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}: {out}{err}"
        told[line] = out
    restored = next(out for line, out in told.items() if "restore" in line)
    assert "digits: version 2 is champion, its files are whole" in restored
    assert [out for line, out in told.items() if "rollback" in line] == [
        "version 1 of digits is champion again, instead of version 2\n"
    ]
    assert workspace.registry.champion("digits") == workspace.registry.version("digits", first.version.number)
    assert "PERENNIAL_SERVING_TOKENS=predict:" in next(out for line, out in told.items() if "--new-token" in line)


def test_each_alert_is_told() -> None:
    if not ALERTS.exists():
        pytest.skip("this checkout has no alert rules")
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    names = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert names
    assert [name for name in names if name not in TEXT] == []


def test_each_setting_exists() -> None:
    """Ours is a field of one of the two settings; others' are read somewhere in the code, or by their own programs."""
    ours = {f"PERENNIAL_{name.upper()}" for name in Settings.model_fields}
    ours |= {f"PERENNIAL_SERVING_{name.upper()}" for name in ServingSettings.model_fields}
    named = set(re.findall(r"\bPERENNIAL_[A-Z_]+", TEXT))
    assert named
    assert sorted(named - ours) == []
