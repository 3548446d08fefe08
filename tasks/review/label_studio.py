"""Label Studio both ways: tasks with our predictions, and annotations as answers. Documents in and out, no file.

The documents are those of Label Studio's JSON import and export ("JSON", not "JSON-MIN", which leaves out who said it).
A class, a number, "can't tell" and a note are controls of the labelling page that `page` gives; a task's row is named
by `data.id`, and nothing in it says why it was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import Classes
from perennial.review.desk import Asked
from perennial.review.events import LONGEST_NOTE, MOST_SECONDS

TRUTH, CANNOT_TELL, NOTE, ROW = "truth", "cannot_tell", "note", "row"
_CANNOT_TELL_WORD = "can't tell"


@dataclass(frozen=True)
class Annotation:
    """One annotation of an export, as raw as `perennial.review.events.read_answer` takes it.

    Attributes:
        where: For people: its task and number.
        raw: id, and one of truth, cannot_tell and skip; seconds and note where there are any.
        author: Who made it.
        at: When it was last changed.
        gold: Whether somebody marked it as the ground truth.
    """

    where: str
    raw: dict[str, Any]
    author: str
    at: datetime
    gold: bool


def page(definition: ModelDefinition, classes: Classes | None) -> str:
    """The labelling page of a model, as Label Studio's configuration."""
    question = f"{definition.name}: {definition.data.target}?"
    controls = [f'  <Number name="{TRUTH}" toName="{ROW}"/>']
    if classes is not None:
        choices = [f"    <Choice value={quoteattr(word)}/>" for word in classes.names]
        controls = [f'  <Choices name="{TRUTH}" toName="{ROW}" choice="single" showInline="true">', *choices]
        controls.append("  </Choices>")
    texts = [
        f'  <Text name="text_{number}" value={quoteattr(f"$text_{number}")}/>'
        for number, _ in enumerate(definition.features.text)
    ]
    return "\n".join(
        [
            "<View>",
            f"  <Header value={quoteattr(question)}/>",
            f'  <Table name="{ROW}" value="$row"/>',
            *texts,
            *controls,
            f'  <Choices name="{CANNOT_TELL}" toName="{ROW}" choice="multiple" showInline="true">',
            f"    <Choice value={quoteattr(_CANNOT_TELL_WORD)}/>",
            "  </Choices>",
            f'  <TextArea name="{NOTE}" toName="{ROW}" rows="1" maxSubmissions="1" placeholder="Note"/>',
            "</View>",
            "",
        ]
    )


def tasks(
    items: Sequence[Asked], versions: Mapping[str, int | None], definition: ModelDefinition
) -> list[dict[str, Any]]:
    """What Label Studio imports: a task a row, with our prediction where the definition does not hide the score.

    Args:
        versions: By id, the version that scored it.
    """
    return [_task(item, versions.get(item.id), definition) for item in items]


def _task(item: Asked, version: int | None, definition: ModelDefinition) -> dict[str, Any]:
    shown: dict[str, Any] = {definition.data.time: item.time.isoformat()}
    texts = definition.features.text
    shown |= {name: value for name, value in item.features.items() if name not in texts}
    data: dict[str, Any] = {"id": item.id, "model": definition.name, ROW: {k: _cell(v) for k, v in shown.items()}}
    data |= {f"text_{number}": _cell(item.features.get(name)) for number, name in enumerate(texts)}
    if item.score is None:
        return {"data": data}
    result: dict[str, Any] = {"id": "prediction", "from_name": TRUTH, "to_name": ROW}
    confidence = item.score
    if item.choices:
        result |= {"type": "choices", "value": {"choices": [item.predicted]}}
        other = len(item.choices) == 2 and item.predicted == item.choices[0]
        confidence = 1.0 - item.score if other else item.score
    else:
        result |= {"type": "number", "value": {"number": item.score}}
    version_name = definition.name if version is None else f"{definition.name} v{version}"
    data["score"] = item.score
    prediction = {"model_version": version_name, "score": confidence, "result": [result]}
    return {"data": data, "predictions": [prediction]}


def _cell(value: Any) -> Any:
    return "" if value is None else value


def read_export(
    document: object, definition: ModelDefinition, *, authors: Mapping[str, str], as_of: datetime
) -> list[Annotation]:
    """The annotations of an export, in the order in which they were made.

    Args:
        document: What the file holds.
        authors: Names by Label Studio's own number or address; who is not among them keeps these.
        as_of: The moment of the import: an annotation without a time counts from it.

    Raises:
        DataError: It is no such export, is of another model, or an annotation can't be understood; the task is named.
    """
    if not isinstance(document, list) or not all(isinstance(task, dict) and "data" in task for task in document):
        raise DataError("this is no JSON export of Label Studio: a list of tasks with data", "Export as JSON")
    found = []
    for task in document:
        data, number = task["data"], task.get("id")
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            raise DataError(f"task {number} has no data.id", "Import tasks that `perennial reviews MODEL export` wrote")
        if data.get("model", definition.name) != definition.name:
            told = f"task {number} is of model {data['model']!r}, not {definition.name}"
            raise DataError(told, "Import it for that model")
        if "annotations" not in task:
            raise DataError(f"task {number} has no annotations", "Export as JSON, not as JSON-MIN")
        for item in task["annotations"]:
            found.append(_annotation(item, data["id"], number, authors, as_of))
    return sorted(found, key=lambda item: item.at)


def _annotation(
    item: Mapping[str, Any], name: str, task: object, authors: Mapping[str, str], as_of: datetime
) -> Annotation:
    where = f"annotation {item.get('id')} of task {task} (row {name})"
    by = item.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if by is None:
        raise DataError(f"{where} has no completed_by", "Export it anew")
    author = authors.get(str(by), str(by) if "@" in str(by) else f"label-studio-{by}")
    raw: dict[str, Any] = {"id": name}
    seconds = item.get("lead_time")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0:
        raw["seconds"] = min(float(seconds), MOST_SECONDS)  # a page that was left open over night
    raw |= {"skip": True} if item.get("was_cancelled") else _said(item.get("result"), where)
    return Annotation(where, raw, author, _moment(item, where, as_of), bool(item.get("ground_truth")))


def _said(result: object, where: str) -> dict[str, Any]:
    if not isinstance(result, list):
        raise DataError(f"{where} has no result", "Export it anew")
    truths: list[Any] = []
    found: dict[str, Any] = {}
    for part in result:
        value, control = part.get("value", {}), part.get("from_name")
        if control == TRUTH:
            truths += value.get("choices", []) if "choices" in value else [value.get("number")]
        elif control == CANNOT_TELL and value.get("choices"):
            found["cannot_tell"] = True
        elif control == NOTE:
            text = value.get("text", "")
            note = " ".join(text) if isinstance(text, list) else str(text)
            found |= {"note": note[:LONGEST_NOTE]} if note.strip() else {}
    if "cannot_tell" in found:
        return found  # our prediction stands beside it, ticked before the person came
    if len(truths) != 1:
        told = ", ".join(map(repr, truths)) or "nothing"
        raise DataError(f"{where} says {told}", "Give it one answer in Label Studio, and export it anew")
    return found | {TRUTH: truths[0]}


def _moment(item: Mapping[str, Any], where: str, as_of: datetime) -> datetime:
    text = item.get("updated_at") or item.get("created_at")
    if text is None:
        return as_of
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise DataError(f"{where}: {text!r} is no ISO 8601 time", "Export it anew") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
