"""What a change of the source's columns or of an API's document means: what breaks is told, what does not is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from tasks.watch.columns import changes, contract_of
from tasks.watch.openapi import breaking, operations

DEFINITION = ModelDefinition.model_validate(
    {
        "name": "trips", "task": "regression",
        "data": {"source": {"csv": "rows.csv"}, "id": "id", "time": "time", "target": "y"},
        "features": {"numeric": ["a"], "categorical": ["place"]},
    }
)  # fmt: skip
FRAME = pd.DataFrame(
    {"id": ["r1", "r2"], "time": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True), "y": [1.0, 2.0], "a": [1, 2],
     "place": ["n", "s"], "spare": ["x", "y"]}
)  # fmt: skip


def told(now: pd.DataFrame) -> list[tuple[str, bool]]:
    items = changes(contract_of(FRAME), contract_of(now), DEFINITION)
    return [(item.key.removeprefix("watch:source:"), item.grave) for item in items]


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (FRAME, []),
        (FRAME.iloc[::-1], []),
        (FRAME.assign(a=[1.5, 2.0]), []),  # every number is a number
        (FRAME.assign(a=["1", "2"]), [("type: a", True)]),
        (FRAME.assign(a=[1, np.nan]), [("missing: a", False)]),
        (FRAME.assign(a=[np.nan, np.nan]), [("missing: a", False)]),
        (FRAME.assign(spare=[1, 2]), [("type: spare", False)]),
        (FRAME.assign(spare=[None, "x"]), []),
        (FRAME.drop(columns="place"), [("gone: place", True)]),
        (FRAME.drop(columns="spare"), [("gone: spare", False)]),
        (FRAME.drop(columns="y"), [("gone: y", False)]),  # truth comes later
        (FRAME.assign(time=["a", "b"]), [("type: time", True)]),
        (FRAME.assign(more=1), [("new columns", False)]),
    ],
)
def test_a_changed_column(now: pd.DataFrame, wanted: list[tuple[str, bool]]) -> None:
    assert told(now) == wanted


TRIP = {"application/json": {"schema": {"$ref": "#/components/schemas/Trip"}}}
API: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/trips/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "parameters": [{"name": "unit", "in": "query", "schema": {"type": "string", "enum": ["km", "mi"]}}],
                "responses": {"200": {"content": TRIP}},
            },
            "post": {
                "requestBody": {"content": TRIP},
                "responses": {"204": {"description": "done"}},
            },
        },
    },
    "components": {"schemas": {
        "Trip": {
            "type": "object", "required": ["length", "stops"],
            "properties": {
                "length": {"type": "number"}, "note": {"type": "string"},
                "state": {"enum": ["on", "off"], "type": "string"},
                "stops": {"type": "array", "items": {"$ref": "#/components/schemas/Stop"}},
                "parent": {"$ref": "#/components/schemas/Trip"},
            },
        },
        "Stop": {"type": "object", "required": ["at"], "properties": {"at": {"type": "string", "format": "date-time"}}},
    }},
}  # fmt: skip


def changed(change: Callable[[Any], Any]) -> list[str]:
    document = copy.deepcopy(API)
    change(document)
    return [item.detail for item in breaking(operations(API, "old"), operations(document, "new"))]


def trip(document: Any) -> Any:
    return document["components"]["schemas"]["Trip"]


KEY = {"name": "key", "in": "query", "required": True}


def stop(document: Any) -> Any:
    return document["components"]["schemas"]["Stop"]


def get(document: Any) -> Any:
    return document["paths"]["/trips/{id}"]["get"]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda d: d["paths"].pop("/trips/{id}"), "GET /trips/{id} is gone"),
        (lambda d: trip(d)["properties"].pop("length"), "length is gone from the answer"),
        (lambda d: trip(d)["properties"]["length"].update(type="string"), "length was number and is string"),
        (lambda d: trip(d)["properties"]["length"].update(type=["number", "null"]), "length may be null now"),
        (lambda d: trip(d)["required"].remove("length"), "length may be left out now"),
        (lambda d: trip(d)["properties"]["state"]["enum"].append("new"), "state may have new values"),
        (lambda d: stop(d)["properties"]["at"].update(format="date"), "stops[].at had the format"),
        (lambda d: get(d)["parameters"].append(KEY), "parameter key in query is required"),
        (lambda d: get(d)["parameters"][0]["schema"]["enum"].remove("mi"), "unit in query takes fewer values"),
        (lambda d: d.update(security=[{"token": []}]), "it asks for credentials now"),
        (lambda d: trip(d)["required"].append("note"), "a request must have note now"),
    ],
)  # fmt: skip
def test_what_breaks_is_told(change: Callable[[Any], Any], wanted: str) -> None:
    assert wanted in "; ".join(changed(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["paths"].update({"/more": {"get": {"responses": {}}}}),
        lambda d: get(d)["parameters"].append({"name": "page", "in": "query", "schema": {"type": "integer"}}),
        lambda d: get(d)["parameters"][0]["schema"]["enum"].append("ft"),
        lambda d: trip(d)["properties"].update(colour={"type": "string"}),
        lambda d: get(d).update(summary="Get one."),
        lambda d: get(d)["responses"].update({"404": {"description": "none"}}),
    ],
)
def test_what_does_not_break_is_not_told(change: Callable[[Any], Any]) -> None:
    assert changed(change) == []


def test_what_is_no_document_is_refused() -> None:
    for wrong in ([], {"swagger": "2.0"}, "text", None):
        with pytest.raises(DataError, match="is no OpenAPI document of version 3"):
            operations(wrong, "x.yaml")
    broken = copy.deepcopy(API)
    del broken["components"]["schemas"]["Stop"]
    with pytest.raises(DataError, match=r"\$ref #/components/schemas/Stop leads nowhere"):
        operations(broken, "x.yaml")


def test_a_watch_that_would_tell_nobody_is_refused() -> None:
    raw = DEFINITION.model_dump(mode="json")
    scheduled = {"schedule": "0 4 * * *"}
    for alerts in (None, {"about": ["drift"]}):
        with pytest.raises(ValueError, match=r"would tell nobody what it finds: write `alerts: \{\}`"):
            ModelDefinition.model_validate(raw | {"watch": scheduled, "alerts": alerts})
    assert ModelDefinition.model_validate(raw | {"watch": scheduled, "alerts": {}}).hash == DEFINITION.hash


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ({}, "packages needs advisories, service or index"),
        ({"service": "pypi", "osv_url": "http://x.example"}, "osv_url belongs to service: osv"),
        ({"index": "ftp://x"}, "index"),
        ({"pip": True}, "pip"),
    ],
)
def test_wrong_packages_are_refused(packages: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ModelDefinition.model_validate(DEFINITION.model_dump(mode="json") | {"watch": {"packages": packages}})
