"""A definition as YAML with a comment on each choice, for people to read and change. Nothing is chosen here."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_WIDTH = 118
Key = tuple[str, ...]


def definition_text(raw: Mapping[str, Any], comments: Mapping[Key, str], head: Sequence[str]) -> str:
    """The YAML, read back to the same mapping.

    Args:
        raw: The definition's keys.
        comments: By path, such as ("data", "id"), what is said above the key.
        head: The lines of comment at the top.
    """
    from ruamel.yaml import YAML

    writer = YAML()
    writer.width = _WIDTH
    writer.default_flow_style = False
    buffer = io.StringIO()
    writer.dump(_commented(raw, comments, ()), buffer)
    wrapped = [part for line in head for part in textwrap.wrap(line, _WIDTH - 2)]
    return "".join(f"# {line}\n" for line in wrapped) + buffer.getvalue()


def _commented(raw: Mapping[str, Any], comments: Mapping[Key, str], path: Key) -> Any:
    from ruamel.yaml.comments import CommentedMap

    made = CommentedMap()
    indent = 2 * len(path)
    for key, value in raw.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            value = _commented(value, comments, here)
        elif isinstance(value, list | tuple):
            value = _flowing(value)
        made[key] = _scalar(value)
        if text := comments.get(here):
            before = "\n".join(textwrap.wrap(text, _WIDTH - indent - 2))
            made.yaml_set_comment_before_after_key(key, before=before, indent=indent)
    return made


def _scalar(value: Any) -> Any:
    """Quoted where the reader of definitions would take the plain text for something else: `no` is a truth value."""
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, str) and yaml.safe_load(value or "''") != value:
        return SingleQuotedScalarString(value)
    return value


def _flowing(values: Sequence[Any]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    made = CommentedSeq([_scalar(value) for value in values])
    made.fa.set_flow_style()
    return made
