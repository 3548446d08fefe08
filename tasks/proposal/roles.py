"""Which column names a row, which says when it happened, and which is to be predicted. A reason with each choice."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from perennial.definition.values import class_word
from perennial.model.truth import count_words, given_cells
from tasks.proposal.looks import Look

Looks = Mapping[str, Look]
_IDS = re.compile(r"(^|_|\b)(id|ids|uuid|guid|key|number|no|nr|index|row|rownames|rowid|idx)$|[a-z]Id$|[a-z]ID$", re.I)
_TIMES = re.compile(r"(^|_)(time|date|datetime|timestamp|ts|when|day|hour|month|at|created|start|ds|t)(_|$)|Date|Time")
_TARGETS = (
    "target", "label", "outcome", "y", "class", "response", "result", "truth", "churn", "churned", "default", "fraud",
    "survived", "species", "price", "sales", "demand", "amount", "count", "score", "rating",
)  # fmt: skip
_FEATURES_TOO = frozenset(_TARGETS[_TARGETS.index("price") :])  # as often something that is known beforehand
_POSITIVE = ("1", "true", "yes", "y", "positive", "pos", "good", "success", "won", "churned", "spam", "fraud", "sick")
_YEARS = (1800, 2100)
_MOST_PARTS = 3


@dataclass(frozen=True)
class Choice:
    """A choice and why: several columns where a role takes several; none where nothing fits."""

    columns: tuple[str, ...]
    why: str
    doubtful: bool = False


def choose_target(looks: Looks, model: str) -> Choice:
    """The column that is most probably to be predicted: named like the model or like a target, else the last one."""
    usable = [name for name, look in looks.items() if look.kind in ("numeric", "categorical", "boolean")]
    folded = {name.lower(): name for name in usable}
    if (named := model.lower().replace("-", "_")) in folded:
        return Choice((folded[named],), "it is named as the model")
    if named_so := [word for word in _TARGETS if word in folded]:
        chosen, others = folded[named_so[0]], [folded[word] for word in named_so[1:]]
        others += [usable[-1]] if named_so[0] in _FEATURES_TOO and usable[-1] not in (chosen, *others) else []
        why = f"a column of this name mostly is; there are {len(looks)} columns"
        if others:
            why += f", of which it could be {' or '.join(others)} as well"
        return Choice((chosen,), why, doubtful=bool(others))
    if not usable:
        return Choice((), "no column holds numbers or classes", doubtful=True)
    return Choice((usable[-1],), "it is the last column: nothing else tells", doubtful=True)


def choose_time(looks: Looks, target: str) -> Choice:
    """The column of the event's time: of several, one that is named so and tells the rows apart best."""
    found = [look for look in looks.values() if look.kind == "datetime" and look.name != target and not look.missing]
    if not found:
        return Choice((), "no column holds a time in every row")
    best = max(found, key=lambda look: (bool(_TIMES.search(look.name)), look.distinct))
    others = [look.name for look in found if look is not best]
    if not others:
        return Choice((best.name,), "the only column of times without a gap")
    return Choice((best.name,), f"of the columns of times; the others are {', '.join(others)}", doubtful=True)


def year_column(looks: Looks, target: str) -> str | None:
    """A column of whole years, for tables that know no finer time."""
    for look in looks.values():
        if look.kind == "numeric" and look.whole and "year" in look.name.lower() and look.name != target:
            known = look.values.dropna()
            if len(known) == len(look.values) and known.between(*_YEARS).all():
                return look.name
    return None


def choose_id(looks: Looks, time: str | None, target: str) -> Choice:
    """What names a row: a column that is unique, or up to three that are so together; none where nothing does."""
    candidates = [look for look in looks.values() if look.name != target and not look.missing]
    unique = [look for look in candidates if look.unique and _may_name(look)]
    if named := [look for look in unique if _IDS.search(look.name)]:
        return Choice((named[0].name,), "it differs in every row")
    if unique:
        return Choice((unique[0].name,), "it differs in every row", doubtful=True)
    if time is not None and looks[time].unique:
        return Choice((time,), "no two rows are of one time")
    parts = [look.name for look in candidates if look.kind in ("categorical", "none", "boolean") and look.distinct > 1]
    parts += [look.name for look in candidates if look.kind == "numeric" and look.whole and _IDS.search(look.name)]
    parts = sorted(dict.fromkeys(parts), key=lambda name: not _IDS.search(name))[:12]
    for count in range(1, _MOST_PARTS):
        for chosen in combinations(parts, count):
            together = (*chosen, time) if time is not None else chosen
            if len(together) > 1 and _tell_apart(looks, together):
                return Choice(together, "together they differ in every row", doubtful=True)
    return Choice((), "no column, nor a few together, differ in every row")


def _may_name(look: Look) -> bool:
    """Texts do; whole numbers only where they count rows or are named so: an amount may differ by chance."""
    if look.kind in ("none", "categorical", "text"):
        return not pd.api.types.is_numeric_dtype(look.values.dtype) or look.whole
    if look.kind != "numeric" or not look.whole:
        return False
    steps = np.diff(look.values.to_numpy(dtype=np.float64))
    return bool(_IDS.search(look.name)) or bool(len(steps) and (steps == 1).all())


def _tell_apart(looks: Looks, names: Iterable[str]) -> bool:
    frame = pd.DataFrame({name: looks[name].values for name in names})
    return not bool(frame.duplicated().any())


def choose_task(look: Look) -> tuple[str, str]:
    """classification or regression, and why."""
    if look.kind != "numeric":
        return "classification", f"{look.distinct:,} classes"
    if look.distinct <= 2:
        return "classification", "two values"
    if look.whole and look.distinct <= 12:
        return "regression", f"{look.distinct} numbers; --task classification, if they are names of classes"
    return "regression", "numbers"


def choose_classes(values: pd.Series) -> tuple[tuple[str, ...], str]:
    """The classes as the definition names them, of two the positive one last; and why that one."""
    counts = count_words(values)
    words = sorted(counts, key=_order)
    if len(words) != 2:
        return tuple(words), f"{len(words)} classes"
    for word in _POSITIVE:
        if found := [name for name in words if name.lower() == word]:
            return tuple(sorted(words, key=lambda name: name == found[0])), f"{found[0]!r} is what is asked for"
    rare = min(words, key=lambda name: counts[name])
    return tuple(sorted(words, key=lambda name: name == rare)), f"{rare!r} is the rarer one"


def class_words(values: pd.Series) -> pd.Series:
    """Each cell as a class is written, missing where there is none: shape (n,)."""
    given = given_cells(values)
    return pd.Series([class_word(value) if known else None for value, known in zip(values, given, strict=True)])


def _order(word: str) -> tuple[bool, float, str]:
    try:
        return (False, float(word), word)
    except ValueError:
        return (True, 0.0, word)


def may_be_features(looks: Looks, taken: Collection[str]) -> list[Look]:
    """The columns that have no role of their own, in their order."""
    return [look for look in looks.values() if look.name not in taken]
