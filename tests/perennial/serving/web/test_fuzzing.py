"""Contract fuzzing of the whole OpenAPI document: whatever comes in, nothing but a documented answer goes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from serving_world import LocalClient, answering, copy_home

from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api

# Schemathesis draws from `random` inside its own strategies.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")


@pytest.fixture(scope="module")
def server(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    workspace = copy_home(world, tmp_path_factory.mktemp("fuzz") / "home")
    with answering(workspace) as client:
        yield client


def _fuzz(server: Any, examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    calls = 0
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(
            max_examples=examples, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=strategy)
        def ask(case: Any) -> None:
            nonlocal calls
            calls += 1
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
            case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])

        ask()
    assert server.get("/v2/health/live").status_code == 200
    return calls


@pytest.mark.process
def test_no_input_makes_a_server_error(server: Any) -> None:
    assert _fuzz(server, 12) > 60


@pytest.mark.long
def test_no_input_makes_a_server_error_at_length(server: Any) -> None:
    assert _fuzz(server, 400) > 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["probability", "FP64", "BYTES"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data", "ids", "params",
             "output",
             "outputs", "name", "datatype", "shape", "parameters", "binary_data_size", "binary_data", "labels", "id",
             "truth", "author", "a", "b", "empty", "colour", "code", "row", "at"]
        ), inner, max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip


@pytest.fixture(scope="module")
def local(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClient]:
    workspace = copy_home(world, tmp_path_factory.mktemp("local") / "home")
    with LocalClient(Api(Service(workspace, ServingSettings()), Tokens(""))) as client:
        yield client


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hypothesis.given(
    path=st.sampled_from(["models/colours/invocations", "v2/models/colours/infer", "models/colours/labels",
                          "invocations"]),
    document=JSON,
    kind=st.sampled_from(["application/json", "text/csv", "", "application/x"]), part=st.binary(max_size=20),
    at=st.integers(-200, 200),
    length=st.none() | st.text("0123456789-x", max_size=4),
)  # fmt: skip
def test_documents_of_our_own_words_in_any_order_are_answered(
    local: LocalClient, path: str, document: Any, kind: str, part: bytes, at: int, length: str | None
) -> None:
    import json

    headers = {"content-type": kind} | ({"inference-header-content-length": length} if length is not None else {})
    content = json.dumps(document).encode()
    content = content[:at] + part + content[at:]
    answer = local.post(f"/{path}", content=content, headers=headers)
    assert answer.status_code in (200, 400, 404, 413, 415, 422), answer.text
