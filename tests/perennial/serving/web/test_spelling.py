"""Requests and labels say ids and categories as the tables do, and answers tell what training never saw."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from serving_world import LocalClient, copy_home, definition_of, make_workspace, register, register_pipeline, rows_of

from perennial.model.features import feature_frame
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.workspace import Workspace
from tasks.learning.fitting import fit, predict_score
from tasks.rows.frames import is_known
from tasks.rows.normal_form import row_ids

ROW: dict[str, Any] = {"a": 1.0, "b": 2, "empty": None, "colour": "red", "code": "7"}
COLOURS = "/models/colours/invocations"


def client_of(workspace: Workspace) -> LocalClient:
    return LocalClient(Api(Service(workspace, ServingSettings(ship_seconds=0.2)), Tokens("")))


@pytest.fixture(scope="module")
def client(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClient]:
    with client_of(copy_home(world, tmp_path_factory.mktemp("spelling") / "home")) as client:
        yield client


def test_one_category_however_it_is_written(client: LocalClient) -> None:
    cells = ["7", 7, 7.0, "7.0", "7.00"]
    answer = client.post(COLOURS, json={"instances": [ROW | {"code": cell} for cell in cells]}).json()
    assert len(set(answer["predictions"])) == 1
    assert "warnings" not in answer
    csv = "a,b,empty,colour,code\n" + "".join(f"1.0,2,NA,red,{cell}\n" for cell in cells)
    again = client.post(COLOURS, content=csv, headers={"content-type": "text/csv"}).json()
    assert again["predictions"] == answer["predictions"]


def test_unknown_categories_are_warned_of_with_the_nearest(client: LocalClient) -> None:
    rows = [ROW | {"colour": "Red"}, ROW | {"colour": "gren", "code": "007"}, ROW | {"colour": "Red"}, ROW]
    answer = client.post(COLOURS, json={"instances": rows}).json()
    assert answer["warnings"] == [
        {"problem": "unknown category", "column": "colour", "value": "Red", "rows": 2, "nearest": "red"},
        {"problem": "unknown category", "column": "colour", "value": "gren", "rows": 1, "nearest": "green"},
        {"problem": "unknown category", "column": "code", "value": "007", "rows": 1, "nearest": None},
    ]
    assert answer["predictions"][3] == client.post(COLOURS, json={"instances": [ROW]}).json()["predictions"][0]
    served = client.service.served("colours").champion
    assert served.schema.warnings({("colour", "Red"): 1}, hidden=("colour",))[0]["nearest"] is None
    many = [ROW | {"code": f"x{number}"} for number in range(100)]
    assert len(client.post(COLOURS, json={"instances": many}).json()["warnings"]) == 20


def test_tensors_are_warned_of_too(client: LocalClient) -> None:
    tensors = [
        {"name": name, "datatype": "FP64" if name in ("a", "b", "empty") else "BYTES", "shape": [1], "data": [value]}
        for name, value in (ROW | {"colour": "RED"}).items()
    ]
    answer = client.post("/v2/models/colours/infer", json={"inputs": tensors}).json()
    (warning,) = json.loads(answer["parameters"]["warnings"])
    assert (warning["value"], warning["nearest"]) == ("RED", "red")


@pytest.mark.parametrize("cell", [1e16, "1e+16", "9007199254740994.0"])
def test_a_code_that_a_float_has_rounded_is_refused(client: LocalClient, cell: object) -> None:
    answer = client.post(COLOURS, json={"instances": [ROW | {"code": cell}]})
    assert answer.status_code == 422
    assert "not told apart" in answer.json()["error"]


def test_csv_says_na_where_a_category_is_na(client: LocalClient) -> None:
    head = "a,b,empty,colour,code\n"
    answer = client.post(COLOURS, content=head + "1,NA,,NA,7\n1,,,,7\n", headers={"content-type": "text/csv"}).json()
    assert [(warning["column"], warning["value"]) for warning in answer["warnings"]] == [("colour", "NA")]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([0.0, "1.0", 2], ["0", "1", "2"]),
        (["2012-12-21T22:00:00", "2012-12-21T00:00:00Z", "007"], ["2012-12-21 22:00:00", "2012-12-21", "007"]),
        ([12345678901234567890, "1e3", "TRUE"], ["12345678901234567890", "1e3", "True"]),
    ],
)
def test_ids_are_spelled_as_the_tables_spell_them(client: LocalClient, given: list[Any], told: list[str]) -> None:
    definition = client.service.workspace.definition("colours")
    answer = client.post(COLOURS, json={"instances": [ROW] * 3, "ids": given}).json()
    assert answer["ids"] == told
    assert row_ids(pd.DataFrame({"row": pd.Series(given, dtype=object)}), definition).tolist() == told
    records = [ROW | {"row": value} for value in given]
    assert client.post(COLOURS, json={"dataframe_records": records}).json()["ids"] == told
    labels = [{"id": value, "truth": 1} for value in given]
    assert client.post("/models/colours/labels", json=labels).json()["unknown"] == []
    store = client.service.workspace.store
    for table in ("predictions", "labels"):
        _until(lambda table=table: is_known(pd.Series(told), store.frame("colours", table)["id"]).all())


def _until(true: Callable[[], bool]) -> None:
    """The log is shipped by a thread."""
    for _ in range(300):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it was not shipped")


@pytest.mark.parametrize("given", [True, 1.5e16, None, "", [1], {}])
def test_what_is_no_id(client: LocalClient, given: object) -> None:
    assert client.post(COLOURS, json={"instances": [ROW], "ids": [given]}).status_code == 422
    assert client.post("/models/colours/labels", json={"id": given, "truth": 1}).status_code == 422


def test_two_spellings_of_one_id_are_one_id_twice(client: LocalClient) -> None:
    answer = client.post(COLOURS, json={"instances": [ROW, ROW], "ids": ["5", 5.0]})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("id '5' is given twice; wanted: one id for each row, all different")


# --- ids of several columns ---


@pytest.fixture(scope="module")
def several(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClient]:
    """A model whose rows are named by customer and code; the code is a feature as well."""
    home = tmp_path_factory.mktemp("several")
    (home / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    raw = definition_of()
    workspace = make_workspace(home, raw | {"data": raw["data"] | {"id": ["customer", "code"]}})
    register(workspace, "colours", "one")
    with client_of(workspace) as client:
        yield client


def test_ids_of_several_columns_in_requests_and_labels(several: LocalClient) -> None:
    def ids(rows: list[dict[str, Any]], **more: Any) -> Any:
        answer = several.post(COLOURS, json={"dataframe_records": rows, **more})
        return answer.json().get("ids", answer.json().get("error"))

    assert ids([ROW | {"customer": 3.0}, ROW | {"customer": "a|b"}]) == ["3|7", "a\\|b|7"]
    assert len(ids([ROW])[0]) > 10  # no customer: an id of ours
    assert ids([ROW, ROW], ids=[[3, 8], "4.0|8"]) == ["3|8", "4|8"]
    assert ids([ROW | {"customer": 3}, ROW]).startswith("id [None, '7'] of row 1 is none; wanted: one id")
    assert "each a list of customer, code" in ids([ROW], ids=["3"])
    split = {"columns": [*ROW, "customer"], "data": [[*ROW.values(), 5]]}
    assert several.post(COLOURS, json={"dataframe_split": split}).json()["ids"] == ["5|7"]
    labels = [
        {"customer": "3.0", "code": 7, "truth": 1}, {"id": ["a|b", "7"], "truth": 0}, {"id": "5|7", "truth": 1},
    ]  # fmt: skip
    assert several.post("/models/colours/labels", json=labels).json()["unknown"] == []
    assert several.post("/models/colours/labels", json={"customer": 3, "truth": 1}).status_code == 422
    description = json.dumps(several.get("/openapi.json").json())
    assert "'customer', 'code'" in description


def test_a_part_of_an_id_alone_is_refused(several: LocalClient) -> None:
    served = several.service.served("colours").champion
    rows = [{name: value for name, value in ROW.items() if name != "code"} | {"customer": 1}]
    answer = several.post(COLOURS, json={"dataframe_records": rows})
    assert answer.status_code == 422
    assert served.schema.id_columns == ("customer", "code")


# --- versions of before ---


def test_a_version_of_older_spellings_answers_as_it_did(tmp_path: Path, mlflow_database: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    workspace = make_workspace(home, definition_of(estimator="linear"))
    definition, frame = workspace.definition("colours"), rows_of(400)
    pipeline = fit(definition, frame, {}, 0).pipeline
    rows = feature_frame(frame, definition.features)
    wanted = predict_score(pipeline, rows, "classification")
    # As a CSV with a gap was read: 7 was "7.0".
    (encoder,) = [step for name, step, _ in pipeline.named_steps["preprocess"].transformers_ if name == "categorical"]
    place = list(encoder.feature_names_in_).index("code")
    encoder.categories_[place] = np.array(
        [f"{value}.0" if isinstance(value, str) else value for value in encoder.categories_[place]], dtype=object
    )
    old = rows.assign(code=rows["code"] + ".0")
    register_old(workspace, pipeline, old, wanted)
    with client_of(workspace) as client:
        for code in (frame["code"].tolist(), [int(value) for value in frame["code"]], old["code"].tolist()):
            records = json.loads(frame.assign(code=code).drop(columns=["row", "at", "y"]).to_json(orient="records"))
            answer = client.post(COLOURS, json={"dataframe_records": records}).json()
            assert "warnings" not in answer
            np.testing.assert_allclose(answer["predictions"], wanted, atol=1e-9)


def register_old(workspace: Workspace, pipeline: Any, rows: pd.DataFrame, scores: np.ndarray) -> None:
    """Register as training did before spellings were one: golden rows in the old one."""
    import serving_world

    kept = serving_world.feature_frame, serving_world.predict_score
    serving_world.feature_frame = lambda frame, _: frame  # type: ignore[assignment]
    serving_world.predict_score = lambda *_: scores[-40:]  # type: ignore[assignment]
    try:
        register_pipeline(workspace, workspace.definition("colours"), pipeline, rows, "old")
    finally:
        serving_world.feature_frame, serving_world.predict_score = kept
