"""Late truth over the API: checked, spooled at once, appended to the table `labels` by the shipper. Joins nothing.

Truth of an id that nobody predicted yet is kept too: the log may be behind. The answer names such ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from perennial.definition import ModelDefinition
from perennial.locks import exclusive
from perennial.serving.codec import parse_json
from perennial.serving.problems import Problem, shown
from perennial.serving.spool import Spool, read_segment
from perennial.store import Store

_TIME = pa.timestamp("us", tz="UTC")
_SHIP_WAIT_SECONDS = 60.0
_LONGEST = 256
_EXAMPLE = {"labels": [{"id": "the prediction's id", "truth": 1}]}


class Label(msgspec.Struct, array_like=True):
    """One truth as the spool holds it."""

    id: str
    truth: float
    at_us: int
    author: str


def parse_labels(body: bytes, definition: ModelDefinition, most: int) -> list[Label]:
    """`{"id", "truth"}`, a list of such, or `{"labels": [...]}`; each may name its `author`.

    Raises:
        Problem: 400, 413 or 422 with the item that is wrong.
    """
    document = parse_json(body)
    items = document.get("labels", [document]) if isinstance(document, dict) else document
    if not isinstance(items, list) or not items:
        raise Problem(400, "there is no label in the body", rule="labels: a list of id and truth", example=_EXAMPLE)
    if len(items) > most:
        raise Problem(413, f"{len(items):,} labels are more than {most:,}", rule=f"at most {most} labels at once")
    at_us = time.time_ns() // 1000
    return [_label(item, row, definition, at_us + row) for row, item in enumerate(items)]


def encode_truth(value: object, definition: ModelDefinition) -> float | None:
    """The truth as a number, by the rules of `tasks.labels.encode_truth`; None where it breaks them."""
    if value is None or isinstance(value, list | dict):
        return None
    if definition.task == "classification" and definition.positive is not None:
        return float(str(value) == definition.positive)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    if definition.task == "classification":
        return number if number in (0.0, 1.0) else None
    return number if math.isfinite(number) else None


class LabelDesk:
    """Takes labels and ships them.

    Args:
        spool: A spool of its own, beside the predictions'.
        predictions: The predictions' spool, for ids that are not in the table yet.
    """

    def __init__(self, spool: Spool, predictions: Spool, store: Store, locks: Path) -> None:
        self._spool, self._predictions, self._store, self._locks = spool, predictions, store, locks
        self.failing = ""

    def take(self, model: str, labels: Sequence[Label]) -> dict[str, Any]:
        """Keep the labels; which ids nobody has predicted so far.

        Raises:
            Problem: 503 where they can't be written down.
        """
        if not self._spool.append(model, [msgspec.to_builtins(label) for label in labels], len(labels)):
            raise Problem(503, f"the labels can't be kept: {self._spool.failing}", {"retry-after": "30"})
        unknown = self._unknown(model, [label.id for label in labels])
        answer: dict[str, Any] = {"model": model, "accepted": len(labels), "unknown": unknown}
        if unknown:
            answer["note"] = "labels of unknown ids are kept, and count as soon as a prediction of that id is logged"
        return answer

    def ship(self) -> int:
        """Append what is new or corrected of all sealed segments; the number of rows."""
        self._spool.seal()
        shipped, failure = 0, ""
        for paths in (self._spool.sealed(), self._spool.orphans()):
            for path in paths:
                model = path.parent.name
                try:
                    busy = f"{model}'s labels are shipped"
                    with exclusive(self._locks, f"labels-{model}", wait_seconds=_SHIP_WAIT_SECONDS, busy=busy):
                        if path.exists():
                            shipped += self._append(model, path)
                            path.unlink(missing_ok=True)
                except Exception as error:  # noqa: BLE001 - any storage fails in its own way; the segment stays
                    failure = failure or f"{type(error).__name__}: {error}"[:300]
        self.failing = failure
        self._spool.measure()
        return shipped

    def _append(self, model: str, path: Path) -> int:
        """One segment in one keyed commit: of each id the newest truth, where it differs from the table's."""
        entries, _ = read_segment(path)
        newest: dict[str, Label] = {}
        for label in (msgspec.convert(item, Label) for entry in entries for item in entry):
            newest[label.id] = label
        where = pc.field("id").isin(list(newest))
        known = self._store.read(model, "labels", columns=["id", "truth", "labelled_at"], where=where)
        before = {row["id"]: row["truth"] for row in known.sort_by("labelled_at").to_pylist()}
        fresh = [label for label in newest.values() if before.get(label.id) != label.truth]
        if not fresh:
            return 0
        table = pa.table(
            {
                "id": [label.id for label in fresh],
                "truth": pa.array([label.truth for label in fresh], type=pa.float64()),
                "labelled_at": pa.array([label.at_us for label in fresh], type=_TIME),
                "author": [label.author for label in fresh],
            }
        )
        self._store.append(model, "labels", table, key=f"spool:{path.stem}")
        return len(fresh)

    def _unknown(self, model: str, ids: list[str]) -> list[str]:
        """The ids that are neither in the log nor on their way to it."""
        left = set(ids)
        for path in self._predictions.root.glob(f"*/{model}/*.jsonl"):
            try:
                entries, _ = read_segment(path)
            except OSError:
                continue  # shipped in between: the table has it
            for entry in entries:
                left.difference_update(entry[5])
        if left:
            try:
                where = pc.field("id").isin(list(left))
                found = self._store.read(model, "predictions", columns=["id"], where=where)
                left.difference_update(found["id"].to_pylist())
            except Exception as error:  # noqa: BLE001 - the labels are safe; only their ids can't be looked up
                self.failing = f"ids can't be looked up: {type(error).__name__}: {error}"[:300]
        return [name for name in dict.fromkeys(ids) if name in left]


def _label(item: object, row: int, definition: ModelDefinition, at_us: int) -> Label:
    if not isinstance(item, dict):
        rule = "an object with id and truth"
        raise Problem(
            422, f"label {row} (counted from 0) is not {rule}", row=row, value=shown(item), rule=rule, example=_EXAMPLE
        )
    name = item.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int) or not 0 < len(str(name)[:300]) <= _LONGEST:
        rule = f"a text of at most {_LONGEST} characters, or a whole number"
        raise Problem(
            422, f"label {row} (counted from 0): id {shown(name)} is not {rule}",
            column="id", row=row, value=shown(name), rule=rule, example=_EXAMPLE,
        )  # fmt: skip
    truth = encode_truth(item.get("truth"), definition)
    if truth is None:
        classes = "0 or 1" if definition.positive is None else f"a class such as {definition.positive!r}"
        rule = classes if definition.task == "classification" else "a finite number"
        raise Problem(
            422, f"label {row} (counted from 0): truth {shown(item.get('truth'))} is not {rule}",
            column="truth", row=row, value=shown(item.get("truth")), rule=rule, example=_EXAMPLE,
        )  # fmt: skip
    author = item.get("author", "api")
    if not isinstance(author, str) or not 0 < len(author) <= _LONGEST:
        rule = f"a text of at most {_LONGEST} characters"
        raise Problem(422, f"label {row} (counted from 0): author is not {rule}", column="author", row=row, rule=rule)
    return Label(str(name), truth, at_us, author)
