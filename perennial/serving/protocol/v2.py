"""The Open Inference Protocol v2: tensors to rows, scores to tensors, in JSON and in its binary form. Scores nothing.

One input tensor for each feature, named as it, of shape [n] or [n, 1]: truth values are BOOL (or BYTES, which know a
missing one), moments BYTES in ISO 8601 or the INT64 that the definition gives a unit. The rows' ids may come as one
more, named as the id column: the request's `id` is only given back. Outputs are `probability` and `label`, or
`prediction` for regression (with `lower` and `upper` where the definition asks for an interval), and `id`, `version`,
`control` beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from perennial.definition import ModelDefinition
from perennial.serving.protocol.codec import (
    Request,
    check_count,
    encode_json,
    from_columns,
    parse_json,
    take_output,
)
from perennial.serving.protocol.columns import COLUMN_ROWS
from perennial.serving.protocol.problems import Problem, shown
from perennial.serving.protocol.schema import Kind, Schema

_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
_BYTES = "BYTES"
DATATYPES = (*_TYPES, _BYTES)
_KIND_TYPES = {
    "numeric": "FP64", "categorical": _BYTES, "text": _BYTES, "image": _BYTES, "boolean": "BOOL", "datetime": _BYTES,
}  # fmt: skip


class Inference:
    """A v2 request: the rows, and how its answer is wanted.

    Attributes:
        request: The rows, ids and output.
        name: The request's own id, given back; it names no row.
        outputs: Names of the wanted output tensors with whether each is wanted in binary form.
    """

    def __init__(self, request: Request, name: str, outputs: list[tuple[str, bool]] | None, binary: bool) -> None:
        self.request = request
        self.name = name
        self.outputs = outputs
        self.binary = binary


def output_names(definition: ModelDefinition) -> tuple[str, ...]:
    """The tensors that a model can answer with."""
    scores: tuple[str, ...] = ("probability", "label", "word")
    if definition.task == "regression":
        scores = ("prediction", *(() if definition.serving.interval is None else ("lower", "upper")))
    return (*scores, "id", "version", "control")


def metadata(
    definition: ModelDefinition, schema: Schema, versions: Sequence[int], classes: Sequence[str] = ()
) -> dict[str, Any]:
    """The model's metadata as the protocol has it.

    Args:
        classes: Of more than two classes their names, in order.
    """
    kinds = {
        "probability": "FP64",
        "prediction": "FP64",
        "lower": "FP64",
        "upper": "FP64",
        "label": _BYTES if classes else "INT64",
        "word": _BYTES,
        "id": _BYTES,
        "version": "INT64",
    }
    return {
        "name": definition.name,
        "versions": [str(version) for version in versions],
        "platform": "perennial_sklearn",
        "inputs": [
            {"name": name, "datatype": _KIND_TYPES[kind], "shape": [-1]}
            for name, kind in zip(schema.columns, schema.kinds, strict=True)
        ],
        "outputs": [
            {"name": name, "datatype": kinds.get(name, "BOOL"), "shape": _shape(name, classes)}
            for name in output_names(definition)
        ],
        **_class_parameters(classes),
    }


def _shape(name: str, classes: Sequence[str]) -> list[int]:
    return [-1, len(classes)] if classes and name == "probability" else [-1]


def _class_parameters(classes: Sequence[str]) -> dict[str, Any]:
    """The order of many classes; the protocol's parameters are texts, numbers and truth values."""
    return {"parameters": {"classes": encode_json(list(classes)).decode()}} if classes else {}


def parse_inference(
    body: bytes, header_length: str | None, schema: Schema, definition: ModelDefinition, most_rows: int
) -> Inference:
    """An inference request.

    Args:
        header_length: The header Inference-Header-Content-Length, where binary data follows the JSON.

    Raises:
        Problem: 400, 413 or 422, saying which part is wrong.
    """
    document, binary = _split(body, header_length)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        example = [{"name": schema.columns[0], "datatype": "FP64", "shape": [1], "data": [0.5]}]
        raise Problem(400, "inputs is not a list of tensors", rule="one tensor for each feature", example=example)
    columns: dict[str, Any] = {}
    position = 0
    kinds = dict(zip(schema.columns, schema.kinds, strict=True))
    for tensor in inputs:
        name, values, position = _tensor(tensor, binary, position, kinds)
        if name in columns:
            raise Problem(400, f"the input {shown(name)} is given twice", column=name, rule="each tensor once")
        columns[name] = values
    if position != len(binary):
        raise Problem(
            400, f"{len(binary) - position} bytes follow the last tensor", rule="binary_data_size of each tensor"
        )
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise Problem(
            400, f"the inputs differ in length: {sorted(lengths)}", rule="one value for each row in every input"
        )
    count = lengths.pop() if lengths else 0
    check_count(count, most_rows)
    request = from_columns(list(columns), list(columns.values()), schema)
    return _with_wishes(request, document, definition)


def answer(
    inference: Inference, definition: ModelDefinition, version: int, columns: Mapping[str, Callable[[], Any]],
    classes: Sequence[str] = (),
) -> tuple[bytes, dict[str, str]]:  # fmt: skip
    """The response's body and headers.

    Args:
        columns: What makes the output tensors, by name: arrays, or lists of texts.
        classes: Of more than two classes their names, in order.
    """
    wanted = inference.outputs
    if wanted is None:
        scores = {
            "probability": ["probability"],
            "label": ["label"],
            "both": ["probability", "label"],
            "word": ["word"],
        }
        chosen = inference.request.output
        first = ["prediction"] if definition.task == "regression" else scores[chosen or definition.serving.output]
        # Without a word on outputs the protocol gives them all.
        names = [*first, "id", "version"] if chosen else [*dict.fromkeys([*first, *output_names(definition)])]
        wanted = [(name, inference.binary) for name in names]
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in wanted:
        outputs.append(_output(name, columns[name](), binary, tail))
    document: dict[str, Any] = {"model_name": definition.name, "model_version": str(version), "outputs": outputs}
    if inference.name:
        document["id"] = inference.name
    document |= _class_parameters(classes)
    if inference.request.warnings:
        # The protocol's parameters are texts, numbers and truth values.
        warnings = encode_json(inference.request.warnings).decode()
        document["parameters"] = document.get("parameters", {}) | {"warnings": warnings}
    head = encode_json(document)
    if not tail:
        return head, {"content-type": "application/json"}
    return b"".join([head, *tail]), {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }


def _with_wishes(request: Request, document: dict[str, Any], definition: ModelDefinition) -> Inference:
    parameters = document.get("parameters")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise Problem(400, "parameters is no object", rule='{"output": "both"}')
    if "output" in parameters:
        request.output = take_output(parameters["output"])
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise Problem(400, f"id {shown(name)} is no text", rule="a text")
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return Inference(request, name or "", None, parameters.get("binary_data_output") is True)
    known = output_names(definition)
    wishes: list[tuple[str, bool]] = []
    for item in outputs if isinstance(outputs, list) else [None]:
        wanted = item.get("name") if isinstance(item, dict) else None
        if wanted not in known:
            raise Problem(400, f"there is no output {shown(wanted)}", value=shown(wanted), rule=", ".join(known))
        own = item.get("parameters") if isinstance(item, dict) else None
        binary = parameters.get("binary_data_output")
        wishes.append((str(wanted), (own.get("binary_data", binary) if isinstance(own, dict) else binary) is True))
    return Inference(request, name or "", wishes, False)


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 12):
            raise Problem(400, f"Inference-Header-Content-Length {shown(header_length)} is no length", rule="a number")
        length = int(header_length)
        if length > len(body):
            raise Problem(400, f"Inference-Header-Content-Length {length} is beyond the body", rule="the JSON's length")
    document = parse_json(body[:length])
    if not isinstance(document, dict):
        raise Problem(400, "the body is no object", rule='{"inputs": [...]}')
    return document, body[length:]


def _tensor(tensor: dict[str, Any], binary: bytes, position: int, kinds: Mapping[str, Kind]) -> tuple[str, Any, int]:
    name, kind, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or not isinstance(kind, str) or (kind not in _TYPES and kind != _BYTES):
        known = ", ".join(DATATYPES)
        raise Problem(400, f"input {shown(name)} has the datatype {shown(kind)}", value=shown(kind), rule=known)
    count = _rows_of_shape(name, shape)
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary) - position:
            raise Problem(
                400, f"input {name!r}: binary_data_size {shown(size)} is beyond the body", column=name, rule="its bytes"
            )
        values = _from_bytes(name, kind, binary[position : position + size], count, kinds.get(name))
        position += size
    else:
        values = _from_list(name, tensor.get("data"))
    if len(values) != count:
        raise Problem(
            400,
            f"input {name!r} has {len(values)} values, its shape says {count}",
            column=name,
            rule="as many as its shape",
        )
    return name, values, position


def _rows_of_shape(name: str, shape: Any) -> int:
    if type(shape) is list and len(shape) == 1 and type(shape[0]) is int and 0 <= shape[0] < 2**31:
        return shape[0]
    whole = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    if not whole or len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise Problem(400, f"input {name!r} has the shape {shown(shape)}", column=name, rule="[n] or [n, 1]")
    return int(shape[0])


def _from_list(name: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise Problem(400, f"input {name!r} has no data", column=name, rule="a list of values")
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]


def _from_bytes(name: str, kind: str, data: bytes, count: int, meant: Kind | None) -> Any:
    if kind != _BYTES:
        width = _TYPES[kind].itemsize
        if len(data) != count * width:
            raise Problem(
                400, f"input {name!r} has {len(data)} bytes, {count} values of {kind} have {count * width}", column=name
            )
        found = np.frombuffer(data, dtype=_TYPES[kind])
        if meant == "numeric":
            return found
        # A name is spelled in the precision that held it: as a double, 0.1 in single precision has 17 digits.
        return list(found) if kind in ("FP16", "FP32") else found.tolist()
    if meant != "image" and (texts := _of_one_length(data, count)) is not None:
        return texts
    values: list[Any] = []
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            rule = "4 bytes of length before each text"
            raise Problem(400, f"input {name!r} ends within a text's length", column=name, rule=rule)
        length = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + length > len(data):
            raise Problem(400, f"input {name!r}: a text of {length} bytes is beyond its data", column=name)
        values.append(data[position : position + length])
        position += length
    if meant == "image":
        return values
    try:
        # A tensor of texts knows no null: an empty one is missing.
        return [value.decode() if value else None for value in values]
    except UnicodeDecodeError as error:
        raise Problem(400, f"input {name!r} is not UTF-8: {error.reason}", column=name) from None


def _of_one_length(data: bytes, count: int) -> list[str] | None:
    """Plain texts of one length each, as codes are, without a look at each; None where they are not that."""
    head = data[:4]
    size = int.from_bytes(head, "little")
    if count < COLUMN_ROWS or not size or len(data) != count * (4 + size) or not data.isascii():
        return None
    lines = np.frombuffer(data, dtype=np.uint8).reshape(count, 4 + size)
    if not (lines[:, :4] == np.frombuffer(head, dtype=np.uint8)).all():
        return None
    text = lines[:, 4:].tobytes().decode("ascii")
    return [text[at : at + size] for at in range(0, len(text), size)]


def _output(name: str, values: Any, binary: bool, tail: list[bytes]) -> dict[str, Any]:
    array = None if isinstance(values, list) else np.asarray(values)
    kind = _BYTES if array is None else {"f": "FP64", "i": "INT64", "b": "BOOL"}[array.dtype.kind]
    shape = [len(values)] if array is None else list(array.shape)
    made: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
    if not binary:  # a tensor's data may be flat, in the order of its rows
        made["data"] = values if array is None else array.ravel().tolist()
        return made
    if array is None:
        texts = [value.encode() for value in values]
        heads = {size: size.to_bytes(4, "little") for size in set(map(len, texts))}
        data = b"".join([part for text in texts for part in (heads[len(text)], text)])
    else:
        data = array.astype("?" if kind == "BOOL" else _TYPES[kind]).tobytes()
    tail.append(data)
    made["parameters"] = {"binary_data_size": len(data)}
    return made
