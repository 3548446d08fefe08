"""The maps of one champion: which versions differ by the map only, which map answers, which is fair to judge by.

Fitting and testing a map is tasks.calibration.fit's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from perennial.state.registry import Registry, Version
from tasks.calibration.fit import Floats, Recalibrator


@dataclass(frozen=True)
class ReignedMap:
    """A map that was let in.

    Attributes:
        fitted_until: The time of the newest row that it was fitted on.
    """

    fitted_until: datetime
    map: Recalibrator


def base_version(version: Version) -> str:
    """The number of the version that was trained: its own, or for a recalibrated one that of the mapped model."""
    return version.tag("base_version") or str(version.number)


def base_versions(registry: Registry, model: str) -> dict[str, str]:
    """Of each of the model's versions the number of the one that was trained."""
    return {str(item.number): base_version(item) for item in registry.versions(model)}


def same_model(registry: Registry, champion: Version) -> tuple[str, ...]:
    """The other versions that differ from the champion by the score's map only."""
    own, base = str(champion.number), base_version(champion)
    return tuple(name for name, of in base_versions(registry, champion.model).items() if of == base and name != own)


def map_in_force(version: Version) -> Recalibrator | None:
    """The map behind which the version answers; None where it answers with its own score."""
    text = version.tag("recalibration")
    return Recalibrator.from_dict(json.loads(text)) if text else None


def reigned_maps(registry: Registry, champion: Version, *, as_of: datetime) -> tuple[ReignedMap, ...]:
    """The champion's map and those before it that reigned over the same model and were not rolled back."""
    lines = [line for line in registry.history(champion.model) if line.at <= as_of]
    undone = {line.previous for line in lines if line.action == "rollback"}
    reigned = {line.version for line in lines} - undone | {champion.number}
    found = []
    for version in registry.versions(champion.model):
        mapped = map_in_force(version)
        if version.number > champion.number or version.number not in reigned:
            continue
        if mapped is not None and base_version(version) == base_version(champion):
            # Versions of before the tag was written: no row as new as their moment can have had its truth.
            until = datetime.fromisoformat(version.tag("mapped_until") or version.tag("as_of"))
            found.append(ReignedMap(until, mapped))
    return tuple(found)


def judged_score(raw: Floats, maps: Iterable[ReignedMap], holdout_from: datetime) -> Floats:
    """What a champion answers by the newest of its maps that has seen no row of the holdout; raw where none has not.

    A challenger has learned from nothing since the holdout's start, so neither may the champion's map: else the
    champion is judged on rows that it was adjusted to. Both learn from them afterwards: the challenger by its refit.

    Args:
        raw: The champion's own score on the holdout, shape (n,).
        maps: Those that reigned over it.
        holdout_from: The oldest holdout row's time.
    """
    fair = _unseeing(maps, holdout_from)
    return fair.map.apply(raw) if fair else raw


def judged_note(maps: Iterable[ReignedMap], holdout_from: datetime) -> str:
    """For the gate's report: that the champion was judged by another map than the one in force; empty if it was not."""
    known = sorted(maps, key=lambda item: item.fitted_until)
    fair = _unseeing(known, holdout_from)
    if not known or fair is known[-1]:
        return ""
    told = f"The champion's map has seen rows up to {known[-1].fitted_until:%Y-%m-%d %H:%M} of the holdout, so it was"
    return f"{told} judged by " + (f"its map of {fair.fitted_until:%Y-%m-%d %H:%M}." if fair else "its raw score.")


def _unseeing(maps: Iterable[ReignedMap], holdout_from: datetime) -> ReignedMap | None:
    unseen = [item for item in maps if item.fitted_until < holdout_from]
    return max(unseen, key=lambda item: item.fitted_until, default=None)
