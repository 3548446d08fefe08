"""Where a proposal's files go, and writing them: never over what is there. The one module here that writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from perennial.errors import ConflictError, DefinitionError
from perennial.settings import Settings
from tasks.proposal.propose import Proposal

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Places:
    """Where the files go.

    Attributes:
        rows: The table with what was made in it, or one that came from memory.
        schema: The editors' schema beside the definition, where there is one.
    """

    definition: Path
    suite: Path
    rows: Path
    schema: Path | None


def places_for(name: str, settings: Settings) -> Places:
    """The places of a model's files.

    Raises:
        DefinitionError: The name is none.
        ConflictError: Something is there already.
    """
    if not _NAME.fullmatch(name):
        problem = f"{name!r} is no model's name: lowercase letters, digits and dashes, a letter first"
        raise DefinitionError(problem, "Choose another NAME")
    for folders, ending in ((settings.model_folders, "yaml"), (settings.expectation_folders, "json")):
        for folder in folders:
            if (path := folder / f"{name}.{ending}").exists():
                raise ConflictError(
                    f"{path} is there already, and nothing is overwritten",
                    f"Choose another NAME, or take it away: `perennial remove {name}`",
                )
    rows = settings.home_path / "init" / name / "history.parquet"
    if rows.exists():
        raise ConflictError(f"{rows} is there already, and nothing is overwritten", "Choose another NAME, or remove it")
    models = settings.model_folders[0]
    schema = models / "model.schema.json"
    return Places(
        models / f"{name}.yaml", settings.expectation_folders[0] / f"{name}.json", rows,
        schema if schema.is_file() else None,
    )  # fmt: skip


def with_source(proposal: Proposal, places: Places, source: Mapping[str, str] | None = None) -> Proposal:
    """The proposal with the source that it will have: a given one, or the copy in which columns were made."""
    if source is None and proposal.frame is not None:
        source = {"parquet": str(places.rows)}
    raw = proposal.raw
    if source is not None:
        raw = raw | {"data": raw["data"] | {"source": dict(source)}}
    head = proposal.head
    if places.schema is not None:
        head = (f"yaml-language-server: $schema={places.schema.name}", *head)
    return replace(proposal, raw=raw, head=head)


def write(proposal: Proposal, places: Places) -> list[Path]:
    """Write definition and suite, and the rows where columns were made."""
    _ = proposal.definition  # checked by its own rules before there is any file
    written = []
    for path in (places.definition, places.suite):
        path.parent.mkdir(parents=True, exist_ok=True)
    if proposal.frame is not None:
        places.rows.parent.mkdir(parents=True, exist_ok=True)
        proposal.frame.to_parquet(places.rows)
        written.append(places.rows)
    texts = {
        places.definition: proposal.text,
        places.suite: json.dumps(proposal.suite, indent=2, ensure_ascii=False) + "\n",
    }
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        written.append(path)
    return written
