"""Which locked packages are known to be vulnerable, by advisories of OSV's or pip-audit's form. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from perennial.errors import DataError


@dataclass(frozen=True)
class Weakness:
    """A locked package that an advisory names. `fixed` are versions without it, the lowest first."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    summary: str


def weaknesses(locked: Mapping[str, str], document: Any, source: str) -> list[Weakness]:
    """What a document says of the locked packages.

    Args:
        locked: Names to versions.
        document: pip-audit's report, one OSV record, a list of records, or `{"vulns": […]}`.
        source: Where it is from, for messages.

    Raises:
        DataError: It has none of these forms.
    """
    known: dict[str, str] = {canonicalize_name(name): version for name, version in locked.items()}
    try:
        found = list(_of_audit(known, document) if _is_audit(document) else _of_osv(known, _records(document)))
    except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
        raise DataError(
            f"{source} has no form of advisories that is known: {type(error).__name__}: {error}",
            "Give OSV's JSON, or `pip-audit --format json`'s",
        ) from error
    unique = {(item.package, item.id): item for item in found}
    return sorted(unique.values(), key=lambda item: (item.package, item.id))


def _is_audit(document: Any) -> bool:
    return isinstance(document, dict) and "dependencies" in document


def _records(document: Any) -> list[Any]:
    if isinstance(document, dict):
        return list(document["vulns"]) if "vulns" in document else [document]
    return list(document)


def _of_audit(known: Mapping[str, str], document: Any) -> Iterator[Weakness]:
    for item in document["dependencies"]:
        name = canonicalize_name(item["name"])
        if name not in known or "version" not in item or Version(item["version"]) != Version(known[name]):
            continue
        for found in item["vulns"]:
            aliases, fixed = tuple(found.get("aliases", ())), tuple(found.get("fix_versions", ()))
            yield Weakness(name, known[name], found["id"], aliases, fixed, _short(found.get("description")))


def _of_osv(known: Mapping[str, str], records: list[Any]) -> Iterator[Weakness]:
    for record in records:
        if record.get("withdrawn"):
            record["id"]  # of its form, at least
            continue
        for affected in record["affected"]:
            package = affected["package"]
            name = canonicalize_name(package["name"])
            if package["ecosystem"] != "PyPI" or name not in known or not _hits(known[name], affected):
                continue
            fixed = {event["fixed"] for events in _ranges(affected) for event in events if "fixed" in event}
            later = sorted((item for item in fixed if Version(item) > Version(known[name])), key=Version)
            summary = _short(record.get("summary") or record.get("details"))
            yield Weakness(name, known[name], record["id"], tuple(record.get("aliases", ())), tuple(later), summary)


def _hits(version: str, affected: Any) -> bool:
    """OSV's evaluation: listed by name, or within a range (https://ossf.github.io/osv-schema/#evaluation)."""
    if version in affected.get("versions", ()):
        return True
    return any(_within(Version(version), events) for events in _ranges(affected))


def _ranges(affected: Any) -> list[list[dict[str, str]]]:
    return [item["events"] for item in affected.get("ranges", ()) if item["type"] in ("ECOSYSTEM", "SEMVER")]


def _within(version: Version, events: list[dict[str, str]]) -> bool:
    def at(event: dict[str, str]) -> Version:
        return Version(next(iter(event.values())))

    inside = False
    for event in sorted((item for item in events if "limit" not in item), key=at):
        if "introduced" in event and version >= at(event):
            inside = True
        elif ("fixed" in event and version >= at(event)) or ("last_affected" in event and version > at(event)):
            inside = False
    return inside


def _short(text: str | None) -> str:
    return " ".join((text or "").split())[:200]
