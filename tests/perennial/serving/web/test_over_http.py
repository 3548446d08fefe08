"""Tests of what a client sees on the wire: a real server, real sockets, real clients."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from serving_world import answering, copy_home, rows_of, wait_for

from perennial.model.features import feature_frame
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.serving.web.cors import with_origins
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.steps.score import load_version

GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}
INFER, INVOKE, LABELS = "/v2/models/colours/infer", "/models/colours/invocations", "/models/colours/labels"
JSON = {"content-type": "application/json"}
FRAME = rows_of(30, 5)


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
    with answering(home, cors_origins="https://app.example.org", most_body_bytes=200_000) as client:
        yield client


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


CSV = "row,a,b,empty,colour,code\nü,1,2,,red,7\n"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("text/csv", 200), ("text/csv; charset=UTF-8", 200), ("text/csv;charset=latin-1;header=present", 200),
     ("text/csv; charset=utf-16", 200), ("text/csv; charset=klingon", 415), ("text/csv; charset=rot13", 415),
     ("text/csv; header=absent", 415), ("text/csv; format=tabs", 415)],
)  # fmt: skip
def test_what_csv_says_of_itself_is_honoured_or_refused(server: Any, kind: str, status: int) -> None:
    charset = kind.partition("charset=")[2].partition(";")[0] or "utf-8"
    content = CSV.encode(charset if status == 200 else "utf-8")
    answer = server.post(INVOKE, content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["ids"] == ["ü"]
    elif "charset" not in kind:
        assert "parameter" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [("", 200), ("application/json; charset=utf-8", 200), ("application/vnd.api+json", 200),
     ("application/json; charset=latin-1", 415), ("application/json; format=pandas-split", 415), ("text/plain", 415)],
)  # fmt: skip
def test_json_in_other_words_is_json_and_other_kinds_are_refused(server: Any, kind: str, status: int) -> None:
    bodies = {INVOKE: {"instances": [GOOD]}, INFER: {"inputs": tensors()}, LABELS: {"id": "x", "truth": 1}}
    for path, body in bodies.items():
        answer = server.post(path, content=json.dumps(body).encode(), headers={"content-type": kind} if kind else {})
        assert answer.status_code == status, (path, answer.text)


def test_packed_bodies_are_unpacked_within_the_bounds(server: Any) -> None:
    body = json.dumps({"instances": [GOOD]}).encode()
    raw = zlib.compressobj(wbits=-15)
    packed = {"gzip": gzip.compress(body), "X-GZip": gzip.compress(body), "deflate": zlib.compress(body),
              "Deflate": raw.compress(body) + raw.flush(), "Identity": body, "": body}  # fmt: skip
    for coding, content in packed.items():
        answer = server.post(INVOKE, content=content, headers=JSON | {"content-encoding": coding})
        assert answer.status_code == 200, (coding, answer.text)
    bomb = gzip.compress(b" " * 10_000_000)
    refused = [(bomb, 413), (gzip.compress(body)[:-9], 400), (gzip.compress(body) + b"x", 400), (body, 400)]
    for content, status in refused:
        answer = server.post(INVOKE, content=content, headers=JSON | {"content-encoding": "gzip"})
        assert answer.status_code == status, answer.text
    brotli = server.post(INVOKE, content=body, headers=JSON | {"content-encoding": "br"})
    assert (brotli.status_code, brotli.headers["accept-encoding"]) == (415, "gzip, deflate")


def test_a_real_client_packs_its_requests(server: Any) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        inputs = []
        for name, value in GOOD.items():
            numeric = name in ("a", "b", "empty")
            tensor = triton.InferInput(name, [2], "FP64" if numeric else "BYTES")
            cells = np.array([np.nan if value is None else value] * 2, dtype="float64" if numeric else object)
            tensor.set_data_from_numpy(cells)
            inputs.append(tensor)
        plain = client.infer("colours", inputs).as_numpy("probability")
        for algorithm in ("gzip", "deflate"):
            found = client.infer("colours", inputs, request_compression_algorithm=algorithm)
            assert found.as_numpy("probability").tolist() == plain.tolist()


@pytest.fixture(scope="module")
def wanted(home: Workspace) -> np.ndarray:
    """What the pipeline itself says of FRAME."""
    definition = home.definition("colours")
    pipeline = load_version(home.registry, home.registry.version("colours", 1), definition)
    return predict_score(pipeline, feature_frame(FRAME, definition.features), "classification")


def test_tritons_client_is_answered(server: Any, wanted: np.ndarray) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colours")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["name"] == "perennial"
        metadata = client.get_model_metadata("colours", "1")
        inputs = []
        for item in metadata["inputs"]:
            cells = FRAME[item["name"]]
            values = cells.to_numpy() if item["datatype"] == "FP64" else cells.fillna("").to_numpy(dtype=object)
            tensor = triton.InferInput(item["name"], [len(values)], item["datatype"])
            tensor.set_data_from_numpy(values, binary_data=item["name"] != "a")
            inputs.append(tensor)
        binary = client.infer("colours", inputs)
        np.testing.assert_allclose(binary.as_numpy("probability"), wanted, atol=1e-9)
        assert len(set(binary.as_numpy("id").tolist())) == 30
        outputs = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probability", binary_data=False)]
        mixed = client.infer("colours", inputs, model_version="1", outputs=outputs, request_id="mine")
        assert mixed.get_response()["id"] == "mine"
        assert (mixed.as_numpy("label") == (wanted >= 0.5)).all()
        np.testing.assert_allclose(mixed.as_numpy("probability"), wanted, atol=1e-9)
        with pytest.raises(triton.InferenceServerException, match="missing columns"):
            client.infer("colours", inputs[1:])
        with pytest.raises(triton.InferenceServerException, match="is not served"):
            client.infer("colours", inputs, model_version="9")


def test_mlflows_client_is_answered(server: Any, wanted: np.ndarray) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.ping()
    client.url_prefix = f"http://127.0.0.1:{server.port}/models/colours"  # several models are served
    found = client.invoke(FRAME[list(GOOD)]).get_predictions()
    np.testing.assert_allclose(found.iloc[:, 0], wanted, atol=1e-9)


def test_without_a_word_on_outputs_there_are_all(server: Any) -> None:
    every = [item["name"] for item in server.get("/v2/models/colours").json()["outputs"]]
    for wish in ({}, {"outputs": []}, {"outputs": None}):
        answer = server.post(INFER, json={"inputs": tensors()} | wish).json()
        assert sorted(item["name"] for item in answer["outputs"]) == sorted(every)
        assert answer["outputs"][0]["name"] == "probability"
    one = server.post(INFER, json={"inputs": tensors(), "outputs": [{"name": "label"}]}).json()
    assert [item["name"] for item in one["outputs"]] == ["label"]
    chosen = server.post(INFER, json={"inputs": tensors(), "parameters": {"output": "word"}}).json()
    assert [item["name"] for item in chosen["outputs"]] == ["word", "id", "version"]


def test_lengths_that_do_not_fit_are_refused(server: Any) -> None:
    split = {"columns": list(GOOD), "data": [list(GOOD.values())] * 2}
    for index, status in (([0, 1], 200), (None, 200), ([0], 422), ({}, 422), (3, 422)):
        answer = server.post(INVOKE, json={"dataframe_split": split | {"index": index}})
        assert answer.status_code == status, (index, answer.text)
    inputs = [tensor for tensor in tensors() if tensor["name"] != "code"]
    for data, status in ((b"\1\0\0\0" + b"7", 200), (b"\1\0\0\0" + b"7" + b"\0\0", 400), (b"\1\0", 400)):
        code = {"name": "code", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [*inputs, code]}).encode()
        headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
        answer = server.post(INFER, content=head + data, headers=headers)
        assert answer.status_code == status, answer.text
        assert status == 200 or "length" in answer.json()["error"]


def test_what_nobody_reads_is_refused_by_name(server: Any) -> None:
    one = {"instances": [GOOD]}
    for body in (one | {"id": ["x"]}, one | {"params": {"outputs": "label"}}, {"instances": [GOOD] * 40, "idz": []}):
        answer = server.post(INVOKE, json=body)
        assert answer.status_code == 422, answer.text
        assert "which nobody reads" in answer.json()["error"]
    assert server.post(INVOKE, json=one | {"signature_name": "serving_default"}).status_code == 200
    assert server.post(LABELS, json={"labels": [{"id": "x", "truth": 1}], "author": "Ada"}).status_code == 422
    assert server.post("/models/numbers/invocations?output=label", json=one).status_code == 422


def test_a_slash_within_a_name_is_no_separator(server: Any) -> None:
    body = {"instances": [GOOD]}
    assert server.post("/models/col%6Furs/invocations", json=body).status_code == 200
    # The second one names a model "colours/invocations", which nobody may post to.
    paths = ("/models%2Fcolours/invocations", "/models/colours%2Finvocations", "/models/colours%2F/invocations")
    for path, status in zip(paths, (404, 405, 404), strict=True):
        answer = server.post(path, json=body)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/json"


def test_a_head_is_bounded_and_names_its_host(server: Any) -> None:
    good = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    for head, status in (
        (good, b"200"), (b"GET /ping HTTP/1.0\r\n\r\n", b"200"), (b"GET /ping HTTP/1.1\r\n\r\n", b"400"),
        (good.replace(b"Host: x", b"Host: x\r\nHost: y"), b"400"),
        (good.replace(b"Host: x", b"Host: x\r\nX-A: " + b"a" * 60_000), b"200"),
        (good.replace(b"Host: x", b"Host: x\r\nX-A: " + b"a" * 70_000), b"431"),
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head)
            found = connection.recv(65536)
            assert found.startswith(b"HTTP/1.1 " + status), (head[:60], found[:300])
            assert status == b"200" or b"connection: close" in found


def test_pages_of_a_named_origin_may_ask(server: Any) -> None:
    origin = {"origin": "https://app.example.org"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, authorization"}
    preflight = server.options(INVOKE, headers=origin | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin["origin"]
    answer = server.post(INVOKE, json={"instances": [GOOD]}, headers=origin)
    assert answer.headers["access-control-allow-origin"] == origin["origin"]
    assert "x-model-version" in answer.headers["access-control-expose-headers"]
    stranger = server.post(INVOKE, json={"instances": [GOOD]}, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    with pytest.raises(ValueError, match="an origin is"):
        ServingSettings(cors_origins="app.example.org/x")
    assert with_origins(server, []) is server


def bodies() -> Iterator[tuple[str, Any]]:
    """Paths and bodies in many variations: what is taken, and what is refused for what a schema can say."""
    cells = (1, 1.5, "2.5", " 3 ", "", "x", "1_0", "NaN", "true", True, None, [1], {}, 1e300, 3e38)
    yield from ((INVOKE, {"instances": [GOOD | {"a": cell}]}) for cell in cells)
    names = ("red", "", 3, 2.5, True, None, [1], {})
    yield from ((INVOKE, {"instances": [GOOD | {"colour": cell}]}) for cell in names)
    ids = ("an id", 7, 2.5, None, True, "", [1], "x" * 257)
    yield from ((INVOKE, {"instances": [GOOD | {"row": cell}]}) for cell in ids)
    yield from ((INVOKE, {"instances": [GOOD], "ids": [cell]}) for cell in ids)
    yield from ((INVOKE, {"instances": [GOOD], "ids": cell}) for cell in (None, "x", 3))
    yield from ((INVOKE, {"instances": [GOOD | {"at": cell}]}) for cell in ("2026-01-31", None, 3, {}))
    yield from ((INVOKE, {"instances": [GOOD], "params": value})
                for value in ({}, None, {"output": "both"}, {"output": "odds"}, {"outputs": "both"}, 3))  # fmt: skip
    values, columns = list(GOOD.values()), {name: [value] for name, value in GOOD.items()}
    forms: list[Any] = [
        [GOOD], [values], columns, GOOD, {name: [[value]] for name, value in GOOD.items()}, [], {}, 3, None, [3],
        [values[:3]], {name: columns[name] for name in list(columns)[1:]}, [{"a": 1}], GOOD | {"a": [1.0]},
    ]  # fmt: skip
    yield from ((INVOKE, {form: value}) for form in ("inputs", "instances", "dataframe_records") for value in forms)
    names_of = list(GOOD)
    yield from ((INVOKE, {"dataframe_split": {"columns": names, "data": data} | more}) for names, data, more in (
        (names_of, [values], {}), (names_of[::-1], [values[::-1]], {}), (["more", *names_of], [[3, *values]], {}),
        (names_of[1:], [values[1:]], {}), (names_of, [], {}), (names_of, [values], {"index": [7]}),
        (names_of, [values], {"index": 7}), (3, [values], {}), (names_of, [values[:2]], {}),
    ))  # fmt: skip
    yield from ((INVOKE, body) for body in ({}, [], {"instances": [GOOD], "inputs": [GOOD]}, {"rows": [GOOD]},
                {"instances": [GOOD], "signature_name": "x"}, {"instances": [GOOD], "idz": ["x"]}))  # fmt: skip
    one = {"id": "x", "truth": 1}
    truths = (0, 1, 2, 0.0, True, False, "0", "1", "late", None, [1])
    yield from ((LABELS, {"id": "x", "truth": truth}) for truth in truths)
    yield from ((LABELS, {"id": cell, "truth": 1}) for cell in ids)
    yield from ((LABELS, body) for body in (
        {"labels": [one]}, [one], [], {"labels": []}, {"labels": [one], "author": "x"}, one | {"author": "Ada"},
        one | {"author": ""}, one | {"author": 3}, {"id": "x"}, {"truth": 1}, {"id": "x", "take_back": True},
        one | {"take_back": True}, one | {"take_back": False}, {"id": "x", "truth": None, "take_back": True},
        one | {"labelled_at": "2026-01-01"}, 3,
    ))  # fmt: skip
    yield from ((INFER, {"inputs": tensors()} | more) for more in (
        {}, {"id": "x"}, {"id": None}, {"id": 3}, {"outputs": []}, {"outputs": None}, {"outputs": [{"name": "label"}]},
        {"outputs": [{"name": "odds"}]}, {"outputs": [3]}, {"outputs": 3}, {"parameters": {"output": "both"}},
        {"parameters": {"output": "odds"}}, {"parameters": 3}, {"parameters": None}, {"inputs": tensors()[1:]},
        {"inputs": 3}, {"inputs": []}, {"inputs": [3]},
    ))  # fmt: skip
    first, *others = tensors()
    yield from ((INFER, {"inputs": [first | more, *others]}) for more in (
        {"shape": [1, 1]}, {"shape": [1, 1, 1]}, {"shape": 1}, {"shape": [-1]}, {"datatype": "FP32"},
        {"datatype": "FP8"}, {"data": None}, {"data": [[1.0]]}, {"parameters": {}}, {"parameters": None},
    ))  # fmt: skip


def test_the_openapi_document_says_what_is_accepted_and_answered(server: Any) -> None:
    document = server.get("/openapi.json").json()
    components = {"components": document["components"]}
    differences, taken = [], 0
    for path, body in bodies():
        operation = document["paths"][path]["post"]
        asked = operation["requestBody"]["content"]["application/json"]["schema"] | components
        said = Draft202012Validator(asked).is_valid(body)
        answer = server.post(path, json=body)
        taken += answer.status_code == 200
        if said != (answer.status_code == 200):
            differences.append((path, body, f"document: {said}, server: {answer.status_code} {answer.text[:150]}"))
        told = operation["responses"].get(str(answer.status_code), operation["responses"]["default"])
        wanted = told["content"]["application/json"]["schema"] | components
        Draft202012Validator(wanted).validate(answer.json())
        undocumented = set(answer.json()) - set(_properties(wanted, document))
        assert not undocumented, (path, undocumented)
    assert differences == []
    assert taken > 50


def test_every_route_is_in_the_openapi_document(server: Any, home: Workspace) -> None:
    document = server.get("/openapi.json").json()
    service = Service(home, ServingSettings())
    made = {(route.method.lower(), "/" + "/".join(route.pattern)) for route in Api(service, Tokens("")).routes}
    service.spool.close()
    described = set()
    for path, operations in document["paths"].items():
        general = path.replace("/colours", "/{model}").replace("/numbers", "/{model}")
        general = general.replace("/versions/1", "/versions/{version}")
        described |= {(method, general) for method in operations}
    page = {(method, path) for method, path in made if path.startswith("/docs/")}
    reviews = {(method, "/models/{model}/reviews") for method in ("get", "post")}  # neither model asks for any
    assert made - page - described == {("post", "/invocations"), *reviews}  # with several models it names none
    assert described <= made


def _properties(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = schema["properties"]
    return found
