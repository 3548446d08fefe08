"""What is posted, for the OpenAPI document: scoring and labels, each with a schema and examples that work."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from perennial.model.numbers import number
from perennial.model.truth import Classes, code_one
from perennial.serving.protocol.problems import CODES
from perennial.serving.protocol.v2 import DATATYPES, metadata, output_names
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

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_REFUSALS = (400, 401, 403, 404, 413, 415, 422, 429, 503)


_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_TRUTHS = ("0", "1", "0.0", "1.0", "true", "false", "True", "False", "TRUE", "FALSE")
# An id of one column; of several it is the list of its parts, or those joined.
ID: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 256}, {"type": ["number", "null"]}]}


def _id_of(model: LoadedModel) -> dict[str, Any]:
    columns = model.schema.id_columns
    one: dict[str, Any] = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 256}, {"type": "number"}]}
    if len(columns) == 1:
        return one
    parts = {"type": "array", "minItems": len(columns), "maxItems": len(columns), "items": one}
    return {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 256}, parts]}


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
            "columns": {
                "type": "array",
                "description": "In any order; others than the features are ignored.",
                "allOf": [{"contains": {"const": column}} for column in columns],
            },
            "data": {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": len(columns)}},
            "index": {"type": ["array", "null"], "description": "Ignored; a label for each row, or none."},
        },
    }
    width = {"type": "array", "minItems": len(columns), "maxItems": len(columns)}
    records = {"type": "array", "minItems": 1, "items": row}
    lists = {"type": "array", "minItems": 1, "items": width}
    single = {"not": {"type": ["array", "object"]}}
    by_column = {
        "type": "object",
        "required": columns,
        "anyOf": [
            {"properties": {name: {"type": "array", "minItems": 1} for name in columns}},
            {"properties": dict.fromkeys(columns, single), "description": "One row."},
        ],
    }
    tensors = {"anyOf": [records, lists, by_column]}
    forms = {"dataframe_records": records, "dataframe_split": split, "inputs": tensors, "instances": tensors}
    extras: dict[str, Any] = {
        "ids": {"type": ["array", "null"], "items": _id_of(model), "uniqueItems": True},
        "signature_name": {"description": "TensorFlow's; ignored."},
        "params": {"type": ["object", "null"], "additionalProperties": False},
    }
    if model.definition.task == "classification":
        extras["params"]["properties"] = {"output": output["schema"]}
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
                    **_interval_ends(model),
                    "control": {"type": "array", "items": {"type": "boolean"}, "description": "Leave these untreated."},
                    "warnings": {"type": "array", "items": {"type": "object"}, "description": "Unknown categories."},
                },
            },
            _REFUSALS,
        ),
    }


def _interval_ends(model: LoadedModel) -> dict[str, Any]:
    coverage = model.definition.serving.interval
    if coverage is None:
        return {}
    told = f"The {{}} ends of intervals that are to hold {coverage:.0%} of the truths, row for row."
    ends = {"type": "array", "items": {"type": ["number", "null"]}}
    return {name: {**ends, "description": told.format(name)} for name in ("lower", "upper")}


def _class_order(model: LoadedModel) -> dict[str, Any]:
    if model.many is None:
        return {}
    told = "In the order of each row's probabilities."
    return {"classes": {"const": list(model.many.names), "description": told}}


def _numbers_of(classes: Classes) -> list[float]:
    """0, 1, and classes that are numbers, as numbers."""
    found = [read for word in classes.names if (read := number(word)) is not None and math.isfinite(read)]
    return [int(each) if float(each).is_integer() else each for each in dict.fromkeys([0, 1, *found])]


def labels(name: str, model: LoadedModel) -> dict[str, Any]:
    classes = model.classes
    truth: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _NUMBER}]}
    if classes is not None:
        # Whatever may mean a class is asked of the code that will read it.
        words = (*dict.fromkeys([*classes.names, *_TRUTHS]), *_numbers_of(classes), True, False)
        short = "" if classes.many else "; 0/1, true/false where that is clear."
        truth = {
            "description": f"{classes.told()}{short}",
            "enum": [word for word in words if code_one(word, "classification", classes) is not None],
        }
    columns = model.definition.data.id_columns
    parts: dict[str, Any] = (
        {name: {} for name in columns} if len(columns) > 1 else {}
    )  # of an id, where it is not given whole
    one: dict[str, Any] = {
        "id": _id_of(model),
        "truth": truth,
        "author": {"type": "string", "minLength": 1, "maxLength": 256},
        **parts,
    }
    back = {"const": True, "description": "Without a truth: what was said no longer counts."}
    needed = [] if parts else ["id"]
    label = {
        "anyOf": [
            {"type": "object", "additionalProperties": False, "required": [*needed, "truth"],
             "properties": one | {"take_back": {"const": False}}},
            {"type": "object", "additionalProperties": False, "required": [*needed, "take_back"],
             "properties": one | {"truth": {"type": "null"}, "take_back": back}},
        ]
    }  # fmt: skip
    several = {"type": "array", "minItems": 1, "items": label}
    whole = {"type": "object", "required": ["labels"], "properties": {"labels": several}, "additionalProperties": False}
    example = {"labels": [{"id": "an-id-from-an-answer", "truth": classes.names[-1] if classes else 1}]}
    return {
        "operationId": f"labels-{name}",
        "summary": f"Give the truth of earlier rows of {name}",
        "description": "Repeating a label changes nothing; another truth corrects it. Unknown ids are named, and "
        "their labels kept for a while.",
        "tags": [name],
        "requestBody": _body({"anyOf": [whole, label, several]}, example),
        "responses": responses(
            {
                "type": "object",
                "required": ["accepted", "unknown"],
                "properties": {
                    "model": {"type": "string"},
                    "note": {"type": "string"},
                    "accepted": {"type": "integer"},
                    "unknown": {"type": "array", "items": {"type": "string"}},
                },
            },
            _REFUSALS,
        ),
    }


def reviews(name: str, model: LoadedModel) -> dict[str, Any]:
    """Both operations of a model's reviews."""
    classes = model.classes
    truth = {"type": ["number", "string"]} if classes is None else {"enum": list(classes.names)}
    one: dict[str, Any] = {
        "type": "object",
        "required": ["id", "author"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "author": {"type": "string", "minLength": 1, "maxLength": 256},
            "truth": truth,
            **{says: {"type": "boolean"} for says in ("cannot_tell", "skip", "undo")},
            "seconds": {"type": ["number", "null"], "minimum": 0, "maximum": 86400},
            "note": {"type": ["string", "null"], "maxLength": 2000},
        },
        "description": "Exactly one of truth, cannot_tell, skip and undo.",
    }
    several = {"type": "array", "minItems": 1, "items": one}
    whole = {"type": "object", "required": ["answers"], "properties": {"answers": several}}
    example = {"id": "an-id-of-the-queue", "author": "anna", "truth": classes.names[-1] if classes else 1, "seconds": 4}
    item: dict[str, Any] = {
        "type": "object",
        "properties": {
            "id": {"type": "string"}, "time": {"type": "string"}, "features": {"type": "object"},
            "score": {"type": "number"}, "predicted": {"type": ["string", "null"]},
            "choices": {"type": "array", "items": {"type": "string"}},
            "again": {"type": "boolean", "description": "People disagree about it."}, "expires_at": {"type": "string"},
        },
    }  # fmt: skip
    author = {"name": "author", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}}
    asked = {
        "type": "object",
        "properties": {"waiting": {"type": "integer"}, "items": {"type": "array", "items": item}},
    }
    counts = {count: {"type": "integer"} for count in ("written", "unchanged", "labels")}
    return {
        "get": {
            "operationId": f"reviews-{name}",
            "summary": f"What a person is asked about {name}",
            "description": "Nothing in it tells why a row was chosen. Nobody sees another's answer.",
            "tags": [name],
            "parameters": [author, limit],
            "responses": responses(asked, _REFUSALS),
        },
        "post": {
            "operationId": f"answer-{name}",
            "summary": f"Answer what was asked about {name}",
            "description": "An answer is a label once it is settled. The same answer twice changes nothing.",
            "tags": [name],
            "requestBody": _body({"anyOf": [whole, one, several]}, {"answers": [example]}),
            "responses": responses({"type": "object", "properties": counts}, _REFUSALS),
        },
    }


def infer(name: str, which: str, what: str, model: LoadedModel, example: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        {**tensor, "shape": [1], "data": [example[tensor["name"]]]}
        for tensor in metadata(model.definition, model.schema, [model.version])["inputs"]
    ]
    shape = {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer", "minimum": 0}}
    told = {"name": {"type": "string"}, "datatype": {"enum": list(DATATYPES)}, "shape": shape}
    size = {"type": "object", "required": ["binary_data_size"], "properties": {"binary_data_size": {"type": "integer"}}}
    given: dict[str, Any] = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {**told, "data": {"type": "array"}, "parameters": {"type": ["object", "null"]}},
        "anyOf": [{"required": ["data"]}, {"required": ["parameters"], "properties": {"parameters": size}}],
    }
    tensor = {"type": "object", "required": ["name", "datatype", "shape"], "properties": {**told, "data": {}}}
    wished = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": list(output_names(model.definition))}, "parameters": {}},
    }
    outputs = ["probability", "label", "both", "word"] if model.definition.task == "classification" else []
    body = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "description": "Given back; it names no row."},
            "inputs": {
                "type": "array",
                "items": given,
                "allOf": [{"contains": {"properties": {"name": {"const": name}}}} for name in model.schema.columns],
            },
            "outputs": {
                "type": ["array", "null"],
                "items": wished,
                "description": "Without any: all of them.",
            },
            "parameters": {
                "type": ["object", "null"],
                "properties": {
                    "output": {"enum": outputs} if outputs else False,
                    "binary_data_output": {"type": "boolean"},
                },
            },
        },
    }
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "The length of the JSON, where binary tensors follow it.",
        "schema": {"type": "integer", "minimum": 0},
    }
    asked = _body(body, {"inputs": inputs})
    asked["content"]["application/octet-stream"] = {
        "schema": {"type": "string", "contentEncoding": "binary"},
        "description": "The JSON, then the binary tensors in its order.",
    }
    return {
        "operationId": f"infer-{name}" if which == name else f"infer-{name}-version",
        "summary": f"Score rows with {which} by the Open Inference Protocol",
        "description": what,
        "tags": [name],
        "parameters": [length],
        "requestBody": asked,
        "responses": responses(
            {
                "type": "object",
                "required": ["model_name", "model_version", "outputs"],
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "outputs": {"type": "array", "items": tensor},
                },
            },
            _REFUSALS,
        ),
    }


def responses(schema: dict[str, Any], problems: tuple[int, ...]) -> dict[str, Any]:
    """An operation's answers: the good one, and the refusals that it may give."""
    made: dict[str, Any] = {"200": {"description": "Answered.", "content": {"application/json": {"schema": schema}}}}
    # Whatever else goes wrong has the same form: another method, a slow head, a bug of ours.
    made["default"] = {"description": "Refused.", "content": {"application/json": {"schema": _PROBLEM}}}
    for status in problems:
        made[str(status)] = {
            "description": f"{CODES[status]}: {_MEANINGS[status]}",
            "content": {"application/json": {"schema": _PROBLEM}},
        }
    return made


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _csv(*lines: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
