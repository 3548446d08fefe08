"""Which versions may go, and which versions of the tables must stay: decided from data. Nothing is read or deleted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from perennial.state.registry import Reign, Version

PINNED, WAITING = "pinned", "waiting"
_TABLE_VERSION = re.compile(r"(\w+)@(\d+)")


def made_at(version: Version) -> datetime:
    """When it was registered, or the moment its training stood at, the later: a replay of the past is young."""
    told = version.tag("as_of")
    return max(datetime.fromisoformat(told), version.created_at) if told else version.created_at


def protected(versions: Sequence[Version], aliases: Mapping[str, int]) -> dict[int, str]:
    """Versions in use, with the reason: an alias, a wait for a person or for evidence, a pin; and the newest."""
    found: dict[int, str] = {}
    for version in versions:
        if version.tag("approval") == "pending":
            found[version.number] = "it waits for a person"
        elif version.tag(WAITING) == "for evidence":
            found[version.number] = "it waits for evidence"
        elif version.tag(PINNED).lower() not in ("", "false", "0", "no"):
            found[version.number] = "it is pinned"
    if versions:
        found.setdefault(max(version.number for version in versions), "it is the newest")
    return found | {number: f"it is @{alias}" for alias, number in aliases.items()}


def outdated_versions(
    versions: Sequence[Version],
    history: Iterable[Reign],
    aliases: Mapping[str, int],
    *,
    kept: timedelta | None,
    as_of: datetime,
) -> list[Version]:
    """The versions that never reigned, are in nobody's use, carry no kept version's map, and are old enough to go."""
    if kept is None:
        return []
    reigned = {line.version for line in history}
    stays = set(protected(versions, aliases)) | reigned
    young = {version.number for version in versions if made_at(version) > as_of - kept}
    stays |= young
    bases = {version.number: int(base) for version in versions if (base := version.tag("base_version"))}
    while below := {bases[number] for number in stays & bases.keys()} - stays:  # a map may lie on a map
        stays |= below
    return [version for version in versions if version.number not in stays]


def read_versions(
    versions: Sequence[Version], in_use: Collection[int], *, kept: timedelta | None, as_of: datetime
) -> dict[str, list[int]]:
    """By table, the versions that trainings read and that must stay readable: of those in use, and of the young."""
    found: dict[str, set[int]] = {}
    for version in versions:
        if version.number in in_use or kept is None or made_at(version) > as_of - kept:
            for table, number in _TABLE_VERSION.findall(version.tag("data_version").partition("#")[0]):
                found.setdefault(table, set()).add(int(number))
    return {table: sorted(numbers) for table, numbers in found.items()}
