"""The documents are true: every command and setting is in the README, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perennial.cli import COMMANDS
from perennial.serving.settings import ServingSettings
from perennial.settings import PROJECT_ROOT, Settings

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*PROJECT_ROOT.glob("*.md"), *(PROJECT_ROOT / "docs").rglob("*.md")])


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


RECORDS = sorted((PROJECT_ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_decision_records_are_numbered_and_in_the_index() -> None:
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    index = (PROJECT_ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[(\d{4})\]\(([^)]+)\)", index, re.M)
    assert sorted(linked) == [(path.name[:4], path.name) for path in RECORDS]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name[:4])
def test_a_decision_record_has_its_sections(path: Path) -> None:
    parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
    assert [part.split("\n", 1)[0] for part in parts[1:]] == ["Context", "Decision", "Rejected", "Measured"]
    assert all(len(part.split("\n", 1)[1].strip()) > 20 for part in parts[1:])


def test_architecture_fits_on_two_pages() -> None:
    assert len((PROJECT_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 110
