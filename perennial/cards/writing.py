"""Where cards are kept: among the artifacts of a version's run, and as its description. What they say is in `card`."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial.cards.card import Facts, render_card, render_description
from perennial.cards.page import render_page
from perennial.definition import ModelDefinition
from perennial.errors import NotFoundError, RegistryError
from perennial.redaction import redact
from perennial.state.registry import Registry, Version

EVALUATION_FILE, GATE_FILE = "evaluation.json", "gate.json"
MARKDOWN_FILE, HTML_FILE = "card/card.md", "card/card.html"
_log = logging.getLogger(__name__)


def gather(registry: Registry, definition: ModelDefinition, version: Version, *, at: datetime) -> Facts:
    """What is known of a version.

    Raises:
        RegistryError: The registry or its storage did not answer.
    """
    kept = _names(registry, version)
    evaluation = _read(registry, version, EVALUATION_FILE, kept)
    base = None
    if version.tag("kind") == "recalibration" and version.tag("base_version"):
        mapped = registry.version(version.model, int(version.tag("base_version")))
        base = _read(registry, mapped, EVALUATION_FILE, _names(registry, mapped))
    return Facts(
        definition=definition,
        version=version,
        history=registry.history(version.model),
        gate=_read(registry, version, GATE_FILE, kept),
        evaluation=evaluation,
        base=base,
        metrics=dict(registry.client.get_run(version.run_id).data.metrics),
        written_at=at,
    )


def write_card(registry: Registry, definition: ModelDefinition, version: Version, *, at: datetime) -> str:
    """Write the card of a version, in place of an earlier one; its Markdown.

    Raises:
        RegistryError: The registry or its storage did not answer.
    """
    facts = gather(registry, definition, version, at=at)
    text = render_card(facts)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / Path(MARKDOWN_FILE).name).write_text(text, encoding="utf-8")
        page = render_page(text, f"{version.model}, version {version.number}")
        (Path(folder) / Path(HTML_FILE).name).write_text(page, encoding="utf-8")
        registry.client.log_artifacts(version.run_id, folder, Path(MARKDOWN_FILE).parent.name)
    registry.client.update_model_version(version.model, str(version.number), render_description(facts, MARKDOWN_FILE))
    return text


def write_or_tell(
    registry: Registry, definition: Callable[[], ModelDefinition], version: Version, *, at: datetime
) -> bool:
    """Write the card of a new champion; whether it was written. It reigns without one, and people are told.

    Args:
        definition: Reads the model's definition.
    """
    try:
        write_card(registry, definition(), version, at=at)
    except Exception as error:  # noqa: BLE001 - whatever a card can fail of, the promotion stands
        reason = redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]
        _log.warning(
            "version %s of %s is champion and has no card: %s. Write it: perennial card %s --write",
            version.number, version.model, reason, version.model,
        )  # fmt: skip
        return False
    return True


def read_card(registry: Registry, version: Version, name: str = MARKDOWN_FILE) -> str:
    """The card as it was written last: `MARKDOWN_FILE` or `HTML_FILE`.

    Raises:
        NotFoundError: The version has none.
        RegistryError: The storage did not answer.
    """
    if Path(MARKDOWN_FILE).parent.name not in _names(registry, version):
        raise NotFoundError(
            f"version {version.number} of {version.model} has no card",
            f"Write it: `perennial card {version.model} --version {version.number} --write`",
        )
    return registry.run_artifact(version, name).read_text(encoding="utf-8")


def _names(registry: Registry, version: Version) -> frozenset[str]:
    return frozenset(item.path for item in registry.client.list_artifacts(version.run_id))


def _read(registry: Registry, version: Version, name: str, kept: frozenset[str]) -> Mapping[str, Any] | None:
    """A JSON file of the run; None where it never had one."""
    if name not in kept:
        return None
    try:
        found: Mapping[str, Any] = json.loads(registry.run_artifact(version, name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RegistryError(
            f"{name} of version {version.number} of {version.model} is no JSON: {error}", "Restore it from a backup"
        ) from error
    return found
