"""What has become of texts and images, in words, by the columns that stand for them. No limit, no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from tasks.check.drift import ColumnDrift
from tasks.check.reference import Reference, RunSummary
from tasks.measures.described.columns import Owned
from tasks.measures.described.texts import SCRIPT
from tasks.measures.profiles import Counts

MOST_MOVED = 10
_MEDIAN = 2
Unit = Literal["", " characters", " words", " pixels", "%"]
# What is said of more and of less, and in what the numbers are.
_TEXTS: dict[str, tuple[str, str, Unit]] = {
    "characters": ("have become longer", "have become shorter", " characters"),
    "words": ("have more words", "have fewer words", ""),
    "words per sentence": ("have longer sentences", "have shorter sentences", " words"),
    "unknown words": ("hold more words unknown to training", "hold fewer words unknown to training", "%"),
    "non-letters": ("hold more characters that are no letters", "hold fewer characters that are no letters", "%"),
    "empty": ("are empty more often", "are empty less often", "%"),
    "repeated": ("repeat each other more often", "repeat each other less often", "%"),
}
_IMAGES: dict[str, tuple[str, str, Unit]] = {
    "brightness": ("have become brighter", "have become darker", ""),
    "contrast": ("have more contrast", "have less contrast", ""),
    "sharpness": ("have become sharper", "have become more blurred", ""),
    "width": ("have become wider", "have become narrower", " pixels"),
    "height": ("have become taller", "have become lower", " pixels"),
    "colour": ("have more colour", "have less colour", "%"),
    "unreadable": ("can't be read more often", "can't be read less often", "%"),
    "repeated": ("repeat each other more often", "repeat each other less often", "%"),
}


@dataclass(frozen=True)
class Moved:
    """One column of a text or an image that moved further than it ordinarily does.

    Attributes:
        column, feature, what, kind: The column, whose it is, and what it says.
        before, after: The median in the training's windows and in this one; of flags and scripts the share; None where
            it can't be told.
        told: One sentence.
        script: Of a script the one that is there more often.
        gone: What moved is how many are missing.
    """

    column: str
    feature: str
    what: str
    kind: str
    before: float | None
    after: float | None
    told: str
    script: str = ""
    gone: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Moved:
        return cls(**raw)


def what_moved(
    reference: Reference, summary: RunSummary, counts: Counts, drifted: Sequence[ColumnDrift]
) -> tuple[Moved, ...]:
    """Of columns beyond their limit those of texts and images, the furthest first.

    Args:
        summary, counts: Of the window; counts of shape (columns, width).
    """
    beyond = [item for item in drifted if item.ratio > 1 and item.name in reference.owners]
    return tuple(_moved(reference, summary, counts, item) for item in beyond[:MOST_MOVED])


def _moved(reference: Reference, summary: RunSummary, counts: Counts, item: ColumnDrift) -> Moved:
    owned = reference.owners[item.name]
    texts = owned.kind != "image"
    who = f"the {'texts' if texts else 'pictures'} of {owned.feature}"
    if abs(item.missing) / item.missing_limit >= item.distance / item.limit:
        share = _missing_before(reference, item.name)
        told = f"{who}: {owned.what} can be told of {'fewer' if item.missing > 0 else 'more'} of them than before"
        return Moved(item.name, owned.feature, owned.what, owned.kind, share, share + item.missing, told, gone=True)
    if owned.what == SCRIPT:
        return _of_script(reference, counts, item.name, owned, who)
    more, less, unit = (_TEXTS if texts else _IMAGES)[owned.what]
    before, after = _level(reference, summary, counts, item.name, owned)
    shown = [_number(value, unit) for value in (before, after)]
    if before is None or after is None or shown[0] == shown[1]:
        told = f"{who} differ more or less from each other than before in {owned.what}: {shown[1]} in the middle"
    else:
        told = f"{who} {more if after > before else less}: {shown[0]} → {shown[1]}" + (unit if unit != "%" else "")
    return Moved(item.name, owned.feature, owned.what, owned.kind, before, after, told)


def _level(
    reference: Reference, summary: RunSummary, counts: Counts, name: str, owned: Owned
) -> tuple[float | None, float | None]:
    """The middle before and now; of a flag the share that is set."""
    if owned.is_flag:
        position = _position(reference, name)
        total = reference.profile.counts.sum(axis=0)[position]
        bins = reference.profile.columns[position].bins
        return _share(total, bins - 1, bins), _share(counts[position], bins - 1, bins)
    medians = [run.columns[name].quantiles[_MEDIAN] for run in reference.runs if run.columns[name].quantiles]
    now = summary.columns[name].quantiles
    return (float(np.median(medians)) if medians else None), (now[_MEDIAN] if now else None)


def _of_script(reference: Reference, counts: Counts, name: str, owned: Owned, who: str) -> Moved:
    position = _position(reference, name)
    column, total = reference.profile.columns[position], reference.profile.counts.sum(axis=0)[position]
    shares = [(_share(total, place, column.bins), _share(counts[position], place, column.bins))
              for place in range(column.bins)]  # fmt: skip
    most = max(range(column.bins), key=lambda place: shares[place][1] - shares[place][0])
    known = column.categories[most] if most < len(column.categories) else ""
    script = f"the script {known}" if known else "scripts that training hardly or never saw"
    told = f"{who} are more often in {script}: {shares[most][0]:.0%} → {shares[most][1]:.0%}"
    return Moved(name, owned.feature, owned.what, owned.kind, *shares[most], told, script=known)


def _share(counts: Counts, place: int, bins: int) -> float:
    return float(counts[place] / max(1, counts[:bins].sum()))


def _missing_before(reference: Reference, name: str) -> float:
    total = reference.profile.counts.sum(axis=0)[_position(reference, name)]
    return float(total[-1] / max(1, total.sum()))


def _position(reference: Reference, name: str) -> int:
    return next(i for i, column in enumerate(reference.profile.columns) if column.name == name)


def _number(value: float | None, unit: Unit) -> str:
    if value is None:
        return "none"
    return f"{value:.0%}" if unit == "%" else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
