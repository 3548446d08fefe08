"""Label Studio documents for a regression with texts, and who made an annotation as exports of several ages say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.truth import Classes
from perennial.review.desk import Asked
from tasks.review.label_studio import page, read_export, tasks

T = datetime(2026, 1, 1, tzinfo=UTC)
PRICES = ModelDefinition.model_validate(
    {
        "name": "prices",
        "task": "regression",
        "data": {"source": {"csv": "rows.csv"}, "id": "id", "time": "time", "target": "price <€>"},
        "features": {"numeric": ["rooms"], "text": ["advert"]},
    }
)


def exported(**annotation: Any) -> list[Any]:
    number = {"from_name": "truth", "to_name": "row", "type": "number", "value": {"number": 310.5}}
    made = {"id": 3, "completed_by": 7, "result": [number], "was_cancelled": False, "lead_time": 4.0} | annotation
    return [{"id": 1, "data": {"id": "a", "model": "prices"}, "annotations": [made]}]


def test_numbers_and_texts_have_controls_and_predictions() -> None:
    tree = ElementTree.fromstring(page(PRICES, None))
    assert [item.tag for item in tree] == ["Header", "Table", "Text", "Number", "Choices", "TextArea"]
    assert tree[0].attrib["value"] == "prices: price <€>?"
    assert tree[2].attrib["value"] == "$text_0"
    item = Asked("a", T, {"rooms": None, "advert": "bright"}, 300.0, None, (), False, T + timedelta(days=1))
    (task,) = tasks([item], {"a": 4}, PRICES)
    assert task["data"]["row"] == {"time": T.isoformat(), "rooms": ""}
    assert task["data"]["text_0"] == "bright"
    assert task["predictions"][0]["model_version"] == "prices v4"
    assert task["predictions"][0]["result"][0]["value"] == {"number": 300.0}
    hidden = Asked("a", T, {"rooms": 2.0}, None, None, (), False, T)
    assert tasks([hidden], {}, PRICES)[0].keys() == {"data"}


def test_classes_are_written_as_they_are() -> None:
    kinds = PRICES.model_copy(update={"task": "classification"})
    tree = ElementTree.fromstring(page(kinds, Classes('"low" & <small>', "high")))
    assert [item.attrib["value"] for item in tree.iter("Choice")] == ['"low" & <small>', "high", "can't tell"]


@pytest.mark.parametrize(
    ("by", "author"),
    [(7, "cleo"), (8, "label-studio-8"), ({"id": 7, "email": "c@example.org"}, "c@example.org"), ({"id": 7}, "cleo")],
)
def test_who_said_it_keeps_a_name(by: Any, author: str) -> None:
    (found,) = read_export(exported(completed_by=by), PRICES, authors={"7": "cleo"}, as_of=T)
    assert found.author == author
    assert found.raw == {"id": "a", "truth": 310.5, "seconds": 4.0}
    assert found.at == T


def test_a_moment_is_that_of_the_last_change_and_a_night_is_no_answer() -> None:
    changed = exported(created_at="2025-12-01T10:00:00Z", updated_at="2025-12-01T12:00:00+01:00", lead_time=200_000.0)
    (found,) = read_export(changed, PRICES, authors={}, as_of=T)
    assert found.at == datetime(2025, 12, 1, 11, tzinfo=UTC)
    assert found.raw["seconds"] == 86_400


def test_a_note_alone_is_no_answer() -> None:
    note = {"from_name": "note", "type": "textarea", "value": {"text": ["odd"]}}
    with pytest.raises(DataError, match=r"annotation 3 of task 1 \(row a\) says nothing"):
        read_export(exported(result=[note]), PRICES, authors={}, as_of=T)
