"""What 0 and 1 mean in a model's labels: declared, or learnt from the first truths and then fixed. Codes no truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import Classes, declared_classes, learn_classes
from perennial.state.store import Store


@dataclass(frozen=True)
class Coding:
    """What 0 and 1 mean for a model.

    Attributes:
        classes: None for regression, and while no truth has been seen.
        shares: Of each word among the truths that they were learnt from; empty where they are declared.
        before: What the labels in the table were coded by, where that is something else.
    """

    classes: Classes | None
    shares: dict[str, float]
    before: Classes | None = None

    @property
    def token(self) -> str:
        """Tells batches apart that were coded differently; empty for a target of 0 and 1."""
        return "" if self.classes is None or self.classes == Classes("0", "1") else ":".join(("", *self.classes.names))


def known_coding(store: Store, definition: ModelDefinition) -> Coding:
    """What 0 and 1 mean, as far as that is declared or was learnt.

    Raises:
        DataError: `positive` is none of the classes that were learnt.
    """
    if definition.task != "classification":
        return Coding(None, {})
    row = _newest(store, definition)
    stored = None if row is None else Classes(row["negative"], row["positive"])
    declared = declared_classes(definition)
    if declared is None and stored is None:
        return Coding(None, {})
    assert declared is not None or stored is not None
    classes = declared or _turned(stored, definition)  # type: ignore[arg-type]
    shares = json.loads(row["shares"]) if row is not None and declared is None else {}
    return Coding(classes, shares, stored if stored != classes else None)


def fix_coding(
    store: Store, definition: ModelDefinition, truths: pd.Series[Any], *, at: datetime, batch_id: str
) -> Coding:
    """The coding for these truths: the known one, else the one they teach, which is written down for all that follow.

    Labels that were coded otherwise are coded anew, each at its own moment, so that a replay reads them rightly too.

    Raises:
        DataError: The classes are not clear.
    """
    coding = known_coding(store, definition)
    if coding.classes is None and definition.task == "classification":
        learnt = learn_classes(truths, definition)
        if learnt is None:
            return coding
        coding = Coding(*learnt)
    classes = coding.classes
    if classes is None or (coding.before is None and _newest(store, definition) is not None):
        return coding
    if coding.before is not None and coding.before == Classes(classes.positive, classes.negative):
        _turn_labels(store, definition.name, classes)
    row = {
        "target": definition.data.target,
        "negative": classes.negative,
        "positive": classes.positive,
        "shares": json.dumps(coding.shares),
        "learnt_at": pd.Timestamp(at),
        "batch_id": batch_id,
    }
    number = store.version(definition.name, "classes")
    store.append(definition.name, "classes", pd.DataFrame([row]), key=f"classes:{number}:{coding.token}")
    return coding


def _newest(store: Store, definition: ModelDefinition) -> dict[str, Any] | None:
    rows = store.frame(definition.name, "classes")
    rows = rows[rows["target"] == definition.data.target]
    if not len(rows):
        return None
    newest: dict[str, Any] = rows.sort_values("learnt_at", kind="stable").to_dict("records")[-1]  # type: ignore[assignment]
    return newest


def _turned(stored: Classes, definition: ModelDefinition) -> Classes:
    if definition.positive in (None, stored.positive):
        return stored
    if definition.positive == stored.negative:
        return Classes(stored.positive, stored.negative)
    raise DataError(
        f"positive: {definition.positive!r} is no class of {definition.data.target}, "
        f"which has {stored.negative!r} and {stored.positive!r}",
        f'Set `positive: "{stored.positive}"` or "{stored.negative}" at the top level of the definition, quoted',
    )


def _turn_labels(store: Store, model: str, classes: Classes) -> None:
    """Every label the other way round, a microsecond after what it corrects: once for each way."""
    labels = store.frame(model, "labels")
    turned = labels[labels["truth"].notna()]
    if not len(turned):
        return
    turned = turned.assign(truth=1 - turned["truth"], labelled_at=turned["labelled_at"] + pd.Timedelta(1, unit="us"))
    store.append(model, "labels", turned, key=f"turned:{store.version(model, 'classes')}:{':'.join(classes.names)}")
