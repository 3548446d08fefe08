"""What a change of an OpenAPI document breaks for who reads the API. Pure; no document is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perennial.errors import DataError
from tasks.alerts.item import Item

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_DEEPEST = 12


def operations(document: Any, source: str) -> dict[str, dict[str, Any]]:
    """Each operation's parameters, request and answers, flat: what two documents are compared by.

    Raises:
        DataError: It is no OpenAPI document of version 3.
    """
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise DataError(f"{source} is no OpenAPI document of version 3", "Correct watch.openapi in the definition")
    found: dict[str, dict[str, Any]] = {}
    for path, item in (document.get("paths") or {}).items():
        item = _resolved(document, item)
        for method in _METHODS:
            if method in item:
                found[f"{method.upper()} {path}"] = _operation(document, item, item[method])
    return found


def breaking(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Item]:
    """What a client of before may stumble over, by operation."""
    for name, old in before.items():
        if name not in now:
            yield _item(name, "an operation of the API is gone", f"{name} is gone", grave=True)
            continue
        told = [*_parameters(old, now[name]), *_request(old, now[name]), *_answers(old, now[name])]
        if told:
            yield _item(
                name, "the API changed in a way that breaks", f"{name}: {'; '.join(told[:8])}", tuple(told), grave=True
            )


def _operation(document: Any, item: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {}
    for parameter in [*item.get("parameters", ()), *raw.get("parameters", ())]:
        one = _resolved(document, parameter)
        fields: dict[str, Any] = {}
        _flatten(document, one.get("schema", {}), "", fields)
        place = f"{one['name']} in {one['in']}"
        parameters[place] = fields.get("", {}) | {"required": bool(one.get("required"))}
    request: dict[str, Any] = {}
    body = _resolved(document, raw.get("requestBody", {}))
    _flatten(document, _json_schema(body), "", request)
    answers: dict[str, Any] = {}
    for code, answer in (raw.get("responses") or {}).items():
        if str(code).startswith("2"):
            _flatten(document, _json_schema(_resolved(document, answer)), "", answers)
    security = raw.get("security", document.get("security")) or []
    open_to_all = not security or {} in security
    return {
        "parameters": parameters, "request": request, "answers": answers, "secured": not open_to_all,
        "body_required": bool(body.get("required")),
    }  # fmt: skip


def _json_schema(raw: Mapping[str, Any]) -> Any:
    content = raw.get("content") or {}
    return next((item.get("schema", {}) for kind, item in content.items() if "json" in kind), {})


def _flatten(
    document: Any, schema: Any, path: str, into: dict[str, Any], required: bool = True, depth: int = 0
) -> None:
    """Fields by path, lists as `[]`; circles end where they are too deep to matter."""
    if depth > _DEEPEST or not isinstance(schema, dict):
        return
    schema = _resolved(document, schema)
    for part in schema.get("allOf", ()):
        _flatten(document, part, path, into, required, depth + 1)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    variants = [_resolved(document, one) for key in ("anyOf", "oneOf") for one in schema.get(key, ())]
    kinds += [kind for one in variants for kind in ([one["type"]] if isinstance(one.get("type"), str) else [])]
    nullable = bool(schema.get("nullable")) or "null" in kinds
    own = {
        "type": sorted({kind for kind in kinds if kind != "null"}), "required": required, "nullable": nullable,
        "enum": sorted(map(str, schema["enum"])) if "enum" in schema else None, "format": schema.get("format"),
    }  # fmt: skip
    if own["type"] or path not in into:
        into[path] = own
    for one in (schema, *variants):
        needed = one.get("required", ())
        for name, inner in (one.get("properties") or {}).items():
            _flatten(document, inner, f"{path}.{name}".lstrip("."), into, name in needed, depth + 1)
        if "items" in one:
            _flatten(document, one["items"], f"{path}[]", into, True, depth + 1)


def _resolved(document: Any, raw: Any) -> Any:
    """What a local `$ref` leads to.

    Raises:
        DataError: It leads nowhere.
    """
    for _ in range(_DEEPEST):
        reference = raw.get("$ref") if isinstance(raw, dict) else None
        if not isinstance(reference, str):
            return raw
        if not reference.startswith("#/"):
            return {}  # another document: what it says is not compared
        raw = document
        for part in reference[2:].split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(raw, dict) or part not in raw:
                raise DataError(f"the OpenAPI document's $ref {reference} leads nowhere", "Tell who publishes it")
            raw = raw[part]
    return {}


def _parameters(old: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, new in now["parameters"].items():
        before = old["parameters"].get(name)
        if new["required"] and (before is None or not before["required"]):
            yield f"parameter {name} is required now"
        if before is not None:
            yield from _narrowed(f"parameter {name}", before, new)
    for name in old["parameters"].keys() - now["parameters"].keys():
        yield f"parameter {name} is gone"
    if now["secured"] and not old["secured"]:
        yield "it asks for credentials now"


def _request(old: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if now["body_required"] and not old["body_required"]:
        yield "a request needs a body now"
    for path, new in now["request"].items():
        before = old["request"].get(path)
        if path and new["required"] and (before is None or not before["required"]):
            yield f"a request must have {path} now"
        if before is not None:
            yield from _narrowed(f"{path or 'the body'} of a request", before, new)


def _narrowed(name: str, before: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if before.get("type") and new.get("type") and not set(before["type"]) <= set(new["type"]):
        yield f"{name} was {' or '.join(before['type'])} and is {' or '.join(new['type'])}"
    if new.get("enum") is not None and (before.get("enum") is None or set(before["enum"]) - set(new["enum"])):
        yield f"{name} takes fewer values"


def _answers(old: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path, before in old["answers"].items():
        name, new = path or "the answer", now["answers"].get(path)
        if new is None:
            yield f"{name} is gone from the answer"
            continue
        if before["type"] and not set(new["type"]) <= set(before["type"]):
            yield f"{name} was {' or '.join(before['type'])} and is {' or '.join(new['type']) or 'anything'}"
        elif before["format"] != new["format"]:
            yield f"{name} had the format {before['format']} and has {new['format']}"
        if new["nullable"] and not before["nullable"]:
            yield f"{name} may be null now"
        if before["required"] and not new["required"]:
            yield f"{name} may be left out now"
        if before["enum"] is not None and (new["enum"] is None or set(new["enum"]) - set(before["enum"])):
            yield f"{name} may have new values"


def _item(key: str, title: str, detail: str, marks: tuple[str, ...] = (), *, grave: bool = False) -> Item:
    to_do = "Adapt what reads it before the next ingestion"
    return Item(f"watch:openapi:{key}", "watch", title, detail, to_do, marks, grave)
