"""Label Studio's files: what is put up goes out as tasks, what people said there comes in as answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.review.events import Known, read_reviews
from perennial.workspace import Workspace
from tasks.review.label_studio import page, read_export, tasks
from tasks.steps.review.answers import answer, desk_of

_CLOCKS_DIFFER, _TICK = timedelta(minutes=5), timedelta(microseconds=1)


@dataclass(frozen=True)
class Exported:
    """Where the tasks and the labelling page went, and how many tasks there are."""

    tasks: str
    page: str
    count: int


@dataclass(frozen=True)
class Imported:
    """What became of a file's annotations.

    Attributes:
        written: Answers written down.
        unchanged: Those that were known already, or that their author has changed since.
        labels: Labels that they made, corrected or took back.
        gold: Rows that were marked as ground truth there: people may be judged by them.
        authors: Who answered.
    """

    written: int
    unchanged: int
    labels: int
    gold: int
    authors: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_tasks(workspace: Workspace, definition: ModelDefinition, target: Path, *, as_of: datetime) -> Exported:
    """Write what still waits for people as Label Studio's tasks, and its labelling page beside it as .xml.

    Raises:
        DataError: The file can't be written.
    """
    if target.suffix.lower() != ".json" or not target.parent.is_dir():
        raise DataError(f"{target} is no file that can be written", "End it in .json, in a folder that exists")
    desk = desk_of(workspace.store, definition)
    items = desk.items(as_of)
    # Gold rows go along: who labels must not see which they are.
    chosen = sorted((item for item in items.values() if item.waits or item.state == "gold"), key=lambda i: i.offer.id)
    versions = {item.offer.id: item.offer.version for item in chosen}
    document = tasks(desk.shown(chosen), versions, definition)
    beside = target.with_suffix(".xml")
    target.write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    beside.write_text(page(definition, desk.classes), encoding="utf-8")
    return Exported(str(target), str(beside), len(document))


def import_annotations(
    workspace: Workspace, definition: ModelDefinition, source: Path, *, authors: Mapping[str, str], as_of: datetime
) -> Imported:
    """Take what people said in Label Studio, each annotation at the moment at which it was made; twice is once.

    Raises:
        DataError: The file can't be read, or an annotation can't be understood; nothing was written.
        NotFoundError: A row was never put up.
    """
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} can't be read as JSON: {error}", "Export it as JSON from Label Studio") from error
    desk, model = desk_of(workspace.store, definition), definition.name
    known = read_reviews(workspace.store, model)
    answers, gold = [], []
    found = read_export(document, definition, authors=authors, as_of=as_of)
    for item in found:
        if item.at > as_of + _CLOCKS_DIFFER:
            raise DataError(f"{item.where}: its moment {item.at.isoformat()} lies in the future", "Set the clock right")
        try:
            read = desk.read(item.raw, at=item.at, author=item.author)
        except DataError as error:
            raise DataError(f"{item.where}: {error.problem}", error.remedy) from error
        if item.gold and read.says == "truth" and read.id not in known.known:
            assert read.truth is not None
            gold.append(Known(read.id, item.at + _TICK, item.author, read.truth))
        said_before = [one.at for one in known.answers.get(read.id, ()) if one.author == read.author]
        if not said_before or max(said_before) < read.at:
            answers.append(read)
    done = answer(desk, answers, gold)
    unchanged = len(found) - done.written
    return Imported(done.written, unchanged, done.labels, len(gold), tuple(sorted({item.author for item in found})))
