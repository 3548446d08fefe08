"""The documents are true: every command and setting is in the README, and what it names exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from deployments.web.settings import WebSettings
from perennial.cli import COMMANDS
from perennial.definition import ModelDefinition
from perennial.serving.settings import ServingSettings
from perennial.settings import PROJECT_ROOT, Settings
from perennial.state.tables import LAYOUT

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


def test_the_definition_s_document_is_what_the_schema_and_the_notes_make() -> None:
    found = runpy.run_path(str(PROJECT_ROOT / "docs" / "make_definition.py"))["document"]()
    assert (PROJECT_ROOT / "docs" / "definition.md").read_text(encoding="utf-8") == found, (
        "write it anew: .venv/bin/python docs/make_definition.py"
    )


def test_every_readme_variable_is_a_setting() -> None:
    named = {name.removeprefix("PERENNIAL_").lower() for name in re.findall(r"\bPERENNIAL_[A-Z_]+", README)}
    known = {*Settings.model_fields, "serving_", *(f"serving_{name}" for name in ServingSettings.model_fields)}
    known |= {"web_", *(f"web_{name}" for name in WebSettings.model_fields)}
    assert named <= known, sorted(named - known)


RECORDS = sorted((PROJECT_ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_decision_records_are_numbered_and_in_the_index() -> None:
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    index = (PROJECT_ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[(\d{4})\]\(([^)]+)\) (.+)$", index, re.M)
    headings = [path.read_text(encoding="utf-8").partition("\n")[0] for path in RECORDS]
    titled = [heading.removeprefix(f"# {number}. ") for number, heading in enumerate(headings, 1)]
    assert sorted(linked) == [(path.name[:4], path.name, title) for path, title in zip(RECORDS, titled, strict=True)]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name[:4])
def test_a_decision_record_has_its_sections(path: Path) -> None:
    parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
    assert [part.split("\n", 1)[0] for part in parts[1:]] == ["Context", "Decision", "Rejected", "Measured"]
    assert all(len(part.split("\n", 1)[1].strip()) > 20 for part in parts[1:])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name[:4])
def test_what_a_record_measured_has_its_program_or_is_said_to_be_nothing(path: Path) -> None:
    measured = path.read_text(encoding="utf-8").partition("## Measured")[2]
    assert re.search(r"\b(?:tests|benchmarks)/[\w/]+\.py|Nothing was measured|No figure", measured)


def test_no_two_records_say_the_same_of_their_measuring() -> None:
    measured = [path.read_text(encoding="utf-8").partition("## Measured")[2].split() for path in RECORDS]
    assert [text for number, text in enumerate(measured) if text in measured[:number]] == []


def test_each_word_of_the_glossary_is_told_once_with_its_place() -> None:
    glossary = (PROJECT_ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line for line in glossary.splitlines() if line.startswith("| **")]
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in cells)
    words = [row[0].strip() for row in cells]
    assert len(words) == len(set(words))


def test_each_key_that_the_glossary_names_is_one_of_a_definitions() -> None:
    glossary = (PROJECT_ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    sections = {name: field.annotation for name, field in ModelDefinition.model_fields.items()}
    for section, key in re.findall(r"`(data|training|gate|monitoring|serving)\.([a-z_]+)[`:]", glossary):
        assert key in sections[section].model_fields, f"{section}.{key}"
    for table in re.findall(r"table `([a-z_]+)`", glossary):
        assert table in LAYOUT, table


def test_architecture_fits_on_two_pages() -> None:
    assert len((PROJECT_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 110
