"""The source's contract as an ODCS v3 document: read, compared with what comes, written from what is known. Pure.

The Open Data Contract Standard (Bitol, https://bitol-io.github.io/open-data-contract-standard/) has no field for a
column's unit: it is a custom property `unit`, here as where others write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from tasks.alerts.item import Item
from tasks.watch.columns import Contract, alike

if TYPE_CHECKING:
    from open_data_contract_standard.model import SchemaObject, SchemaProperty

_REMEDY = "Correct the document, or watch.contract in the definition"
# What is not here, such as an array or a time of day, is not compared.
_TYPES = {"string": "text", "date": "time", "timestamp": "time", "number": "number", "integer": "integer",
          "boolean": "boolean"}  # fmt: skip
_LOGICAL = {"text": "string", "time": "timestamp", "number": "number", "integer": "integer", "boolean": "boolean"}
UNIT = "unit"


def read_contract(document: Any, source: str, table: str | None) -> dict[str, dict[str, Any]]:
    """Each column's type (None where it can't be compared), whether values may be missing, and its unit, if any.

    Args:
        document: What the YAML or JSON holds.
        source: Where it is from, for messages.
        table: Which of its schemas; needed where it has several.

    Raises:
        DataError: It is no contract of version 3, or has no such table.
    """
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    if not isinstance(document, dict) or document.get("kind") != "DataContract":
        raise DataError(f"{source} is no ODCS contract: its kind is not DataContract", _REMEDY)
    if not str(document.get("apiVersion", "")).startswith("v3."):
        raise DataError(f"{source} is of ODCS {document.get('apiVersion')!r}; known is version 3", _REMEDY)
    try:
        contract = OpenDataContractStandard(**document)
    except (ValidationError, TypeError) as error:
        told = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in told["loc"])
        raise DataError(f"{source} is no ODCS contract: {where}: {told['msg']}", _REMEDY) from error
    columns = {}
    for column in _schema(contract.schema_ or [], source, table).properties or []:
        name = column.physicalName or column.name
        if not name:
            raise DataError(f"{source} has a property without a name", _REMEDY)
        unit = _unit(column)
        columns[name] = {
            "type": _TYPES.get(column.logicalType or ""),
            "nullable": not (column.required or column.primaryKey),
            **({UNIT: unit} if unit else {}),
        }
    if not columns:
        raise DataError(f"{source} names no column", _REMEDY)
    return columns


def _schema(schemas: list[SchemaObject], source: str, table: str | None) -> SchemaObject:
    names = [item.name or item.physicalName or "" for item in schemas]
    if table is None and len(schemas) == 1:
        return schemas[0]
    if table in names:
        return schemas[names.index(table)]
    asked = "which of them is not said" if table is None else f"none is called {table}"
    raise DataError(f"{source} has the schemas {', '.join(names) or 'none'}; {asked}", "Set watch.contract_table")


def _unit(column: SchemaProperty) -> str:
    own = {str(item.property).lower(): item.value for item in column.customProperties or []}
    return str(own.get(UNIT) or (column.logicalTypeOptions or {}).get(UNIT) or "")


def broken(contract: Contract, now: Contract, definition: ModelDefinition) -> Iterator[Item]:
    """Where what comes is not what the contract says; columns that it does not name are nobody's promise."""
    used = roles(definition)
    for name, said in contract.items():
        role = used.get(name)
        if name not in now:
            if role == "target":
                continue  # truth comes later
            yield _item(f"gone: {name}", "the source breaks its contract: a column is absent",
                        f"the contract names {name}{_as(role)}, and the source has no such column", role)  # fmt: skip
            continue
        come = now[name]
        if said["type"] and come["type"] != "empty" and not _meets(said["type"], come["type"], definition):
            yield _item(f"type: {name}", "the source breaks its contract: a column's type",
                        f"{name}{_as(role)} is to be {said['type']}, and is {come['type']}", role)  # fmt: skip
        if come["nullable"] and not said["nullable"] and role != "target":
            yield _item(f"missing: {name}", "the source breaks its contract: values are missing",
                        f"{name}{_as(role)} must have a value in every row, and has not", None)  # fmt: skip


def contract_changes(before: Contract, now: Contract, definition: ModelDefinition) -> Iterator[Item]:
    """What the contract itself says otherwise than when the champion came, of columns that the model uses."""
    for name, role in roles(definition).items():
        old, new = before.get(name), now.get(name)
        if old is None:
            continue
        if new is None:
            yield _item(f"dropped: {name}", "the contract dropped a column",
                        f"the contract does not name {name}{_as(role)} any more", role)  # fmt: skip
        elif old.get(UNIT, "") != new.get(UNIT, ""):
            was, is_ = old.get(UNIT) or "without a unit", new.get(UNIT) or "without one"
            yield _item(f"unit: {name}", "a column's unit changed",
                        f"{name}{_as(role)} was {was} when the champion came, and is {is_} by the contract", role,
                        "Convert it in the source, or retrain on rows of the new unit alone")  # fmt: skip
        elif old["type"] and new["type"] and not alike(old["type"], new["type"]):
            yield _item(f"retyped: {name}", "the contract changed a column's type",
                        f"{name}{_as(role)} was {old['type']} by the contract, and is {new['type']}", role)  # fmt: skip
        elif new["nullable"] and not old["nullable"]:
            yield _item(f"loosened: {name}", "the contract lets values go missing",
                        f"{name}{_as(role)} had a value in every row, and may be missing now", None)  # fmt: skip


def export_contract(definition: ModelDefinition, columns: Contract) -> str:
    """The YAML of a contract with these columns.

    Args:
        columns: As of `tasks.watch.columns.contract_of`, with `unit` where it is known.
    """
    from open_data_contract_standard.model import (
        CustomProperty,
        Description,
        OpenDataContractStandard,
        SchemaObject,
        SchemaProperty,
    )

    used, ids = roles(definition), definition.data.id_columns
    properties = []
    for name, known in columns.items():
        key = name in ids
        properties.append(
            SchemaProperty(
                name=name,
                logicalType=_LOGICAL.get(known["type"] or "", "object"),
                physicalType=None if known["type"] in _LOGICAL else known["type"],
                required=not known["nullable"],
                primaryKey=True if key else None,
                primaryKeyPosition=ids.index(name) + 1 if key else None,
                criticalDataElement=True if name in used else None,
                description=f"The {used[name]} of the model {definition.name}" if name in used else None,
                customProperties=[CustomProperty(property=UNIT, value=known[UNIT])] if known.get(UNIT) else None,
            )
        )
    contract = OpenDataContractStandard(
        apiVersion="v3.0.2", kind="DataContract", id=f"perennial-{definition.name}", name=definition.name,
        version="1.0.0", status="active",
        description=Description(purpose=definition.description or f"What the model {definition.name} reads"),
        schema=[SchemaObject(name=definition.name.replace("-", "_"), logicalType="object", properties=properties)],
    )  # fmt: skip
    return contract.to_yaml()


def roles(definition: ModelDefinition) -> dict[str, str]:
    """What each column is to the model."""
    data = definition.data
    found = dict.fromkeys([*definition.features.columns], "feature")
    return found | dict.fromkeys(data.id_columns, "id") | {data.time: "time", data.target: "target"}


def _meets(said: str, come: str, definition: ModelDefinition) -> bool:
    """Of a CSV, times are text: whether they can be read, ingestion says."""
    return alike(said, come) or (said == "time" and come == "text" and definition.data.source.csv is not None)


def _as(role: str | None) -> str:
    return f", the model's {role}," if role else ""


def _item(key: str, title: str, detail: str, role: str | None, to_do: str = "") -> Item:
    to_do = to_do or "Ask who feeds it, before the next ingestion; or agree on another contract"
    return Item(f"watch:contract:{key}", "watch", title, detail, to_do, (), grave=role not in (None, "target"))


def mended(columns: Mapping[str, Mapping[str, Any]], contract: Contract) -> dict[str, dict[str, Any]]:
    """The source's columns with what only a contract knows of them: the unit, and that values may be missing."""
    return {
        name: {**known, **({UNIT: contract[name][UNIT]} if contract.get(name, {}).get(UNIT) else {}),
               "nullable": bool(known["nullable"] or contract.get(name, {}).get("nullable", False))}
        for name, known in columns.items()
    }  # fmt: skip
