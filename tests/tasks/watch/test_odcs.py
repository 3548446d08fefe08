"""Contracts of the Open Data Contract Standard: read, held against the source, written so that others can read them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from small_model import NUMERIC, day, define, rows, write_source

from perennial.commands.looking.contract import contract as command
from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.workspace import Workspace
from tasks.watch.columns import contract_of
from tasks.watch.contract import broken, contract_changes, export_contract, mended, read_contract
from tasks.watch.looking import look_around

DEFINITION = ModelDefinition.model_validate(
    {
        "name": "trips", "task": "regression",
        "data": {"source": {"parquet": "rows.parquet"}, "id": ["shop", "trip"], "time": "at", "target": "y"},
        "features": {"numeric": ["distance"], "categorical": ["place"]},
    }
)  # fmt: skip
# As the standard's own examples write it: a column's name beside its physical name, types of the standard.
DOCUMENT = yaml.safe_load("""
apiVersion: v3.0.2
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
name: trips
version: 1.1.0
status: active
schema:
- name: trips
  logicalType: object
  physicalType: table
  properties:
  - {name: Shop, physicalName: shop, logicalType: string, primaryKey: true, primaryKeyPosition: 1}
  - {name: trip, logicalType: integer, primaryKey: true, primaryKeyPosition: 2}
  - {name: at, logicalType: timestamp, required: true}
  - name: distance
    logicalType: number
    required: true
    customProperties:
    - {property: unit, value: km}
  - {name: place, logicalType: string}
  - {name: y, logicalType: number, required: true}
  - {name: stops, logicalType: array, items: {logicalType: string}}
""")
FRAME = pd.DataFrame(
    {"shop": ["a", "a"], "trip": [1, 2], "at": pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
     "distance": [1.5, 2.0], "place": ["n", None], "y": [1.0, 2.0], "stops": [["x"], ["y"]], "own": [1, 2]}
)  # fmt: skip


def read(document: Any = None, table: str | None = None) -> dict[str, dict[str, Any]]:
    return read_contract(document or DOCUMENT, "trips.odcs.yaml", table)


def changed(column: str, **changes: Any) -> dict[str, dict[str, Any]]:
    return {name: ({**known, **changes} if name == column else known) for name, known in read().items()}


def told(frame: pd.DataFrame) -> list[tuple[str, bool]]:
    items = broken(read(), contract_of(frame), DEFINITION)
    return [(item.key.removeprefix("watch:contract:"), item.grave) for item in items]


def test_a_document_is_read() -> None:
    assert read() == {
        "shop": {"type": "text", "nullable": False},
        "trip": {"type": "integer", "nullable": False},
        "at": {"type": "time", "nullable": False},
        "distance": {"type": "number", "nullable": False, "unit": "km"},
        "place": {"type": "text", "nullable": True},
        "y": {"type": "number", "nullable": False},
        "stops": {"type": None, "nullable": True},
    }


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (FRAME, []),
        (FRAME.assign(distance=[1, 2]), []),
        (FRAME.drop(columns="y"), []),  # truth comes later
        (FRAME.assign(y=[None, 2.0]), []),
        (FRAME.drop(columns="distance"), [("gone: distance", True)]),
        (FRAME.drop(columns="stops"), [("gone: stops", False)]),
        (FRAME.assign(distance=["1", "2"]), [("type: distance", True)]),
        (FRAME.assign(distance=[None, 2.0]), [("missing: distance", False)]),
        (FRAME.assign(trip=[1, None]), [("missing: trip", False)]),
        (FRAME.assign(at=["a", "b"]), [("type: at", True)]),
        (FRAME.assign(stops=1), []),
    ],
)
def test_what_comes_is_held_against_it(frame: pd.DataFrame, wanted: list[tuple[str, bool]]) -> None:
    assert told(frame) == wanted


def test_of_a_csv_times_are_text() -> None:
    source = {"source": DEFINITION.data.source.model_copy(update={"csv": "x.csv", "parquet": None})}
    definition = DEFINITION.model_copy(update={"data": DEFINITION.data.model_copy(update=source)})
    assert list(broken(read(), contract_of(FRAME.assign(at=["a", "b"])), definition)) == []


@pytest.mark.parametrize(
    ("now", "key", "grave"),
    [
        (changed("distance", unit="mi"), "unit: distance", True),
        (changed("distance", unit=""), "unit: distance", True),
        (changed("distance", type="text"), "retyped: distance", True),
        (changed("distance", nullable=True), "loosened: distance", False),
        ({name: known for name, known in read().items() if name != "place"}, "dropped: place", True),
        (changed("stops", type="text"), None, False),  # the model does not use it
        (changed("distance", type="integer"), None, False),
    ],
)
def test_what_the_contract_says_otherwise_is_told(now: dict[str, Any], key: str | None, grave: bool) -> None:
    found = [(item.key, item.grave) for item in contract_changes(read(), now, DEFINITION)]
    assert found == ([] if key is None else [(f"watch:contract:{key}", grave)])


def test_a_unit_that_changed_names_both() -> None:
    (found,) = contract_changes(read(), changed("distance", unit="mi"), DEFINITION)
    assert found.detail == ("distance, the model's feature, was km when the champion came, and is mi by the contract")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "its kind is not DataContract"),
        ({"kind": "DataContract", "apiVersion": "v2.2.2"}, "of ODCS 'v2.2.2'; known is version 3"),
        (DOCUMENT | {"datasetName": "old"}, "datasetName: Extra inputs are not permitted"),
        (DOCUMENT | {"schema": [{"name": "a", "properties": "x"}]}, "schema.0.properties"),
        (DOCUMENT | {"schema": []}, "has the schemas none"),
        (DOCUMENT | {"schema": [{"name": "a"}]}, "names no column"),
        (DOCUMENT | {"schema": [{"name": "a", "properties": [{"logicalType": "string"}]}]}, "without a name"),
        (DOCUMENT | {"schema": [{"name": "a"}, {"name": "b"}]}, "the schemas a, b; which of them is not said"),
    ],
)
def test_what_is_no_contract_is_refused_by_name(document: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_contract(document, "trips.odcs.yaml", None)


def test_of_several_schemas_one_is_named() -> None:
    other = {"name": "other", "properties": [{"name": "x", "logicalType": "string"}]}
    document = DOCUMENT | {"schema": [other, *DOCUMENT["schema"]]}
    assert read(document, "trips") == read()
    with pytest.raises(DataError, match="none is called third"):
        read(document, "third")


def test_an_exported_contract_is_valid_and_comes_back_as_it_was() -> None:
    columns = mended(contract_of(FRAME), read())
    text = export_contract(DEFINITION, columns)
    document = yaml.safe_load(text)
    jsonschema.validate(document, json.loads((files("open_data_contract_standard") / "schema.json").read_text()))
    back = read(document)
    assert back["distance"] == {"type": "number", "nullable": False, "unit": "km"}
    assert {name: known["type"] for name, known in back.items() if name not in ("stops", "own")} == {
        name: known["type"] for name, known in read().items() if name != "stops"
    }
    assert back["own"] == {"type": "integer", "nullable": False}
    assert list(broken(back, contract_of(FRAME), DEFINITION)) == []
    keys = {item["name"]: item.get("primaryKeyPosition") for item in document["schema"][0]["properties"]}
    assert (keys["shop"], keys["trip"], keys["place"]) == (1, 2, None)


def test_from_the_source_to_a_contract_that_is_watched(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by the command, named in the definition, its unit edited: the watch tells what is not as agreed."""
    import perennial.workspace

    monkeypatch.setattr(perennial.workspace, "open_workspace", lambda **_: workspace)
    define(workspace)
    write_source(workspace, rows(0, 13))
    path = workspace.settings.model_folders[0] / "digits.odcs.yaml"
    run = CliRunner().invoke(
        command, ["digits", "--export", str(path), "--as-of", day(13).isoformat()], catch_exceptions=False
    )
    assert run.exit_code == 0, run.output
    assert "ink_11" in run.output
    named = define(workspace, watch={"contract": "digits.odcs.yaml", "source": False})
    assert look_around(workspace, named, at=day(13)) == []
    document = yaml.safe_load(path.read_text())
    column = next(item for item in document["schema"][0]["properties"] if item["name"] == "ink_11")
    column["customProperties"] = [{"property": "unit", "value": "per mille"}]
    path.write_text(yaml.safe_dump(document))
    write_source(workspace, rows(0, 13).drop(columns="shade").assign(ink_00="x"))
    found = {item.key: item for item in look_around(workspace, named, at=day(13.1))}
    assert set(found) == {f"watch:contract:{key}" for key in ("unit: ink_11", "gone: shade", "type: ink_00")}
    assert found["watch:contract:unit: ink_11"].detail.startswith(
        "ink_11, the model's feature, was without a unit when the champion came, and is per mille"
    )
    both = define(workspace, watch={"contract": "digits.odcs.yaml"})
    look_around(workspace, both, at=day(13.2))
    write_source(workspace, rows(0, 13).drop(columns=["shade", NUMERIC[1]]).assign(ink_00="x"))
    keys = [item.key for item in look_around(workspace, both, at=day(13.3))]
    assert len(keys) == len(set(keys))
    assert f"watch:source:gone: {NUMERIC[1]}" not in keys, "told once, as a breach of the contract"
    again = CliRunner().invoke(command, ["digits", "--export", str(path)])
    assert isinstance(again.exception, DataError)
    (gone,) = look_around(workspace, define(workspace, watch={"contract": "none.yaml"}), at=day(13.4))
    assert "there is no file" in gone.detail
