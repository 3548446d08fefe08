"""Writes docs/definition.md: every key of a definition, from the schema and docs/definition-notes.yaml.

.venv/bin/python docs/make_definition.py
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from perennial.definition import Limit, ModelDefinition, Section

FOLDER = Path(__file__).resolve().parent
HEAD = """# The definition, key by key

Made by `docs/make_definition.py` from the schema and `docs/definition-notes.yaml`: change those, not this.
A definition is `deployments/NAME.yaml`; unknown keys are refused by name, with the nearest that is known. Durations are
written as 30s, 15m, 12h, 7d or 2w, schedules as cron expressions in UTC, shares as 0.02 or 2%. How cells of the data
are read is in [spelling.md](spelling.md); `perennial init` writes a first one with a reason beside each choice.
"""


def keys(section: type[Section], path: tuple[str, ...] = ()) -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a section that holds a value, by its path."""
    for name, field in section.model_fields.items():
        if field.exclude:
            continue
        inner = _section(field)
        if inner is None:
            yield ".".join((*path, name)), field
        else:
            yield from keys(inner, (*path, name))


def document() -> str:
    """The text.

    Raises:
        SystemExit: A key has no note, or a note no key.
    """
    notes: dict[str, Any] = yaml.safe_load((FOLDER / "definition-notes.yaml").read_text(encoding="utf-8"))
    found = dict(keys(ModelDefinition))
    if lacking := sorted(set(found) - set(notes)):
        raise SystemExit(f"docs/definition-notes.yaml: no note on {', '.join(lacking)}: say `when`, and an `example`")
    if strange := sorted(set(notes) - set(found)):
        raise SystemExit(f"docs/definition-notes.yaml: no key is called {', '.join(strange)}")
    for path, note in notes.items():
        if not {"when", "example"} <= set(note) <= {"when", "example", "meaning"}:
            raise SystemExit(
                f"docs/definition-notes.yaml: {path}: give when and example, quoted where they have commas"
            )
    parts, room = [HEAD], None
    for path, field in found.items():
        section = path.rpartition(".")[0] or "at the top"
        if section != room:
            parts.append(
                f"\n## {section}\n\n| key | meaning | default | change it | example |\n|---|---|---|---|---|\n"
            )
            room = section
        parts.append(_row(path, field, notes[path]))
    return "".join(parts)


def _row(path: str, field: FieldInfo, note: dict[str, str]) -> str:
    meaning = (field.description or note.get("meaning") or "").rstrip(".")
    if not meaning:
        raise SystemExit(f"docs/definition-notes.yaml: {path} has no meaning, nor has its field a description")
    cells = [f"`{path.rpartition('.')[2]}`", f"{meaning}.", _default(field), note["when"], f"`{note['example']}`"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ((), {}, ""):
        return "none"
    for item in field.metadata:
        if hasattr(item, "func") and type(item).__name__ == "PlainSerializer":
            value = item.func(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _section(field: FieldInfo) -> type[Section] | None:
    kinds = [field.annotation, *typing.get_args(field.annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section) and kind is not Limit]
    return found[0] if found else None


if __name__ == "__main__":
    (FOLDER / "definition.md").write_text(document(), encoding="utf-8")
