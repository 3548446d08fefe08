"""What the codes 0, 1, 2, … mean in a model's labels: declared, or learnt from the first truths and then fixed.

No truth is coded here. Reading says what is known; only `settle` writes, when truths are stored for the first time, or
a definition means something else than the labels were coded by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError
from perennial.model.truth import ZERO_ONE, Classes, declared_classes, learn_classes, shares_told
from perennial.state.store import Store

NAMES = "names"  # of more than two classes, all as JSON
WORD = "word"  # of labels in a word that is no class any more


@dataclass(frozen=True)
class Coding:
    """What the codes mean for a model.

    Attributes:
        classes: None for regression, and while no truth has been seen.
        shares: Of each word among the truths that they were learnt from; empty where they are declared.
        before: What the labels in the table were coded by, where that is something else.
        stored: Whether the table `classes` has them.
    """

    classes: Classes | None
    shares: dict[str, float]
    before: Classes | None = None
    stored: bool = False

    @property
    def token(self) -> str:
        """Tells batches apart that were coded differently; empty for a target of 0 and 1."""
        return "" if self.classes is None or self.classes == ZERO_ONE else ":".join(("", *self.classes.names))


def known_coding(store: Store, definition: ModelDefinition) -> Coding:
    """What the codes mean, as far as that is declared or was learnt.

    Raises:
        DataError: `positive` is none of the classes that were learnt.
    """
    if definition.task != "classification":
        return Coding(None, {})
    row = _newest(store, definition)
    stored = None if row is None else _stored(row)
    classes = declared_classes(definition) or (None if stored is None else _turned(stored, definition))
    if stored is None or classes is None:
        return Coding(classes, {})
    if stored != classes:
        return Coding(classes, {}, before=stored)
    return Coding(classes, json.loads(row["shares"]), stored=True)  # type: ignore[index]


def of_codes(definition: ModelDefinition, classes: Classes | None) -> ModelDefinition:
    """The definition of the same model for a target that holds codes: 0 and 1, or 0, 1, 2, … of many classes."""
    codes = tuple(str(code) for code in range(len(classes.names))) if classes is not None and classes.many else ()
    return definition.model_copy(update={"positive": None, "classes": codes})


def require_every_class(truth: pd.Series[Any], classes: Classes | None, model: str) -> None:
    """Refuse to learn many classes from rows that lack one: how likely that is nobody could answer.

    Args:
        truth: The codes of the rows to learn from.

    Raises:
        DataError: A class has no row; those that have none are named.
    """
    if classes is None or not classes.many:
        return
    known = set(truth.astype(int))
    if absent := [name for code, name in enumerate(classes.names) if code not in known]:
        raise DataError(
            f"of the {len(truth):,} rows that {model} would learn from, none is of the class "
            f"{', '.join(map(repr, absent[:10]))}",
            "Wait for its rows, give training.window more time, or leave the class out of `classes`",
        )


def coding_of(store: Store, definition: ModelDefinition, truths: pd.Series[Any]) -> Coding:
    """The coding for these truths: the known one, else the one that they teach. Nothing is written.

    Raises:
        DataError: The classes are not clear.
    """
    coding = known_coding(store, definition)
    if coding.classes is None and definition.task == "classification":
        learnt = learn_classes(truths, definition)
        return coding if learnt is None else Coding(*learnt)
    return coding


def settle(
    store: Store, definition: ModelDefinition, coding: Coding, *, at: datetime, batch_id: str
) -> tuple[str, ...]:
    """Write down what the codes mean, for all that follow, and code the stored labels by it.

    Each label is coded anew at its own moment, so that a replay reads it rightly too. Where its word is no class any
    more it is taken back, and comes again should the word be a class again.

    Returns:
        What was learnt and changed, in sentences.

    Raises:
        ConflictError: A version answers by what the labels are coded by now.
    """
    classes = coding.classes
    if classes is None or coding.stored:
        return ()
    newest = _newest(store, definition)
    number = 1 if newest is None else int(newest["number"]) + 1
    told = [_learnt(definition, coding)]
    if coding.before is not None and not classes.means(coding.before):
        _require_no_champion(store, definition, coding.before, classes)
        told += _recode(store, definition.name, coding.before, classes, key=f"recoded:{number}")
    row = {
        "number": number,
        "target": definition.data.target,
        "negative": classes.names[0],
        "positive": classes.names[-1],
        **({NAMES: json.dumps(classes.names)} if classes.many else {}),
        "shares": json.dumps(coding.shares),
        "learnt_at": pd.Timestamp(at),
        "batch_id": batch_id,
    }
    store.append(definition.name, "classes", pd.DataFrame([row]), key=f"classes:{number}")
    return tuple(told)


def require_settled(store: Store, definition: ModelDefinition) -> None:
    """Refuse to read labels that were coded by something else than the definition means.

    Raises:
        DataError: They were; the remedy names what codes them anew.
    """
    coding = known_coding(store, definition)
    if coding.before is None or coding.classes is None or coding.classes.means(coding.before):
        return
    _require_no_champion(store, definition, coding.before, coding.classes)
    raise DataError(
        f"the labels of {definition.name} were coded with {_coded(coding.before)}, but the definition's classes are "
        f"{coding.classes.told()}",
        f"Code them anew: `perennial ingest {definition.name} FILE`, or `perennial retrain {definition.name}`",
    )


def _learnt(definition: ModelDefinition, coding: Coding) -> str:
    assert coding.classes is not None
    found = f": {shares_told(coding.shares)}" if coding.shares else ""
    return f"the classes of {definition.data.target} are {coding.classes.told()}{found}"


def _coded(classes: Classes) -> str:
    if classes.many:
        return ", ".join(f"{code} for {name!r}" for code, name in enumerate(classes.names))
    return f"1 for {classes.positive!r} and 0 for {classes.negative!r}"


def _stored(row: Mapping[str, Any]) -> Classes:
    names = row.get(NAMES)
    return Classes(*(json.loads(names) if isinstance(names, str) else (row["negative"], row["positive"])))


def _require_no_champion(store: Store, definition: ModelDefinition, before: Classes, after: Classes) -> None:
    if store.count(definition.name, "history"):
        answer = (
            f"the probabilities of {before.told()}"
            if before.many or after.many
            else f"how likely {before.positive!r} is and not {before.negative!r}"
        )
        listed = ", ".join(f'"{name}"' for name in before.names)
        raise ConflictError(
            f"versions of {definition.name} answer {answer}, but the definition's classes are {after.told()}",
            f"Set `classes: [{listed}]` back at the top level of the definition, or "
            "start the model anew under another name",
        )


def _newest(store: Store, definition: ModelDefinition) -> dict[str, Any] | None:
    rows = store.frame(definition.name, "classes")  # of any target: its column may get another name
    if not len(rows):
        return None
    newest: dict[str, Any] = rows.sort_values("number", kind="stable").to_dict("records")[-1]  # type: ignore[assignment]
    return newest


def _turned(stored: Classes, definition: ModelDefinition) -> Classes:
    if definition.positive is not None and stored.many:
        listed = ", ".join(f'"{name}"' for name in stored.names)
        raise DataError(
            f"positive: {definition.positive!r}, but {definition.data.target} has {len(stored.names)} classes: "
            f"{stored.told()}",
            f"Leave `positive` out; or, if two of them are meant, name both: `classes: [...]` of {listed}",
        )
    if definition.positive is None or definition.positive == stored.positive:
        return stored
    if definition.positive == stored.negative:
        return Classes(stored.positive, stored.negative)
    raise DataError(
        f"positive: {definition.positive!r} is no class of {definition.data.target}, "
        f"which has {stored.negative!r} and {stored.positive!r}",
        f'Set `positive: "{stored.positive}"` or "{stored.negative}" at the top level of the definition, quoted; or, '
        f'if these are not the classes, name both: `classes: ["{stored.negative}", "{definition.positive}"]`',
    )


def _recode(store: Store, model: str, before: Classes, after: Classes, *, key: str) -> list[str]:
    """Every label by other classes, at its own moment: a replay must not read what was never said."""
    version = store.version(model, "labels")
    if version is None:
        return []
    labels = store.frame(model, "labels", version=version)
    said = labels["truth"].map(dict(enumerate(before.names))).astype(object)
    words = said.where(said.notna(), labels[WORD] if WORD in labels.columns else None)
    codes = {word: after.code(word) for word in words.dropna().unique()}
    truth = words.map(codes).astype(np.float64)
    gone = words.notna() & truth.isna()
    changed = (truth != labels["truth"]) & (truth.notna() | labels["truth"].notna())
    if not changed.any():
        return []
    recoded = labels.assign(truth=truth, **{WORD: words.where(gone).astype("str")})
    store.replace(model, "labels", recoded, version=version, key=key)
    back = words[changed & gone].value_counts()
    anew = int(changed.sum()) - int(back.sum())
    told = [f"{anew:,} labels were coded anew"] if anew else []
    return told + [
        f"{count:,} labels say {word!r}, which is no class any more: taken back" for word, count in back.items()
    ]
