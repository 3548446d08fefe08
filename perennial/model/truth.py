"""How a truth is coded, on every road: classes in the user's words to 0, 1, 2, …, values to finite numbers.

A truth is never guessed. The user's own words are understood however a column holds them (`2`, `2.0` and "2" are one),
and so are 1/0 and true/false where no class could be meant by them otherwise; whatever is left is refused by name.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition.values import MOST_CLASSES, class_word
from perennial.errors import DataError
from perennial.model.numbers import number

if TYPE_CHECKING:
    from perennial.definition import ModelDefinition

LEARNT_SHARE = 0.9  # so many of the first truths must be of the classes that are learnt, or people must name them
RARE_SHARE = 0.02  # a third word that is rarer is taken for a slip where two make up the rest
RARE_CLASS_SHARE = 0.005  # of many classes, one that is rarer must be declared
_SHORTHAND = {"1": True, "true": True, "0": False, "false": False}
_TRUTH_VALUES = {"true", "false"}
_NO_TRUTHS = (bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, np.ndarray)
_SHOWN = 8


@dataclass(frozen=True, init=False)
class Classes:
    """The classes of a target, in the user's words.

    Attributes:
        names: In the order of their codes 0, 1, 2, …; of two, the second is the positive one.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    @property
    def many(self) -> bool:
        """Whether there are more than two: then none is the positive one, and each has a probability of its own."""
        return len(self.names) > 2

    @property
    def negative(self) -> str:
        """Of two classes the one coded as 0."""
        return self._two[0]

    @property
    def positive(self) -> str:
        """Of two classes the one coded as 1."""
        return self._two[1]

    @property
    def _two(self) -> tuple[str, str]:
        first, second = self.names  # whoever asks for a positive one among many is mistaken
        return first, second

    def label(self, truth: float) -> str:
        """The user's word for a code."""
        return self.names[int(truth)]

    def told(self) -> str:
        """`'no' and 'yes' (positive)`, or all of many."""
        if self.many:
            return f"{', '.join(repr(name) for name in self.names[:-1])} and {self.names[-1]!r}"
        return f"{self.negative!r} and {self.positive!r} (positive)"

    def code(self, value: object) -> float | None:
        """0, 1, 2, …; None for what is no class, for what might mean several, and where there is nothing."""
        if _is_missing(value) or isinstance(value, _NO_TRUTHS):
            return None
        word = class_word(value)
        if word in self.names:
            return float(self.names.index(word))
        if self.many:
            return None
        folded = {name.lower(): name for name in self.names}
        if word.lower() in folded and set(folded) == _TRUTH_VALUES:  # True, TRUE and true are one
            return float(folded[word.lower()] == self.positive)
        meant = _SHORTHAND.get(word.lower())
        if meant is None or not self._is_free(word.lower()):
            return None
        return float(meant)

    def means(self, other: Classes) -> bool:
        """Whether the codes mean the same to both, however each writes it."""
        same = len(self.names) == len(other.names)
        return same and [self.code(name) for name in other.names] == list(range(len(self.names)))

    def _is_free(self, short: str) -> bool:
        """Whether 1/0 and true/false can only be the coding: no class is a number or a truth value itself.

        Where the classes are true and false, 1 and 0 are the same two; where they are 1 and 0, true and false are.
        """
        mine = {name.lower() for name in self.names}
        pairs = ({"0", "1"}, {"false", "true"})
        for pair, other in (pairs, pairs[::-1]):
            if mine == pair:
                return short in other and _SHORTHAND[self.positive.lower()]
        return not any(name in _SHORTHAND or _is_number(name) for name in mine)


ZERO_ONE = Classes("0", "1")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def declared_classes(definition: ModelDefinition) -> Classes | None:
    """The classes that the definition names; None where it leaves them to the data."""
    if definition.task != "classification" or not definition.classes:
        return None
    if len(definition.classes) > 2:
        return Classes(*definition.classes)
    positive = definition.positive or definition.classes[-1]
    (negative,) = (name for name in definition.classes if name != positive)
    return Classes(negative, positive)


def learn_classes(values: pd.Series[Any], definition: ModelDefinition) -> tuple[Classes, dict[str, float]] | None:
    """The classes of the first truths, and the share of each word among them; None where there is none yet.

    Two where two words make up nearly all, the positive one being the definition's, else the greater of the two: of
    numbers by size, of texts by alphabet. Else, where no `positive` says that two are meant, every word that is no
    rarity, in that order.

    Raises:
        DataError: The truths don't tell which two classes are meant; what occurs is named with its share.
    """
    counts = count_words(values)
    total = sum(counts.values())
    if not total:
        return None
    shares = {word: count / total for word, count in counts.most_common()}
    positive = definition.positive
    if set(counts) <= {"0", "1"} and positive in (None, "0", "1"):
        return Classes("1", "0") if positive == "0" else ZERO_ONE, shares
    if set(counts) <= {"true", "false"} and (positive is None or positive.lower() in ("true", "false")):
        return (Classes("true", "false") if positive == "false" else Classes("false", "true")), shares
    if positive is not None and positive not in counts:
        if len(counts) == 1:
            return Classes(next(iter(counts)), positive), shares
        near = _nearest(positive, counts)
        raise DataError(
            f"positive: {positive!r} never occurs in {definition.data.target}, which has {_told(shares)}",
            f'Set `positive: "{near}"` at the top level of the definition, quoted',
        )
    if len(counts) == 1:
        word = next(iter(counts))
        raise DataError(
            f"{definition.data.target} has one class so far, {word!r}: the other can't be known",
            f'Name both at the top level of the definition, the positive one last: `classes: ["OTHER", "{word}"]`',
        )
    pair = _two_classes(shares, positive)
    others = [share for word, share in shares.items() if word not in pair]
    nearly_all = sum(shares[word] for word in pair) >= LEARNT_SHARE
    if positive is None and (not nearly_all or max(others, default=0.0) >= RARE_SHARE):
        if "threshold" in definition.serving.model_fields_set:
            raise DataError(
                f"{definition.data.target} has {len(counts)} classes: {_told(shares)}; serving.threshold is for two",
                "Leave serving.threshold out: of more than two the likeliest is the label; or name the two that are "
                'meant: `classes: ["OTHER", "POSITIVE"]`',
            )
        return _learn_many(definition.data.target, shares, pair), shares
    if not nearly_all:
        raise DataError(
            f"{definition.data.target} has {len(counts)} values and which two are the classes is not clear: "
            f"{_told(shares)}",
            "Name them at the top level of the definition, quoted, the positive one last: "
            f'`classes: ["{pair[0]}", "{pair[1]}"]`; the others are refused by row then. If each value is a class, '
            "leave `positive` out",
        )
    return Classes(*pair), shares


def _learn_many(target: str, shares: Mapping[str, float], pair: tuple[str, str]) -> Classes:
    """More than two classes: every word that is no rarity, where those make up nearly all.

    Where two make up nearly all, whether the third is a class or a slip is for people to say.
    """
    frequent = [word for word, share in shares.items() if share >= RARE_CLASS_SHARE]
    all_told = ", ".join(f'"{word}"' for word in sorted(frequent, key=_order)[:MOST_CLASSES])
    if sum(shares[word] for word in pair) >= LEARNT_SHARE:
        third = next(word for word in shares if word not in pair)
        raise DataError(
            f"{target} has {len(shares)} values: {_told(shares)}. Whether {third!r} is a class is not clear",
            f"Name the classes at the top level of the definition, quoted: `classes: [{all_told}]`, or the two alone, "
            f'the positive one last: `classes: ["{pair[0]}", "{pair[1]}"]`; the others are refused by row then',
        )
    if sum(shares[word] for word in frequent) < LEARNT_SHARE or len(frequent) > MOST_CLASSES:
        raise DataError(
            f"{target} has {len(shares)} values, too many and too rare each to be classes: {_told(shares)}",
            "Name the classes at the top level of the definition, quoted: `classes: [...]`; the others are refused by "
            "row then. If the target is a number, say `task: regression`",
        )
    return Classes(*sorted(frequent, key=_order))


def count_words(values: pd.Series[Any]) -> Counter[str]:
    """How often each class occurs, however its cells hold it; missing ones are left out."""
    places, cells = _distinct(values)
    counts: Counter[str] = Counter()
    for cell, count in zip(cells, np.bincount(places[places >= 0], minlength=len(cells)), strict=True):
        counts[class_word(cell)] += int(count)
    counts.pop("", None)
    return counts


def _two_classes(shares: Mapping[str, float], positive: str | None) -> tuple[str, str]:
    """The two most frequent words, (negative, positive)."""
    if positive is not None:
        return next(word for word in shares if word != positive), positive
    first, second = sorted(list(shares)[:2], key=_order)
    return first, second


def _order(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if _is_number(word) else (1, 0.0, word)


def _told(shares: Mapping[str, float]) -> str:
    told = [f"{word!r} ({share:.1%})" for word, share in list(shares.items())[:_SHOWN]]
    return ", ".join(told) + (f" and {len(shares) - _SHOWN} more" if len(shares) > _SHOWN else "")


def shares_told(shares: Mapping[str, float]) -> str:
    """`'no' (55.0%), 'yes' (45.0%)`: what occurs, the most frequent first."""
    return _told(shares)


def _nearest(word: str, known: Sequence[str] | Mapping[str, int]) -> str:
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=1)
    return folded[near[0]] if near else next(iter(known))


def why_not_class(value: object, classes: Classes) -> str:
    """In words, why a value is no truth of these classes."""
    word = class_word(value)
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in classes.names], n=1)
    hint = "" if not near else f"; did you mean {next(x for x in classes.names if x.lower() == near[0])!r}?"
    if classes.many:
        return f"{_shown(value)} is none of the {len(classes.names)} classes{hint or f': {_listed(classes.names)}'}"
    return f"{_shown(value)} is neither {classes.negative!r} nor {classes.positive!r} (positive){hint}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def code_truth(
    values: pd.Series[Any], definition: ModelDefinition, classes: Classes | None
) -> tuple[np.ndarray, dict[int, str]]:
    """The truth as float64 of shape (n,), NaN where it is missing or refused, and the refused rows with their reasons.

    Args:
        values: Shape (n,), as a column of any kind holds them.
        definition: The task.
        classes: What the codes mean; None for regression.
    """
    if definition.task == "classification":
        assert classes is not None
        return _code_classes(values, definition.data.target, classes)
    coded = _numbers(values)
    wrong = np.flatnonzero(given_cells(values) & np.isnan(coded))
    target = definition.data.target
    return coded, {int(row): f"{target}: {_shown(values.iloc[row])} is not a finite number" for row in wrong}


def _code_classes(values: pd.Series[Any], target: str, classes: Classes) -> tuple[np.ndarray, dict[int, str]]:
    places, cells = _distinct(values)
    codes = [classes.code(cell) for cell in cells]
    table = np.array([np.nan if code is None else code for code in codes] + [np.nan])
    reasons = {
        place: f"{target}: {why_not_class(cell, classes)}"
        for place, (cell, code) in enumerate(zip(cells, codes, strict=True))
        if code is None and class_word(cell)
    }
    wrong = np.flatnonzero(np.isin(places, list(reasons)))
    return table[places], {int(row): reasons[int(places[row])] for row in wrong}


def _is_nested(dtype: Any) -> bool:
    """Lists, structs and maps in Arrow's columns, which have no distinct values."""
    return isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)


def _distinct(values: pd.Series[Any]) -> tuple[np.ndarray, list[Any]]:
    """The place of each cell among the distinct ones, -1 where it is missing: shape (n,); and those.

    Cells of two types are two cells, although Python takes True and 1 for one; floats keep their precision.
    """
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
        places, numbers = pd.factorize(values.to_numpy())
        return places, list(numbers)
    plain = not pd.api.types.is_object_dtype(values.dtype) and not pd.api.types.is_complex_dtype(values.dtype)
    if plain and not _is_nested(values.dtype):
        places, kept = pd.factorize(values)
        return places, list(kept.astype(object))
    found: dict[tuple[type, object], int] = {}
    cells: list[Any] = []
    places = np.full(len(values), -1, dtype=np.int64)
    for row, cell in enumerate(values.astype(object)):
        if _is_missing(cell):
            continue
        key = (type(cell), repr(cell) if isinstance(cell, _NO_TRUTHS) else cell)
        place = places[row] = found.setdefault(key, len(cells))
        if place == len(cells):
            cells.append(cell)
    return places, cells


def _numbers(values: pd.Series[Any]) -> np.ndarray:
    """The finite numbers among the cells, NaN for all others; truth values and times are none."""
    kind = values.dtype.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
    if pd.api.types.is_bool_dtype(kind):
        return np.full(len(values), np.nan)
    if isinstance(kind, np.dtype) and kind.kind in "iuf":
        found = values.to_numpy(dtype=np.float64)
    else:
        places, cells = _distinct(values)
        read = [code_one(cell, "regression", None) for cell in cells]
        found = np.array([np.nan if value is None else value for value in read] + [np.nan])[places]
    return np.where(np.isfinite(found), found, np.nan)


def given_cells(values: pd.Series[Any]) -> np.ndarray:
    """Which cells hold something: neither missing nor an empty text."""
    given: np.ndarray
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
        given = values.notna().to_numpy()
        return given
    places, cells = _distinct(values)
    given = np.array([not isinstance(cell, str) or bool(cell.strip()) for cell in cells] + [False])[places]
    return given


def _is_missing(value: object) -> bool:
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return value is None or value is pd.NA or value is pd.NaT


def _shown(value: object, most: int = 60) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def standing(labels: pa.Table) -> pa.Array:
    """The ids whose newest label is a truth: of labels with id, truth and labelled_at. A missing truth takes back."""
    if not labels["truth"].null_count and not pc.any(pc.is_nan(labels["truth"])).as_py():
        return pc.unique(labels["id"])
    options = pc.ScalarAggregateOptions(skip_nulls=False)
    ordered = labels.sort_by("labelled_at")
    last = ordered.group_by("id", use_threads=False).aggregate([("truth", "last", options)])
    kept = last.filter(pc.is_finite(pc.fill_null(last["truth_last"], float("nan"))))
    return pc.unique(kept["id"])


def code_one(value: object, task: str, classes: Classes | None) -> float | None:
    """One truth by the same rules; None for what is refused."""
    if task == "classification":
        assert classes is not None
        return classes.code(value) if class_word(value) else None
    if isinstance(value, bool | np.bool_) or _is_missing(value):
        return None
    text = value.strip() if isinstance(value, str) else value
    found = None if isinstance(text, str) and text.lower() in _TRUTH_VALUES else number(text)
    return found if found is not None and math.isfinite(found) else None
