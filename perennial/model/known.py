"""The categories that a fitted pipeline knows, and rows in the words it knows them by. It fits and scores nothing.

A pipeline that was trained before spellings were one (see `canonical`) holds "3.0" where its rows now say "3": loading
gives its encoders the new spelling. And a model that learned a column as 0/1 understands False/True, and the reverse,
as long as it does not know both.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.model.canonical import STR, Unspellable, spelled
from perennial.model.cells.truths import spelled_truths
from perennial.model.features import feature_frame

if TYPE_CHECKING:
    from perennial.definition import Features

_TWINS = {"False": "0", "True": "1", "0": "False", "1": "True"}
_OTHERS = {"False": "True", "True": "False", "0": "1", "1": "0"}
# Beyond so many, looking for the nearest costs more than a score, and a column of names has no nearest anyway.
_MOST_COMPARED = 64
MOST_TOLD = 20


@dataclass(frozen=True)
class Unknown:
    """A category that training never saw: in how many rows, and the nearest that it did see."""

    column: str
    value: str
    rows: int
    nearest: str | None

    def to_dict(self) -> dict[str, Any]:
        return {"problem": "unknown category", **asdict(self)}


def known_categories(pipeline: Any) -> dict[str, frozenset[str]]:
    """By column, the categories that the pipeline's preprocessing has seen; columns without an encoder are left out."""
    inner = getattr(pipeline, "pipeline", pipeline)  # of a recalibrated one
    preprocess = getattr(inner, "named_steps", {}).get("preprocess")
    return encoded_categories(preprocess)


def encoded_categories(preprocess: Any) -> dict[str, frozenset[str]]:
    """The same of a fitted ColumnTransformer."""
    known: dict[str, frozenset[str]] = {}
    for _, step, columns in getattr(preprocess, "transformers_", ()):
        if hasattr(step, "categories_"):
            for column, values in zip(columns, step.categories_, strict=True):
                known[column] = frozenset(value for value in values if isinstance(value, str))
    return known


def as_known(value: str, known: Collection[str]) -> str:
    """A category in the word that the model knows it by; itself where there is none, or more than one."""
    if value in known:
        return value
    twin = _TWINS.get(value, "")
    # Who knows 0, 1 and True has seen something else in each of them.
    return twin if twin in known and _OTHERS[value] not in known else value


def frame_as_known(features: pd.DataFrame, known: Mapping[str, frozenset[str]]) -> pd.DataFrame:
    """A feature frame in the words that the model knows; the same frame where nothing differs."""
    changed = {}
    for name, categories in known.items():
        if name not in features.columns:
            continue
        column = features[name]
        if column.dtype == np.float64:  # a truth value by now, which the model learned as a category
            column = changed[name] = spelled_truths(column).set_axis(column.index)
        if column.dtype != STR:
            continue
        renamed = {
            value: word for value in _strangers(column, categories) if (word := as_known(value, categories)) != value
        }
        if renamed:
            changed[name] = column.replace(renamed).astype(STR)
    return features.assign(**changed) if changed else features


def stored_frame(stored: pd.DataFrame, features: Features, pipeline: Any) -> pd.DataFrame:
    """The feature frame of rows that were stored beside a model, perhaps in older spellings.

    Cells that the pipeline knows as they are stay; it may know "3.0" beside "3", where files and tables had both.
    """
    frame = feature_frame(stored, features)
    for name, categories in known_categories(pipeline).items():
        as_they_are = stored[name].astype(object)
        kept = as_they_are.isin(categories).to_numpy()
        frame[name] = frame[name].where(~kept, as_they_are.reset_index(drop=True)).astype(STR)
    return frame


def unknown_categories(features: pd.DataFrame, known: Mapping[str, frozenset[str]]) -> list[Unknown]:
    """What training never saw, most frequent first; `MOST_TOLD` of each column at the most."""
    found = []
    for name, categories in known.items():
        strangers = set(_strangers(features[name], categories))
        if strangers:
            counts = features[name][features[name].isin(strangers)].value_counts().head(MOST_TOLD)
            found += [
                Unknown(name, str(value), int(rows), nearest(str(value), categories)) for value, rows in counts.items()
            ]
    return found


@lru_cache(maxsize=4096)
def nearest(value: str, known: frozenset[str]) -> str | None:
    """The known category that was probably meant: the same but for case and spaces, or else a similar one."""
    if len(value) > 200:
        return None
    folded = _folded(known).get(_fold(value))
    if folded is not None or len(known) > _MOST_COMPARED:
        return folded
    return next(iter(difflib.get_close_matches(value, sorted(known), n=1)), None)


def respell_encoders(pipeline: Any) -> Any:
    """Give a loaded pipeline's encoders the spelling of today where theirs is older and no other category has it."""
    for step in _steps(pipeline):
        arrays = getattr(step, "categories_", None)
        if isinstance(arrays, list):
            step.categories_ = [_respelled(values) for values in arrays]
    return pipeline


def _respelled(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    names: list[Any] = []
    for value in values:
        try:
            names.append(spelled(value) if isinstance(value, str) and value else value)
        except Unspellable:
            names.append(value)
    taken = {value for value, name in zip(values, names, strict=True) if value is name or value == name}
    counts = pd.Series([name for name in names if isinstance(name, str)], dtype=object).value_counts()
    made = values.copy()
    for index, (value, name) in enumerate(zip(values, names, strict=True)):
        if isinstance(name, str) and name != value and name not in taken and counts[name] == 1:
            made[index] = name
    return made


def _steps(part: Any) -> Iterator[Any]:
    """A pipeline's fitted parts, however deep."""
    yield part
    inner = [getattr(part, "pipeline", None)]
    inner += [step for _, step in getattr(part, "steps", ()) or ()]
    inner += [step for _, step, *_ in getattr(part, "transformers_", ()) or ()]
    inner += [step for _, step in getattr(part, "transformer_list", ()) or ()]
    for step in inner:
        if step is not None and not isinstance(step, str):
            yield from _steps(step)


def _strangers(column: pd.Series[Any], categories: frozenset[str]) -> list[str]:
    present = pc.unique(pa.array(column, type=pa.string(), from_pandas=True)).to_pylist()
    return [value for value in present if value is not None and value not in categories]


def _fold(text: str) -> str:
    return "".join(text.casefold().split())


@lru_cache(maxsize=256)
def _folded(known: frozenset[str]) -> dict[str, str]:
    return {_fold(value): value for value in sorted(known, reverse=True)}
