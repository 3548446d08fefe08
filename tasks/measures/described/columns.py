"""The columns that stand for a text or an image in profiles: their names, whose they are, their values in a frame.

Each value tells of its row alone, but for one: whether a row repeats another that came shortly before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.measures.described import images, legacy, texts
from tasks.measures.profiles import Column, Counts

DescribedKind = Literal["text", "image", "text before"]

EMPTY, UNREADABLE, REPEATED = "empty", "unreadable", "repeated"
SHARES = ("unknown words", "non-letters", "colour")
FLAGS = (EMPTY, UNREADABLE, REPEATED)
DIGEST = "_digest of "
REPEAT_ROWS = 1_000
_WHATS: Mapping[str, tuple[str, ...]] = {
    "text": (*texts.NUMBERS, EMPTY, REPEATED, texts.SCRIPT),
    "image": (*images.NUMBERS, UNREADABLE, REPEATED),
    "text before": legacy.NUMBERS,
}


@dataclass(frozen=True)
class Described:
    """One feature that is watched by what can be said of its values.

    Attributes:
        feature: Its name.
        kind: text, image, or a text as references knew it before.
        names: The column of each thing said, such as `comment: characters` of characters.
        vocabulary: Of a text, the terms that are known.
    """

    feature: str
    kind: DescribedKind
    names: Mapping[str, str]
    vocabulary: tuple[str, ...] = ()

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.vocabulary)

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns that hold numbers, flags not among them."""
        return tuple(name for what, name in self.names.items() if what not in (*FLAGS, texts.SCRIPT))

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(name for what, name in self.names.items() if what in FLAGS)

    @property
    def categorical(self) -> tuple[str, ...]:
        return tuple(name for what, name in self.names.items() if what == texts.SCRIPT)

    @property
    def gone(self) -> str | None:
        """The flag of values that say nothing: empty texts, images that can't be read."""
        return self.names.get(EMPTY) or self.names.get(UNREADABLE)

    def to_dict(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "kind": self.kind,
            "names": dict(self.names),
            "vocabulary": list(self.vocabulary),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Described:
        return cls(raw["feature"], raw["kind"], dict(raw["names"]), tuple(raw["vocabulary"]))

    @classmethod
    def before(cls, feature: str, vocabulary: Sequence[str]) -> Described:
        """A text of a reference that knew three numbers of it."""
        return cls(feature, "text before", legacy.old_names(feature), tuple(vocabulary))


@dataclass(frozen=True)
class Owned:
    """What a column of the profile says, and of which feature."""

    what: str
    feature: str
    kind: DescribedKind

    @property
    def is_flag(self) -> bool:
        return self.what in FLAGS

    @property
    def is_share(self) -> bool:
        return self.what in SHARES


@dataclass(frozen=True)
class Learned:
    """What describing a training makes: how its features are described from now on, and its own rows described.

    Attributes:
        frame: The rows, with the columns of `watched` in place of the features.
    """

    watched: tuple[Described, ...]
    frame: pd.DataFrame = field(repr=False)


def owners(watched: Sequence[Described]) -> dict[str, Owned]:
    """By column of the profile whose it is; columns that are features themselves are not in it."""
    return {name: Owned(what, item.feature, item.kind) for item in watched for what, name in item.names.items()}


def learn(
    frame: pd.DataFrame, *, text: Sequence[str], image: Sequence[str], taken: Sequence[str], starts: Counts
) -> Learned:
    """Describe a training's rows, in order of time; vocabularies are made of them.

    Args:
        frame: The rows.
        text, image: The features.
        taken: Names that are columns already.
        starts: As of `with_repeats`.
    """
    used = {name.casefold() for name in taken}
    watched: list[Described] = []
    own: dict[str, frozenset[str]] = {}
    for kind, features in (("text", text), ("image", image)):
        for feature in features:
            names = {what: _free(f"{feature}: {what}", used) for what in _WHATS[kind]}
            vocabulary: tuple[str, ...] = ()
            if kind == "text":
                vocabulary, own[feature] = texts.make_vocabulary(frame[feature])
            watched.append(Described(feature, "text" if kind == "text" else "image", names, vocabulary))
    return Learned(tuple(watched), with_repeats(_describe(frame, watched, own), watched, starts))


def has(frame: pd.DataFrame, item: Described) -> bool:
    """Whether a frame holds the feature, as it is or described."""
    return item.feature in frame or next(iter(item.names.values())) in frame


def describe(frame: pd.DataFrame, watched: Sequence[Described]) -> pd.DataFrame:
    """The frame with what is said of each text and image in its place; without features to describe, itself.

    A feature that is absent, or described already, is left alone. Beside the columns there is, for `with_repeats`, a
    digest of each value, good within one process.
    """
    return _describe(frame, watched, {})


def with_repeats(frame: pd.DataFrame, watched: Sequence[Described], starts: Counts) -> pd.DataFrame:
    """A described frame, in order of time, with the flags of what has come before; digests are dropped.

    A row repeats another if its value, neither missing nor empty nor unreadable, is one of the 1,000 rows before it in
    the same stretch: so the share is the same however many rows a window has, and wherever it was cut.

    Args:
        starts: Shape (rows,): the number of the stretch that each row is in, such as a window of the training.
    """
    found = {}
    for item in watched:
        name, digests = item.names.get(REPEATED), f"{DIGEST}{item.feature}"
        if name is None or digests not in frame:
            continue
        gone = frame[str(item.gone)].to_numpy(dtype=np.float64)
        repeats = _repeats(frame[digests].to_numpy(dtype=np.int64), starts) & (gone == 0)
        found[name] = np.where(np.isnan(gone), np.nan, repeats.astype(np.float64))
    drop = [name for item in watched if (name := f"{DIGEST}{item.feature}") in frame]
    return frame.drop(columns=drop).assign(**found) if drop else frame


def flag_column(name: str) -> Column:
    """The bins of a flag: what is ordinary is not set, so that the share of what is set lies outside."""
    return Column(name, "numeric", edges=(0.0, 0.5))


def _describe(frame: pd.DataFrame, watched: Sequence[Described], own: Mapping[str, frozenset[str]]) -> pd.DataFrame:
    wanted = [item for item in watched if item.feature in frame]
    if not wanted:
        return frame
    made: dict[str, Any] = {}
    for item in wanted:
        values = frame[item.feature].astype(object).to_numpy()
        if item.kind == "image":
            made |= _of_images(item, values)
        elif item.kind == "text":
            made |= _of_texts(item, values, own.get(item.feature, item.known))
        else:
            numbers = legacy.describe_as_before(list(values), item.known)
            made |= {name: numbers[:, place] for place, name in enumerate(item.names.values())}
    kept = frame.drop(columns=[item.feature for item in wanted])
    return pd.concat([kept, pd.DataFrame(made, index=frame.index)], axis=1)


def _of_texts(item: Described, values: NDArray[np.object_], known: frozenset[str]) -> dict[str, Any]:
    numbers, scripts = texts.describe_texts(list(values), known)
    present = ~np.isnan(numbers[:, 0])
    blank = np.array([isinstance(value, str) and not value.strip() for value in values], dtype=np.float64)
    made: dict[str, Any] = {item.names[what]: numbers[:, place] for place, what in enumerate(texts.NUMBERS)}
    made[item.names[EMPTY]] = np.where(present, blank, np.nan)
    made[item.names[texts.SCRIPT]] = pd.array(scripts, dtype="str")
    made[f"{DIGEST}{item.feature}"] = np.array([hash(value) for value in values], dtype=np.int64)
    return made


def _of_images(item: Described, values: NDArray[np.object_]) -> dict[str, Any]:
    numbers = np.full((len(values), len(images.NUMBERS)), np.nan)
    unreadable = np.full(len(values), np.nan)
    digests = np.zeros(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
            continue
        raw = images.content(value)
        found = images.describe_image(raw)
        unreadable[row] = found is None
        if found is not None and raw is not None:
            numbers[row], digests[row] = found, images.digest(raw)
    made: dict[str, Any] = {item.names[what]: numbers[:, place] for place, what in enumerate(images.NUMBERS)}
    made[item.names[UNREADABLE]] = unreadable
    made[f"{DIGEST}{item.feature}"] = digests
    return made


def _repeats(digests: NDArray[np.int64], starts: Counts) -> NDArray[np.bool_]:
    """Which rows have the value of one of the 1,000 rows before them in the same stretch."""
    order = np.lexsort((np.arange(len(digests)), starts, digests))
    same = (digests[order][1:] == digests[order][:-1]) & (starts[order][1:] == starts[order][:-1])
    near = order[1:] - order[:-1] <= REPEAT_ROWS
    found = np.zeros(len(digests), dtype=bool)
    found[order[1:]] = same & near
    return found


def _free(name: str, used: set[str]) -> str:
    """The name, or with a number behind it the first that nobody has."""
    number, free = 1, name
    while free.casefold() in used:
        number += 1
        free = f"{name} ({number})"
    used.add(free.casefold())
    return free
