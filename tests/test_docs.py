"""The documents are true: every command and setting is in the README, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perennial.cli import COMMANDS
from perennial.serving.settings import ServingSettings
from perennial.settings import PROJECT_ROOT, Settings

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*PROJECT_ROOT.glob("*.md"), *(PROJECT_ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_told(command: str) -> None:
    assert re.search(rf"`[^`\n]*\b{command}\b[^`\n]*`|perennial {command}\b", README), f"README.md lacks {command}"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_told(name: str) -> None:
    assert f"`PERENNIAL_{name.upper()}`" in README


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_name_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command in re.findall(r"\bperennial (?:--home \S+ )?([a-z][a-z-]+)\b", text):
        assert command in COMMANDS or command in ("is", "runs", "ends"), f"{path.name}: perennial {command}"
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{target}:", (PROJECT_ROOT / "Makefile").read_text(), re.M), f"{path.name}: make {target}"
    for name in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / name).exists(), f"{path.name}: {name}"
    for name in re.findall(r"\b((?:benchmarks|tests|tasks|flows|deployments|expectations|perennial)/[\w/.]*\w)", text):
        assert (PROJECT_ROOT / name).exists() or "NAME" in name, f"{path.name}: {name}"


def test_every_readme_variable_is_a_setting() -> None:
    named = {name.removeprefix("PERENNIAL_").lower() for name in re.findall(r"\bPERENNIAL_[A-Z_]+", README)}
    known = {*Settings.model_fields, "serving_", *(f"serving_{name}" for name in ServingSettings.model_fields)}
    assert named <= known, sorted(named - known)
