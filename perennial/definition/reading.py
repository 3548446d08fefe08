"""Definitions and policies from their YAML files; an error names file, key, value, rule and remedy. No rule is here."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from perennial.definition.model import ModelDefinition
from perennial.definition.monitoring import Monitoring
from perennial.errors import DefinitionError

# Files beside the definitions that define no model.
AUTOMATIONS_FILE = "automations.yaml"


NOT_MODELS = ("prefect.yaml", AUTOMATIONS_FILE)


def load_definition(path: Path) -> ModelDefinition:
    """Read one definition.

    Raises:
        DefinitionError: The file can't be read, is no YAML mapping, or breaks a rule; all of them are named.
    """
    definition = _validated(read_mapping(path), path)
    if definition.name != path.stem:
        raise DefinitionError(
            f"{path}: name: {definition.name!r} differs from the file's name", f"Name the file {definition.name}.yaml"
        )
    return definition.model_copy(update={"path": path.resolve()})


def load_policy(path: Path, definition: ModelDefinition) -> Monitoring:
    """Read a monitoring policy: a YAML of the keys of a definition's `monitoring`, or with that key above them.

    What the file leaves out is as in the model's definition.

    Raises:
        DefinitionError: As `load_definition`, the keys named as they are in a definition.
    """
    found = read_mapping(path, start="the keys of `monitoring`, such as `growth: 1.5`")
    if set(found) == {"monitoring"} and isinstance(found["monitoring"], dict):
        found = found["monitoring"]
    raw = definition.model_dump(mode="json")
    triggers = found.get("triggers")
    if isinstance(triggers, dict):
        found = found | {"triggers": raw["monitoring"]["triggers"] | triggers}
    return _validated(raw | {"monitoring": raw["monitoring"] | found}, path).monitoring


def read_mapping(path: Path, start: str = "`name: NAME`") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        DefinitionError: The file can't be read or holds something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: can't be read: {error.strerror}", "Give the path of a definition") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path}: is not UTF-8: {error}", "Save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: is not YAML: {' '.join(str(error).split())}", "Mend the syntax") from error
    if not isinstance(raw, dict):
        raise DefinitionError(f"{path}: holds {type(raw).__name__}, not a mapping", f"Start it with {start}")
    return raw


def _validated(raw: dict[str, Any], path: Path) -> ModelDefinition:
    if "path" in raw:
        raise DefinitionError(f"{path}: path: unknown key", "Remove it")
    try:
        return ModelDefinition.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in error.errors())
        raise DefinitionError(f"{path}: {problems}") from error


def load_definitions(folders: list[Path]) -> dict[str, ModelDefinition]:
    """All definitions in the folders, by name.

    Raises:
        DefinitionError: A folder is missing, a definition is wrong, or two have one name.
    """
    found: dict[str, ModelDefinition] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DefinitionError(f"the models' folder {folder} does not exist", "Make it, or set PERENNIAL_MODELS")
        for path in sorted(folder.glob("*.yaml")):
            if path.name in NOT_MODELS:
                continue
            definition = load_definition(path)
            if definition.name in found:
                raise DefinitionError(
                    f"{path}: name: {definition.name!r} is taken by {found[definition.name].path}", "Rename one"
                )
            found[definition.name] = definition
    return found


def _describe(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "the whole"
    value = item.get("input")
    shown = f" = {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
    if item["type"] == "missing":
        return f"{key}: is required. Add it"
    if item["type"] == "extra_forbidden":
        return f"{key}{shown}: unknown key. {_nearest(item['loc'])}"
    rule = item["msg"].removeprefix("Value error, ")
    return f"{key}{shown}: {rule[0].lower() + rule[1:]}. Correct the value"


def _nearest(location: tuple[Any, ...]) -> str:
    section: Any = ModelDefinition
    for part in location[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        # Of a mapping, such as gate.limits, the part is any key and the section its values' type.
        section = field.annotation if field else get_args(section)[-1] if get_origin(section) is dict else None
        # Of an optional section, such as runner, the section.
        if get_origin(section) is not dict:
            section = next((kind for kind in get_args(section) if hasattr(kind, "model_fields")), section)
    names = [name for name in getattr(section, "model_fields", {}) if name != "path"]
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Remove it; known here: {', '.join(names)}" if names else "Remove it"
