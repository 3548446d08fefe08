"""The OpenAPI document, with each model's own schema and an example that works. The page that draws it is in `docs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial import __version__
from perennial.serving.model import LoadedModel
from perennial.serving.problems import CODES
from perennial.serving.schema import Kind
from perennial.serving.v2 import metadata

_CELLS: Mapping[Kind, dict[str, Any]] = {
    "numeric": {"type": ["number", "null"], "minimum": -3e38, "maximum": 3e38},
    "categorical": {"type": ["string", "null"]},
    "text": {"type": ["string", "null"]},
    "image": {"type": ["string", "null"], "contentEncoding": "base64"},
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
_MEANINGS = {
    400: "The body is none of the forms that are understood.",
    401: "A valid token is needed.",
    403: "The token is not for this.",
    404: "No such model or version is served.",
    405: "Another method.",
    413: "Too large a body, or too many rows.",
    415: "A content type that is not understood.",
    422: "A value breaks its rule: column, row, value, rule and an example are named.",
    429: "Too many requests at once; see Retry-After.",
    503: "Too slow, or not ready; see Retry-After.",
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
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    for name, model in sorted(models.items()):
        _add_model(name, model, paths, schemas)
    if len(models) == 1:
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
    paths[f"/models/{name}/invocations"] = {"post": _invocations(name, what, model, reference, example)}
    paths[f"/models/{name}/labels"] = {"post": _labels(name, model)}
    paths[f"/models/{name}"] = _get(
        f"About {name}", "What is live, since when and why; traffic and labels.", name, guarded=True
    )
    paths[f"/v2/models/{name}"] = _get(f"Metadata of {name}", "Open Inference Protocol.", name, guarded=True)
    paths[f"/v2/models/{name}/ready"] = _get(f"Is {name} ready?", "Open Inference Protocol.", name)
    paths[f"/v2/models/{name}/infer"] = {"post": _infer(name, what, model, example)}


def _row_schema(model: LoadedModel) -> dict[str, Any]:
    schema = model.schema
    return {
        "type": "object",
        "required": list(schema.columns),
        "properties": {name: _CELLS[kind] for name, kind in zip(schema.columns, schema.kinds, strict=True)},
        "description": f"Other keys are ignored, but for {schema.id_column!r} (the row's id) and "
        f"{schema.time_column!r} (the event's time, ISO 8601).",
        "example": dict(schema.example),
    }


def _invocations(
    name: str, what: str, model: LoadedModel, row: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    columns = list(model.schema.columns)
    cells = [example[column] for column in columns]
    score = {"type": "number"}
    output = {"name": "output", "in": "query", "schema": {"type": "string", "enum": ["probability", "label", "both"]}}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"const": columns},
            "data": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "array", "minItems": len(columns), "maxItems": len(columns)},
            },
        },
    }
    records = {"type": "array", "minItems": 1, "items": row}
    forms = {"dataframe_records": records, "dataframe_split": split, "inputs": records, "instances": records}
    columns_line, cells_line = ",".join(columns), ",".join("" if cell is None else str(cell) for cell in cells)
    both = {"type": "object", "properties": {"label": {"type": "integer"}, "probability": score}}
    return {
        "operationId": f"invocations-{name}",
        "summary": f"Score rows with {name}",
        "description": what,
        "tags": [name],
        "parameters": [output] if model.definition.task == "classification" else [],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {
                                "type": "object",
                                "required": [form],
                                "properties": {form: schema},
                                "additionalProperties": False,
                            }
                            for form, schema in forms.items()
                        ]
                    },
                    "examples": {
                        "dataframe_records": {"value": {"dataframe_records": [example]}},
                        "dataframe_split": {"value": {"dataframe_split": {"columns": columns, "data": [cells]}}},
                        "inputs": {"value": {"inputs": {column: [example[column]] for column in columns}}},
                        "instances": {"value": {"instances": [example]}},
                    },
                },
                "text/csv": {"schema": {"type": "string"}, "example": f"{columns_line}\n{cells_line}\n"},
            },
        },
        "responses": _responses(
            {
                "type": "object",
                "required": ["predictions", "model", "version", "ids"],
                "properties": {
                    "predictions": {"type": "array", "items": {"anyOf": [score, both]}},
                    "model": {"type": "string"},
                    "version": {"type": "integer", "description": "The champion's."},
                    "versions": {"type": "array", "items": {"type": "integer"}, "description": "With a canary."},
                    "ids": {"type": "array", "items": {"type": "string"}},
                    "control": {"type": "array", "items": {"type": "boolean"}, "description": "Leave these untreated."},
                },
            },
            (400, 401, 403, 404, 413, 415, 422, 429, 503),
        ),
    }


def _labels(name: str, model: LoadedModel) -> dict[str, Any]:
    positive = model.definition.positive
    truth: dict[str, Any] = {"type": "number"}
    if model.definition.task == "classification":
        truth = {"type": "string"} if positive else {"enum": [0, 1]}
    label = {
        "type": "object",
        "required": ["id", "truth"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 256},
            "truth": truth,
            "author": {"type": "string", "minLength": 1, "maxLength": 256},
        },
    }
    example = {"labels": [{"id": "an-id-from-an-answer", "truth": positive or 1}]}
    return {
        "operationId": f"labels-{name}",
        "summary": f"Give the truth of earlier rows of {name}",
        "description": "Repeating a label changes nothing; another truth corrects it. Unknown ids are named, and "
        "their labels kept for a while.",
        "tags": [name],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["labels"],
                        "properties": {"labels": {"type": "array", "minItems": 1, "items": label}},
                    },
                    "example": example,
                }
            },
        },
        "responses": _responses(
            {
                "type": "object",
                "required": ["accepted", "unknown"],
                "properties": {
                    "accepted": {"type": "integer"},
                    "unknown": {"type": "array", "items": {"type": "string"}},
                },
            },
            (400, 401, 403, 404, 413, 415, 422, 429, 503),
        ),
    }


def _infer(name: str, what: str, model: LoadedModel, example: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        {**tensor, "shape": [1], "data": [example[tensor["name"]]]}
        for tensor in metadata(model.definition, model.schema, [model.version])["inputs"]
    ]
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        },
    }
    return {
        "operationId": f"infer-{name}",
        "summary": f"Score rows with {name} by the Open Inference Protocol",
        "description": what,
        "tags": [name],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["inputs"],
                        "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}},
                    },
                    "example": {"inputs": inputs},
                }
            },
        },
        "responses": _responses(
            {
                "type": "object",
                "required": ["model_name", "model_version", "outputs"],
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "outputs": {"type": "array", "items": tensor},
                },
            },
            (400, 401, 403, 404, 413, 415, 422, 429, 503),
        ),
    }


def _get(
    summary: str, description: str, tag: str, kind: str = "application/json", *, guarded: bool = False,
    failing: tuple[int, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    problems = (*failing, *((401, 403, 404, 429, 503) if guarded else ()))
    content = {kind: {"schema": {"type": "object"} if kind == "application/json" else {"type": "string"}}}
    answers = _responses({}, problems)
    answers["200"] = {"description": "Answered.", "content": content}
    if summary == "Ping":
        answers["200"] = {"description": "Answered."}
    operation: dict[str, Any] = {"summary": summary, "description": description, "tags": [tag], "responses": answers}
    if not guarded:
        operation["security"] = []
    return {"get": operation}


def _responses(schema: dict[str, Any], problems: tuple[int, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {"200": {"description": "Answered.", "content": {"application/json": {"schema": schema}}}}
    for status in problems:
        made[str(status)] = {
            "description": f"{CODES[status]}: {_MEANINGS[status]}",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return made
