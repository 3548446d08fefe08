"""Late truth over the API: checked, spooled at once, appended to the table `labels` by the shipper. Joins nothing.

Truth of an id that is neither predicted nor ingested yet is kept for a while, for the log may be behind; the answer
names such ids.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from perennial.definition import ModelDefinition
from perennial.model.truth import Classes, code_one
from perennial.serving.log.spool import Segments, Spool, read_segment, segment_key
from perennial.serving.log.waiting import Label, WaitingLabels, new_steps
from perennial.serving.protocol.codec import id_rule, parse_json, refuse_strangers, take_id
from perennial.serving.protocol.problems import Problem, shown
from perennial.state.files import exclusive
from perennial.state.store import Store, among
from perennial.state.tables import ROW_ID

LOG = logging.getLogger("perennial.serving")
_TIME = pa.timestamp("us", tz="UTC")
_SHIP_WAIT_SECONDS = 60.0
# Looking through what waits must not become a worker's main occupation, however much it is.
_REST_PER_LOOK, _LEAST_REST_SECONDS = 50, 5.0
_LONGEST = 256
_EXAMPLE = {"labels": [{"id": "the prediction's id", "truth": 1}]}


def parse_labels(body: bytes, definition: ModelDefinition, classes: Classes | None, most: int) -> list[Label]:
    """`{"id", "truth"}`, a list of such, or `{"labels": [...]}`; each may name its `author`.

    `{"id", "take_back": true}` takes back what was said of the id.

    Args:
        classes: What the codes mean for the version that answers; None for regression.

    Raises:
        Problem: 400, 413 or 422 with the item that is wrong.
    """
    document = parse_json(body)
    items = document.get("labels", [document]) if isinstance(document, dict) else document
    if isinstance(document, dict) and "labels" in document:
        refuse_strangers(document, ("labels",), "the body")
    if not isinstance(items, list) or not items:
        raise Problem(400, "there is no label in the body", rule="labels: a list of id and truth", example=_EXAMPLE)
    if len(items) > most:
        raise Problem(413, f"{len(items):,} labels are more than {most:,}", rule=f"at most {most} labels at once")
    at_us = time.time_ns() // 1000
    return [_label(item, row, definition, classes, at_us + row) for row, item in enumerate(items)]


class LabelDesk:
    """Takes labels and ships them.

    Args:
        spool: A spool of its own, beside the predictions'; to take labels it must be this process's.
        predictions: The predictions' spool, for ids that are not in the table yet.
        unknown_hours: So long truth of unknown ids is kept.
        on_expired: Called with model and number of labels that were given up.
    """

    def __init__(
        self, spool: Segments, predictions: Segments, store: Store, locks: Path, unknown_hours: float,
        on_expired: Callable[[str, int], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._spool, self._predictions, self._store, self._locks = spool, predictions, store, locks
        self._unknown_hours, self._on_expired = unknown_hours, on_expired
        self._waiting = WaitingLabels(spool.root)
        self._look_at = 0.0
        self.failing = ""

    def keep(self, model: str, labels: Sequence[Label]) -> None:
        """Write the labels down.

        Raises:
            Problem: 503 where they can't be.
        """
        assert isinstance(self._spool, Spool)
        if not self._spool.append(model, [msgspec.to_builtins(label) for label in labels], len(labels)):
            raise Problem(503, f"the labels can't be kept: {self._spool.failing}", {"retry-after": "30"})

    def look_up(self, model: str, labels: Sequence[Label]) -> set[str] | None:
        """The ids that nobody knows so far; None where the tables don't tell."""
        try:
            return self._unknown(model, [label.id for label in labels])
        except Exception as error:  # noqa: BLE001 - the labels are safe; only their ids can't be looked up
            facts = {"model": model, "reason": f"{type(error).__name__}: {error}"[:300]}
            LOG.warning("ids of labels can't be looked up", extra={"facts": facts})
            return None

    def receipt(self, model: str, labels: Sequence[Label], missing: set[str] | None) -> dict[str, Any]:
        """What is answered; ids that could not be looked up count as unknown."""
        ids = dict.fromkeys(label.id for label in labels)
        unknown = [name for name in ids if missing is None or name in missing]
        answer: dict[str, Any] = {"model": model, "accepted": len(labels), "unknown": unknown}
        if unknown:
            answer["note"] = (
                f"labels of unknown ids are kept for {self._unknown_hours:g} hours, "
                "and count as soon as the id is predicted or ingested"
            )
        if missing is None:
            answer["note"] += "; the tables do not answer: which ids are known will be seen later"
        return answer

    def waiting(self, model: str) -> int:
        """How many labels wait for their id to become known."""
        return len({label.id for label in self._waiting.all(model)[1]})

    @property
    def due(self) -> bool:
        """Whether labels wait and it is time to look whether their ids are known by now."""
        return time.monotonic() >= self._look_at and bool(self._waiting.models())

    def ship(self) -> int:
        """Append what is new or corrected of all sealed segments and of what waited; the number of rows."""
        self._spool.seal()
        shipped, failure = 0, ""
        for paths in (self._spool.sealed(), self._spool.orphans()):
            for path in paths:
                done, problem = self._locked(path.parent.name, lambda model, path=path: self._segment(model, path))  # type: ignore[misc]
                shipped, failure = shipped + done, failure or problem
        if self.due:
            started = time.monotonic()
            for model in self._waiting.models():
                done, problem = self._locked(model, self.look_through)
                shipped, failure = shipped + done, failure or problem
            now = time.monotonic()
            self._look_at = now + max(_LEAST_REST_SECONDS, _REST_PER_LOOK * (now - started))
        self.failing = failure
        self._spool.measure()
        return shipped

    def look_through(self, model: str, now_us: int | None = None) -> int:
        """Append the waiting labels whose id is known by now, and give up those whose time is over.

        Whatever dies in between, a label is in the table or waits on; both is harmless.
        """
        paths, labels = self._waiting.all(model)
        missing = self._unknown(model, {label.id for label in labels})
        oldest = (time.time_ns() // 1000 if now_us is None else now_us) - self._unknown_hours * 3600e6
        kept = [label for label in labels if label.id in missing and label.at_us >= oldest]
        expired = {label.id for label in labels if label.id in missing} - {label.id for label in kept}
        shipped = self._append(model, [label for label in labels if label.id not in missing])
        if len(kept) < len(labels) or len(paths) > 1:
            self._waiting.replace(model, paths, kept)
        if expired:
            facts = {"model": model, "labels": len(expired), "ids": sorted(expired)[:5], "hours": self._unknown_hours}
            LOG.warning("labels of ids that nobody came to know were given up", extra={"facts": facts})
            self._on_expired(model, len(expired))
        return shipped

    def _locked(self, model: str, work: Callable[[str], int]) -> tuple[int, str]:
        """Rows shipped for a model, and what went wrong."""
        try:
            busy = f"{model}'s labels are shipped"
            with exclusive(self._locks, f"labels-{model}", wait_seconds=_SHIP_WAIT_SECONDS, busy=busy):
                return work(model), ""
        except Exception as error:  # noqa: BLE001 - any storage fails in its own way; the segment stays
            return 0, f"{type(error).__name__}: {error}"[:300]

    def _segment(self, model: str, path: Path) -> int:
        """One segment: what is known in one keyed commit, the rest to those that wait, before anything is removed."""
        if not path.exists():
            return 0
        entries, _ = read_segment(path)
        labels = [msgspec.convert(item, Label) for entry in entries for item in entry]
        missing = self._unknown(model, {label.id for label in labels})
        self._waiting.add(model, [label for label in labels if label.id in missing])
        shipped = self._append(model, [label for label in labels if label.id not in missing], key=segment_key(path))
        path.unlink(missing_ok=True)
        return shipped

    def _append(self, model: str, labels: Sequence[Label], key: str | None = None) -> int:
        """Every step that says something new, in one commit: another truth than the step before, or another author."""
        if not labels:
            return 0
        where = among("id", list({label.id for label in labels}))
        known = self._store.read(model, "labels", columns=["id", "truth", "labelled_at", "author"], where=where)
        known = known.set_column(2, "at_us", known["labelled_at"].cast(pa.int64()))
        before = [Label(row["id"], row["truth"], row["at_us"], row["author"] or "") for row in known.to_pylist()]
        fresh = new_steps(before, labels)
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
        self._store.append(model, "labels", table, key=key)
        return len(fresh)

    def _unknown(self, model: str, ids: Collection[str]) -> set[str]:
        """The ids that are neither predicted, nor on their way to the log, nor ingested."""
        left = set(ids)
        for path in self._predictions.root.glob(f"*/{model}/*.jsonl") if left else ():
            try:
                entries, _ = read_segment(path)
            except OSError:
                continue  # shipped in between: the table has it
            for entry in entries:
                left.difference_update(entry[5])
        for table, column in (("predictions", "id"), ("batches", ROW_ID)):
            if left:
                where = among(column, list(left))
                left.difference_update(
                    self._store.read(model, table, columns=[column], where=where)[column].to_pylist()
                )
        return left


def _label(item: object, row: int, definition: ModelDefinition, classes: Classes | None, at_us: int) -> Label:
    if not isinstance(item, dict):
        rule = "an object with id and truth"
        raise Problem(
            422, f"label {row} (counted from 0) is not {rule}", row=row, value=shown(item), rule=rule, example=_EXAMPLE
        )
    columns = definition.data.id_columns
    if strangers := sorted(set(item) - {"id", "truth", "take_back", "author", *columns}):
        rule = "id, truth, take_back and author"
        dated = "; the API dates labels itself: give dated ones in a file, `perennial label`"
        raise Problem(
            422, f"label {row} (counted from 0) has {shown(strangers[0])}, which nobody reads; known are {rule}"
            + (dated if "labelled_at" in strangers else ""),
            column=strangers[0], row=row, rule=rule, example=_EXAMPLE,
        )  # fmt: skip
    given = item.get("id", [item.get(column) for column in columns] if len(columns) > 1 else None)
    name = take_id(given, columns)
    if name is None:
        rule = id_rule(columns)
        raise Problem(
            422, f"label {row} (counted from 0): id {shown(given)} is not {rule}",
            column="id", row=row, value=shown(given), rule=rule, example=_EXAMPLE,
        )  # fmt: skip
    truth = _truth(item, row, definition, classes)
    author = item.get("author", "api")
    if not isinstance(author, str) or not 0 < len(author) <= _LONGEST:
        rule = f"a text of at most {_LONGEST} characters"
        raise Problem(422, f"label {row} (counted from 0): author is not {rule}", column="author", row=row, rule=rule)
    return Label(name, truth, at_us, author)


def _rule(classes: Classes) -> str:
    *others, last = (repr(name) for name in classes.names)
    return f"{', '.join(others)} or {last}"


def _truth(item: dict[str, Any], row: int, definition: ModelDefinition, classes: Classes | None) -> float | None:
    """A class's code, or a number; None takes back what was said."""
    value, back = item.get("truth"), item.get("take_back", False)
    if back is True and value is None:
        return None
    if back not in (True, False) or back:
        rule = "take_back: true without a truth, or a truth without take_back"
        raise Problem(422, f"label {row} (counted from 0): take_back {shown(back)} beside truth {shown(value)}",
                      column="take_back", row=row, value=shown(back), rule=rule, example=_EXAMPLE)  # fmt: skip
    truth = code_one(value, definition.task, classes)
    if truth is None:
        rule = "a finite number" if classes is None else _rule(classes)
        why = f"truth {shown(value)} is not {rule}"
        raise Problem(
            422, f"label {row} (counted from 0): {why}", column="truth", row=row, value=shown(value), rule=rule,
            example=_EXAMPLE,
        )  # fmt: skip
    return truth
