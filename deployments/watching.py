"""Notices that the definitions changed while the runner runs, and registers what it finds. No execution of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployments.automation_config import Reruns, load_automations
from deployments.changes import Change
from deployments.register import register
from deployments.specification import FLOWS
from perennial.definition import load_definitions
from perennial.errors import DefinitionError
from perennial.settings import Settings

Fingerprint = frozenset[tuple[str, int, int]]


class Definitions:
    """The folders of models as they were registered last.

    Args:
        flows: As `deployments.register.register` takes them.

    Attributes:
        reruns: How often a crashed run is run again.
    """

    def __init__(self, settings: Settings, flows: Mapping[str, str] = FLOWS) -> None:
        self._settings, self._flows = settings, flows
        self._registered: Fingerprint | None = None
        self._changing: Fingerprint | None = None
        self.reruns = Reruns().most

    def register(self) -> list[Change]:
        """Bring the server in line with what the folders have now; what changed there.

        Raises:
            DefinitionError: A file breaks a rule, or no model is left: then the server stays as it is.
            ServiceError: No Prefect server answers.
        """
        now = _fingerprint(self._settings.model_folders)
        try:
            definitions = load_definitions(self._settings.model_folders)
            if not definitions:
                raise DefinitionError("no model is defined any more", "Nothing is removed; write a NAME.yaml")
            automations = load_automations(self._settings.model_folders, definitions)
            changes = register(definitions, self._flows, automations=automations)
        except DefinitionError:
            self._registered = now  # told once: only another change makes it right
            raise
        self._registered, self.reruns = now, automations.reruns.most
        return [change for change in changes if change.action != "unchanged"]

    def look(self) -> list[Change]:
        """The same where files came, changed or went since, and now stand still: no half-written file is read.

        Raises:
            DefinitionError: A file breaks a rule; told once a change.
            ServiceError: No Prefect server answers.
        """
        now = _fingerprint(self._settings.model_folders)
        if now == self._registered:
            return []
        if now != self._changing:
            self._changing = now
            return []
        return self.register()


def _fingerprint(folders: list[Path]) -> Fingerprint:
    found = set()
    for path in (path for folder in folders for path in folder.glob("*.yaml")):
        try:
            facts = path.stat()
        except FileNotFoundError:  # it went in between
            continue
        found.add((str(path), facts.st_mtime_ns, facts.st_size))
    return frozenset(found)
