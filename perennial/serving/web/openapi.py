"""The OpenAPI document, with each model's own row. What is posted is in `operations`, the page in `docs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial import __version__
from perennial.serving.protocol.columns import LARGEST
from perennial.serving.protocol.schema import Kind
from perennial.serving.versions.model import LoadedModel
from perennial.serving.web.operations import ID, infer, invocations, labels, responses, reviews

_NUMBER = r"^\s*([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?[nN][aA][nN])?\s*$"
_TEXT: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_CELLS: Mapping[Kind, dict[str, Any]] = {
    "numeric": {
        "anyOf": [
            {"type": ["number"], "minimum": -LARGEST, "maximum": LARGEST},
            {"type": ["boolean", "null"]},
            {"type": "string", "pattern": _NUMBER},
            {"enum": ["true", "True", "TRUE", "false", "False", "FALSE"]},
        ],
        "description": "A number, a text that reads as one, or null for missing.",
    },
    "categorical": _TEXT,
    "text": _TEXT,
    "image": {"type": ["string", "null"], "contentEncoding": "base64"},
    "boolean": {
        "anyOf": [
            {"type": ["boolean", "null"]},
            {"enum": [0, 1]},
            {
                "type": "string",
                "pattern": r"^\s*([tT]([rR][uU][eE])?|[fF]([aA][lL][sS][eE])?|[yY][eE][sS]|[nN][oO]|[01](\.0)?)?\s*$",
            },
        ],
        "description": "A truth value: true, yes, t or 1, false, no, f or 0, in any case; or null for missing.",
    },
    "datetime": {
        "type": ["string", "number", "null"],
        "description": "A time in ISO 8601, such as 2026-01-31T06:00:00Z, UTC where it names no zone; a number only "
        "where the definition says what it counts since 1970; or null for missing.",
    },
}
_PROBLEM = {
    "type": "object",
    "required": ["error", "error_code", "message"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong, in one sentence."},
        "error_code": {"type": "string"},
        "message": {"type": "string", "description": "The same as error, where MLflow's clients look for it."},
        "column": {"type": "string"},
        "row": {"type": "integer", "description": "Counted from 0."},
        "value": {},
        "rule": {"type": "string"},
        "example": {"description": "What would have worked."},
    },
}


def openapi(models: Mapping[str, LoadedModel], secured: bool) -> dict[str, Any]:
    """The document for what is served now.

    Args:
        models: The champions by name.
        secured: Whether tokens are needed.
    """
    paths: dict[str, Any] = {
        "/health": _get("Health", "Whether requests are answered, and what an operator should know.", "operation"),
        "/ping": _get("Ping", "MLflow's health check.", "operation"),
        "/version": _get("Version", "The software's version.", "operation", "text/plain"),
        "/metrics": _get("Metrics", "Prometheus metrics of all workers.", "operation", "text/plain", guarded=True),
        "/models": _get("Models", "What is served.", "operation", guarded=True),
        "/v2": _get("Server metadata", "Open Inference Protocol.", "v2"),
        "/v2/health/live": _get("Live", "Open Inference Protocol.", "v2"),
        "/v2/health/ready": _get("Ready", "Open Inference Protocol.", "v2", failing=(503,)),
    }
    paths["/docs"] = _get("This page", "The API's page.", "operation", "text/html")
    paths["/openapi.json"] = _get("This document", "For what is served now.", "operation")
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    for name, model in sorted(models.items()):
        _add_model(name, model, paths, schemas)
    if len(models) == 1:  # with several it answers which there are
        (name,) = models
        paths["/invocations"] = {"post": {**paths[f"/models/{name}/invocations"]["post"], "operationId": "invocations"}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Perennial",
            "version": __version__,
            "description": "The champions of all models, by MLflow's scoring protocol and by the Open Inference "
            "Protocol v2. Every answer names the version; every row has an id, to which its truth can be given later.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _add_model(name: str, model: LoadedModel, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    row, example = _row_schema(model), dict(model.schema.example)
    schemas[f"{name}-row"] = row
    reference = {"$ref": f"#/components/schemas/{name}-row"}
    what = model.definition.description or name
    paths[f"/models/{name}/invocations"] = {"post": invocations(name, what, model, reference, example)}
    paths[f"/models/{name}/labels"] = {"post": labels(name, model)}
    if model.definition.review.per_day:
        paths[f"/models/{name}/reviews"] = reviews(name, model)
    paths[f"/models/{name}"] = _get(
        f"About {name}", "What is live, since when and why; traffic and labels.", name, guarded=True
    )
    for path, which in ((f"/v2/models/{name}", name), (f"/v2/models/{name}/versions/{model.version}", "this version")):
        paths[path] = _get(f"Metadata of {which}", "Open Inference Protocol.", name, guarded=True)
        paths[f"{path}/ready"] = _get(f"Is {which} ready?", "Open Inference Protocol.", name, failing=(404, 503))
        paths[f"{path}/infer"] = {"post": infer(name, which, what, model, example)}


def _row_schema(model: LoadedModel) -> dict[str, Any]:
    schema = model.schema
    beside = {name: ID if len(schema.id_columns) == 1 else {} for name in schema.id_columns}
    beside[schema.time_column] = {"type": ["string", "null"], "description": "The event's time, ISO 8601."}
    features = {name: _CELLS[kind] for name, kind in zip(schema.columns, schema.kinds, strict=True)}
    return {
        "type": "object",
        "required": list(schema.columns),
        "properties": beside | features,
        "description": f"Other keys are ignored, but for {', '.join(map(repr, schema.id_columns))} (the row's id) and "
        f"{schema.time_column!r} (the event's time, ISO 8601).",
        "example": dict(schema.example),
    }


def _get(
    summary: str, description: str, tag: str, kind: str = "application/json", *, guarded: bool = False,
    failing: tuple[int, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    problems = (*failing, *((401, 403, 404, 429, 503) if guarded else ()))
    content = {kind: {"schema": {"type": "object"} if kind == "application/json" else {"type": "string"}}}
    answers = responses({}, problems)
    answers["200"] = {"description": "Answered.", "content": content}
    if summary == "Ping":
        answers["200"] = {"description": "Answered."}
    operation: dict[str, Any] = {"summary": summary, "description": description, "tags": [tag], "responses": answers}
    if not guarded:
        operation["security"] = []
    return {"get": operation}
