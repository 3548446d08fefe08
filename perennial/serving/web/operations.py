"""What is posted, for the OpenAPI document: scoring and labels, each with a schema and examples that work."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from perennial.serving.protocol.problems import CODES
from perennial.serving.protocol.v2 import metadata
from perennial.serving.versions.model import LoadedModel

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

_REFUSALS = (400, 401, 403, 404, 413, 415, 422, 429, 503)


def invocations(
    name: str, what: str, model: LoadedModel, row: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    columns = list(model.schema.columns)
    cells = [example[column] for column in columns]
    score: dict[str, Any] = {"type": "number"}
    label: dict[str, Any] = {"type": "integer"}
    if model.many is not None:
        count = len(model.many.names)
        score = {"type": "array", "items": score, "minItems": count, "maxItems": count}
        label = {"enum": list(model.many.names)}
    output: dict[str, Any] = {
        "name": "output",
        "in": "query",
        "schema": {"type": "string", "enum": ["probability", "label", "both", "word"]},
    }
    split: dict[str, Any] = {
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
    lists = {"type": "array", "minItems": 1, "items": split["properties"]["data"]["items"]}
    by_column = {"type": "object", "required": columns, "properties": {name: {"type": "array"} for name in columns}}
    tensors = {"anyOf": [records, lists, by_column]}
    forms = {"dataframe_records": records, "dataframe_split": split, "inputs": tensors, "instances": tensors}
    extras: dict[str, Any] = {"ids": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 256}}}
    if model.definition.task == "classification":
        extras["params"] = {"type": "object", "properties": {"output": output["schema"]}}
    both = {"type": "object", "properties": {"label": label, "probability": score}}
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
                                "properties": {form: schema, **extras},
                                "additionalProperties": False,
                            }
                            for form, schema in forms.items()
                        ]
                    },
                    "examples": {
                        "dataframe_records": {"value": {"dataframe_records": [example]}},
                        "dataframe_split": {"value": {"dataframe_split": {"columns": columns, "data": [cells]}}},
                        "inputs": {"value": {"inputs": {column: [example[column]] for column in columns}}},
                        "instances": {"value": {"instances": [example], "ids": ["an-id-of-your-own"]}},
                    },
                },
                "text/csv": {"schema": {"type": "string"}, "example": _csv(columns, cells)},
            },
        },
        "responses": responses(
            {
                "type": "object",
                "required": ["predictions", "model", "version", "ids"],
                "properties": {
                    "predictions": {"type": "array", "items": {"anyOf": [score, both, {"type": "string"}]}},
                    "model": {"type": "string"},
                    "version": {"type": "integer", "description": "The champion's."},
                    "versions": {"type": "array", "items": {"type": "integer"}, "description": "With a canary."},
                    "ids": {"type": "array", "items": {"type": "string"}},
                    **_class_order(model),
                    "control": {"type": "array", "items": {"type": "boolean"}, "description": "Leave these untreated."},
                },
            },
            _REFUSALS,
        ),
    }


def _class_order(model: LoadedModel) -> dict[str, Any]:
    if model.many is None:
        return {}
    told = "In the order of each row's probabilities."
    return {"classes": {"const": list(model.many.names), "description": told}}


def labels(name: str, model: LoadedModel) -> dict[str, Any]:
    classes = model.classes
    truth: dict[str, Any] = {"type": "number"}
    if classes is not None:
        truth = {
            "anyOf": [{"enum": list(classes.names)}, {"type": "number"}, {"type": "boolean"}],
            "description": f"{classes.told()}; 0/1, true/false where that is clear.",
        }
    columns = model.definition.data.id_columns
    parts: dict[str, Any] = (
        {name: {} for name in columns} if len(columns) > 1 else {}
    )  # of an id, where it is not given whole
    label = {
        "type": "object",
        "additionalProperties": False,
        "required": [] if parts else ["id"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 256},
            "truth": truth,
            "take_back": {"type": "boolean", "description": "True, without a truth: what was said no longer counts."},
            "author": {"type": "string", "minLength": 1, "maxLength": 256},
            **parts,
        },
    }
    example = {"labels": [{"id": "an-id-from-an-answer", "truth": classes.names[-1] if classes else 1}]}
    return {
        "operationId": f"labels-{name}",
        "summary": f"Give the truth of earlier rows of {name}",
        "description": "Repeating a label changes nothing; another truth corrects it. Unknown ids are named, and "
        "their labels kept for a while.",
        "tags": [name],
        "requestBody": _body("labels", {"labels": {"type": "array", "minItems": 1, "items": label}}, example),
        "responses": responses(
            {
                "type": "object",
                "required": ["accepted", "unknown"],
                "properties": {
                    "accepted": {"type": "integer"},
                    "unknown": {"type": "array", "items": {"type": "string"}},
                },
            },
            _REFUSALS,
        ),
    }


def infer(name: str, which: str, what: str, model: LoadedModel, example: dict[str, Any]) -> dict[str, Any]:
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
        "operationId": f"infer-{name}" if which == name else f"infer-{name}-version",
        "summary": f"Score rows with {which} by the Open Inference Protocol",
        "description": what,
        "tags": [name],
        "requestBody": _body(
            "inputs", {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}}, {"inputs": inputs}
        ),
        "responses": responses(
            {
                "type": "object",
                "required": ["model_name", "model_version", "outputs"],
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "outputs": {"type": "array", "items": tensor},
                },
            },
            _REFUSALS,
        ),
    }


def responses(schema: dict[str, Any], problems: tuple[int, ...]) -> dict[str, Any]:
    """An operation's answers: the good one, and the refusals that it may give."""
    made: dict[str, Any] = {"200": {"description": "Answered.", "content": {"application/json": {"schema": schema}}}}
    for status in problems:
        made[str(status)] = {
            "description": f"{CODES[status]}: {_MEANINGS[status]}",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return made


def _body(required: str, properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [required], "properties": properties}
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _csv(*lines: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
