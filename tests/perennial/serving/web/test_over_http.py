"""Tests of what a client sees on the wire: a real server, real sockets, real clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving_world import copy_home, serving

from perennial.workspace import Workspace

GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}
INFER, INVOKE = "/v2/models/colours/infer", "/models/colours/invocations"


def tensors(**changes: Any) -> list[dict[str, Any]]:
    """GOOD as v2 input tensors of one row."""
    kinds = {"a": "FP64", "b": "FP64", "empty": "FP64"}
    return [
        {"name": name, "datatype": kinds.get(name, "BYTES"), "shape": [1], "data": [value]}
        for name, value in (GOOD | changes).items()
    ]


@pytest.fixture(scope="module")
def home(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return copy_home(world, tmp_path_factory.mktemp("http") / "home")


@pytest.fixture(scope="module")
def server(home: Workspace) -> Iterator[Any]:
    with serving(home, PERENNIAL_SERVING_SHIP_SECONDS="0.3") as client:
        yield client


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.05)


def counted(client: Any, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_the_id_of_a_v2_request_names_no_row(server: Any, home: Workspace) -> None:
    ids = []
    for number in range(200):
        body = {"id": "7001", "inputs": tensors(a=number / 7)}
        answer = server.post(INFER, json=body).json()
        assert answer["id"] == "7001"
        (output,) = [item for item in answer["outputs"] if item["name"] == "id"]
        ids += output["data"]
    assert len(set(ids)) == 200
    wait_for(lambda: counted(server, 'perennial_shipped_rows_total{model="colours"}') >= 200)
    log = home.store.read("colours", "predictions", columns=["id"])["id"].to_pylist()
    assert set(ids) <= set(log)
    assert "7001" not in log


def test_rows_that_are_sent_with_an_id_have_it_and_repeats_are_counted(server: Any, home: Workspace) -> None:
    row = {"name": "row", "datatype": "BYTES", "shape": [1], "data": ["mine"]}
    first = server.post(INFER, json={"inputs": [*tensors(), row]}).json()
    assert [item["data"] for item in first["outputs"] if item["name"] == "id"] == [["mine"]]
    assert server.post(INVOKE, json={"instances": [GOOD], "ids": ["mine"]}).status_code == 200
    assert server.post(INVOKE, json={"instances": [GOOD | {"a": 9}], "ids": ["mine"]}).status_code == 200
    sample = 'perennial_repeated_rows_total{{inputs="{}",model="colours"}}'.format
    wait_for(lambda: counted(server, sample("other")) == 1)
    assert counted(server, sample("same")) == 1
    traffic = server.get("/models/colours").json()["traffic"]
    assert traffic["repeated_rows_by_inputs"] == {"same": 1, "other": 1}
    assert home.store.read("colours", "predictions", columns=["id"])["id"].to_pylist().count("mine") == 1
