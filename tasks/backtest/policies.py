"""The policies that a backtest puts side by side, and the way of a chosen one into the model's YAML. No replay."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from perennial.definition import (
    Doubt,
    ModelDefinition,
    Monitoring,
    Triggers,
    duration_text,
    load_definition,
    load_policy,
)
from perennial.errors import ConflictError, DefinitionError, NotFoundError
from tasks.check.decision import policy_digest

TRIGGERS = ("quality", "drift", "growth", "schedule", "estimate")
_AGE_WINDOWS = 4
_SECTION = "monitoring"


@dataclass(frozen=True)
class Candidate:
    """A policy with the name that it is told by.

    Attributes:
        doubt: What the gate does in doubt, where that is tried instead of the definition's own.
    """

    name: str
    kind: Literal["own", "variant", "file", "doubt"]
    policy: Monitoring
    doubt: Doubt | None = None


def make_candidates(
    definition: ModelDefinition, files: Sequence[Path] = (), *, every: timedelta, taken: Sequence[str] = ()
) -> tuple[Candidate, ...]:
    """The model's own policy, those of the files, and the own one with single triggers, with and without new maps.

    A variant that says the same as an earlier policy is left out. `drift` may act although labels could judge, and
    `schedule` takes four windows as the greatest age where the definition names none. `estimate` acts only where labels
    can't judge, as it does live; the own policy stands beside itself with that one trigger turned round. Where the gate
    doubts, the own policy is also shown with the other answer: that is the gate's, and is told, not recommended.

    Args:
        files: Policies, see perennial.definition.load_policy; each is called by its file's name.
        every: The time between two checks.
        taken: Names that are given away, such as the baselines'.

    Raises:
        DefinitionError: A file is wrong, or two policies have one name.
    """
    own = definition.monitoring
    told = [Candidate("own", "own", own)]
    for path in files:
        told.append(Candidate(path.stem, "file", load_policy(path, definition)))
    variants = _variants(own, every, definition.data.label_delay)
    names = [*taken, *(each.name for each in (*told, *variants, _in_doubt(definition)))]
    if twice := sorted({path.name for path in files if names.count(path.stem) > 1}):
        raise DefinitionError(f"the name of a policy is taken: {', '.join(twice)}", "Rename the file")
    digests = {policy_digest(each.policy) for each in told}
    for each in variants:
        if (digest := policy_digest(each.policy)) not in digests:
            digests.add(digest)
            told.append(each)
    return (*told, _in_doubt(definition))


def _in_doubt(definition: ModelDefinition) -> Candidate:
    other: Doubt = "keep" if definition.gate.doubt == "promote" else "promote"
    return Candidate(f"own, doubt {other}s", "doubt", definition.monitoring, other)


def _variants(own: Monitoring, every: timedelta, label_delay: timedelta) -> list[Candidate]:
    # By model_validate, so that a policy built here obeys the same rules as one in a file.
    def changed(**changes: Any) -> Monitoring:
        return Monitoring.model_validate({**own.model_dump(), **changes})

    found = [Candidate("own without maps" if own.recalibrate else "own with maps", "variant",
                       changed(recalibrate=not own.recalibrate))]  # fmt: skip
    asks = own.triggers.estimate
    turned = own.triggers.model_copy(update={"estimate": not asks}).model_dump()
    found.append(Candidate(f"own {'without' if asks else 'with'} estimate", "variant", changed(triggers=turned)))
    # The training data of a new champion is as old as its labels are late.
    age = own.maximum_age or label_delay + _AGE_WINDOWS * every
    for trigger in TRIGGERS:
        changes: dict[str, Any] = {"triggers": _only(trigger)}
        changes |= {"drift_alone": "always"} if trigger == "drift" else {}
        changes |= {"maximum_age": age} if trigger == "schedule" else {}
        name = f"schedule {duration_text(age)}" if trigger == "schedule" else trigger
        found += [
            Candidate(name, "variant", changed(**changes, recalibrate=False)),
            Candidate(f"{name} + maps", "variant", changed(**changes, recalibrate=True)),
        ]
    return [*found, Candidate("maps only", "variant", changed(triggers=_only(None), recalibrate=True))]


def _only(trigger: str | None) -> dict[str, bool]:
    return {name: name == trigger for name in Triggers.model_fields}


def write_policy(definition: ModelDefinition, policy: Monitoring) -> list[str]:
    """Put a policy into the definition's YAML; the keys that changed, with their values.

    Only the lines of `monitoring` are touched, their comments stay. The file is replaced in one step, after the new
    one has been read back and says what was wanted.

    Raises:
        NotFoundError: The definition was not read from a file.
        ConflictError: The file has changed since the definition was read.
        DefinitionError: The section can't be edited in place.
    """
    path = definition.path
    if path is None:
        raise NotFoundError(f"{definition.name} was not read from a file", "Write its `monitoring` by hand")
    if load_definition(path).hash != definition.hash:
        raise ConflictError(f"{path} has changed since the backtest began", "Run the backtest again")
    changes = _differences(definition.monitoring.model_dump(mode="json"), policy.model_dump(mode="json"))
    if not changes:
        return []
    text = _with_section(path.read_bytes().decode("utf-8"), changes, path)
    wanted = definition.model_copy(update={_SECTION: policy})
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".backtest-") as folder:
        staged = Path(folder) / path.name
        staged.write_bytes(text.encode("utf-8"))
        shutil.copymode(path, staged)
        if load_definition(staged).hash != wanted.hash:
            raise DefinitionError(f"{path}: `{_SECTION}` can't be edited in place", "Write the policy by hand")
        os.replace(staged, path)  # noqa: PTH105 - atomic, also where the target exists
    return _flat(changes)


def changes_text(own: Monitoring, wanted: Monitoring) -> str:
    """What of a definition's `monitoring` a policy changes, as YAML to copy; empty where nothing."""
    import yaml

    changes = _differences(own.model_dump(mode="json"), wanted.model_dump(mode="json"))
    return yaml.safe_dump({_SECTION: changes}, sort_keys=False, allow_unicode=True) if changes else ""


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old[name], dict):
            if inner := _differences(old[name], value):
                found[name] = inner
        elif value != old[name]:
            found[name] = value
    return found


def _flat(changes: Mapping[str, Any], before: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in changes.items():
        lines += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [f"{before}{name}: {value}"]
    return lines


def _with_section(text: str, changes: Mapping[str, Any], path: Path) -> str:
    """The text with the changed keys in its section, every other line as it was."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    whole = YAML().load(text)
    first, last = _section_lines(whole, lines)
    section = "".join(lines[first:last]).replace("\r\n", "\n")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    step = _indentation(section)
    yaml.indent(mapping=step, sequence=step + 2, offset=step)
    try:
        loaded = yaml.load(section) if section else {_SECTION: {}}
        loaded[_SECTION] = _merge(loaded[_SECTION] or {}, changes)
        written = io.StringIO()
        yaml.dump(loaded, written)
    except YAMLError as error:  # such as an alias to an anchor elsewhere
        raise DefinitionError(f"{path}: `{_SECTION}` can't be edited in place: {error}", "Write it by hand") from error
    before = "".join(lines[:first])
    if before and not before.endswith("\n"):
        before += newline
    return before + written.getvalue().replace("\n", newline) + "".join(lines[last:])


def _section_lines(whole: Any, lines: Sequence[str]) -> tuple[int, int]:
    """Where the section's lines begin and end; at the end of the text where there is none."""
    if _SECTION not in whole:
        return len(lines), len(lines)
    starts = {name: whole.lc.key(name)[0] for name in whole}
    first = starts[_SECTION]
    last = min((line for line in starts.values() if line > first), default=len(lines))
    while last > first + 1 and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
        last -= 1  # what stands before the next key belongs to it
    return first, last


def _indentation(section: str) -> int:
    for line in section.splitlines()[1:]:
        if line.strip() and not line.lstrip().startswith("#"):
            return max(1, len(line) - len(line.lstrip()))
    return 2


def _merge(section: Any, changes: Mapping[str, Any]) -> Any:
    for name, value in changes.items():
        section[name] = _merge(section.get(name) or {}, value) if isinstance(value, dict) else value
    return section
