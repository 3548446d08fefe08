"""Tests of what clients see: protocols, answers, refusals, labels, documents. In process, on real versions."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from serving_world import (
    LocalClient,
    copy_home,
    definition_of,
    make_workspace,
    records,
    register,
    register_pipeline,
    rows_of,
)

from perennial.commands.lifecycle.records import _fast_path
from perennial.model.features import feature_frame
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens, new_token
from perennial.serving.web.app import Api
from perennial.serving.web.openapi import openapi
from perennial.workspace import Workspace
from tasks.learning.fitting import fit, predict_score
from tasks.steps.score import load_version, score_file

FEATURES = ("a", "b", "empty", "colour", "code")


def client_of(workspace: Workspace, tokens: str = "", **settings: Any) -> LocalClient:
    service = Service(workspace, ServingSettings(ship_seconds=0.2, **settings))
    return LocalClient(Api(service, Tokens(tokens)))


@pytest.fixture(scope="module")
def home(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return copy_home(world, tmp_path_factory.mktemp("api") / "home")


@pytest.fixture(scope="module")
def client(home: Workspace) -> Iterator[LocalClient]:
    with client_of(home, most_rows=500, most_body_bytes=200_000) as client:
        yield client


def wanted_scores(workspace: Workspace, frame: pd.DataFrame, model: str = "colours", version: int = 1) -> np.ndarray:
    definition = workspace.definition(model)
    pipeline = load_version(workspace.registry, workspace.registry.version(model, version), definition)
    return predict_score(pipeline, feature_frame(frame, definition.features), definition.task)


@pytest.mark.parametrize(
    "form", ["dataframe_split", "dataframe_records", "inputs", "instances", "rows", "columns", "csv"]
)
def test_every_form_of_mlflows_protocol_gives_the_pipelines_scores(
    client: LocalClient, home: Workspace, form: str
) -> None:
    frame = rows_of(25, 3)
    found = records(frame, *FEATURES)
    split = {"columns": list(FEATURES), "data": [list(item.values()) for item in found]}
    columns = {name: [item[name] for item in found] for name in FEATURES}
    bodies: dict[str, Any] = {
        "dataframe_split": {"dataframe_split": split}, "dataframe_records": {"dataframe_records": found},
        "inputs": {"inputs": found}, "instances": {"instances": found}, "rows": {"inputs": split["data"]},
        "columns": {"inputs": columns},
    }  # fmt: skip
    if form == "csv":
        text = frame[list(FEATURES)].to_csv(index=False)
        answer = client.post("/models/colours/invocations", content=text, headers={"content-type": "text/csv"})
    else:
        answer = client.post("/models/colours/invocations", json=bodies[form])

    assert answer.status_code == 200, answer.text
    body = answer.json()
    np.testing.assert_allclose(body["predictions"], wanted_scores(home, frame), atol=1e-9)
    assert body["version"] == 1
    assert len(set(body["ids"])) == 25


def test_labels_probabilities_or_both_and_the_rows_own_ids(client: LocalClient) -> None:
    rows = records(rows_of(6, 3), "row", *FEATURES)
    body = {"dataframe_records": rows}
    probability = client.post("/models/colours/invocations", json=body).json()
    label = client.post("/models/colours/invocations?output=label", json=body).json()
    both = client.post("/models/colours/invocations", json=body | {"params": {"output": "both"}}).json()

    assert probability["ids"] == [row["row"] for row in rows]
    assert label["predictions"] == [int(score >= 0.5) for score in probability["predictions"]]
    assert both["predictions"] == [
        {"label": one, "probability": score}
        for one, score in zip(label["predictions"], probability["predictions"], strict=True)
    ]
    wrong = client.post("/models/colours/invocations?output=odds", json=body)
    assert wrong.status_code == 422
    own = client.post("/models/colours/invocations", json=body | {"ids": list("uvwxyz")}).json()
    assert own["ids"] == list("uvwxyz")


def test_ids_and_categories_in_csv_are_names_and_no_numbers(client: LocalClient, home: Workspace) -> None:
    text = "row,a,b,empty,colour,code\n007,1,2,,red,07\n"
    answer = client.post("/models/colours/invocations", content=text, headers={"content-type": "text/csv"}).json()
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "empty": [np.nan], "colour": ["red"], "code": ["07"]})
    assert answer["ids"] == ["007"]
    np.testing.assert_allclose(answer["predictions"], wanted_scores(home, frame), atol=1e-9)


def test_regression_answers_values(client: LocalClient, home: Workspace) -> None:
    frame = rows_of(9, 4, "regression")
    answer = client.post("/models/numbers/invocations", json={"instances": records(frame, *FEATURES)}).json()
    np.testing.assert_allclose(answer["predictions"], wanted_scores(home, frame, "numbers"), rtol=1e-9)


@pytest.mark.parametrize("model", ["colours", "numbers"])
def test_the_scores_distribution_is_counted_by_bins(client: LocalClient, model: str) -> None:
    def bins() -> dict[float, float]:
        found = re.findall(
            rf'^perennial_scores_total{{bin="(\S+)",model="{model}",version="1"}} (\S+)',
            client.get("/metrics").text,
            re.M,
        )
        return {float(lower): float(count) for lower, count in found}

    before, frame = bins(), rows_of(300, 7, "classification" if model == "colours" else "regression")
    answer = client.post(f"/models/{model}/invocations", json={"instances": records(frame, *FEATURES)}).json()
    after = bins()
    found = {lower: count - before.get(lower, 0) for lower, count in after.items()}
    assert len(found) > 5
    lowers = sorted(found)
    assert (lowers[0] == -math.inf) == (model == "numbers")
    if model == "colours":
        assert set(lowers) <= {number / 10 for number in range(10)}
        wanted = np.histogram(answer["predictions"], [*np.arange(10) / 10, 1.0])[0]
        assert [found.get(number / 10, 0) for number in range(10)] == wanted.tolist()
    else:
        assert found == {
            lower: sum(lower <= score < upper for score in answer["predictions"])
            for lower, upper in zip(lowers, [*lowers[1:], math.inf], strict=True)
        }


def test_a_recalibrated_version_logs_its_raw_scores_too(tmp_path: Path, mlflow_database: Path) -> None:
    workspace = make_workspace(tmp_path / "home", definition_of())
    shutil.copy(mlflow_database, tmp_path / "home" / "mlflow.db")
    frame, definition = rows_of(300), workspace.definition("colours")
    pipeline = fit(definition, frame, {"max_iter": 10, "min_samples_leaf": 10}, 0).pipeline
    register_pipeline(workspace, definition, pipeline, frame, "mapped", calibration=[1.5, -0.2])
    with client_of(workspace) as client:
        answer = client.post("/invocations", json={"instances": records(frame.head(20), *FEATURES)}).json()

    log = workspace.store.frame("colours", "predictions").set_index("id").loc[answer["ids"]]
    raw = predict_score(pipeline, feature_frame(frame.head(20), definition.features), definition.task)
    np.testing.assert_allclose(log["raw_score"], raw, atol=1e-9)
    np.testing.assert_allclose(log["score"], answer["predictions"], atol=0)
    np.testing.assert_allclose(answer["predictions"], wanted_scores(workspace, frame.head(20)), atol=1e-9)


def test_missing_and_unseen_values_are_answered_as_the_pipeline_would_and_counted(
    client: LocalClient, home: Workspace
) -> None:
    rows = [{"a": None, "b": None, "empty": 3.0, "colour": "mauve", "code": None}, dict.fromkeys(FEATURES)]
    answer = client.post("/models/colours/invocations", json={"instances": rows})
    frame = pd.DataFrame(rows).astype({"a": "float64", "b": "float64", "empty": "float64"})

    np.testing.assert_allclose(answer.json()["predictions"], wanted_scores(home, frame), atol=1e-9)
    metrics = client.get("/metrics").text
    assert 'perennial_unseen_categories_total{column="colour",model="colours"} 1.0' in metrics
    sample = 'perennial_missing_values_total{{column="{}",model="colours"}}'.format
    counted = {name: _counted(metrics, sample(name)) for name in FEATURES}
    again = client.post("/models/colours/invocations", json={"instances": rows})
    assert again.status_code == 200
    metrics = client.get("/metrics").text
    for name, more in {"a": 2, "b": 2, "empty": 1, "colour": 1, "code": 2}.items():
        assert _counted(metrics, sample(name)) - counted[name] == more, name


def _counted(metrics: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))


GOOD: dict[str, Any] = {"a": 1.0, "b": 2, "empty": None, "colour": "red", "code": 7}


@pytest.mark.parametrize(
    ("change", "column"),
    [({"a": "x"}, "a"), ({"a": 1e300}, "a"), ({"a": [1]}, "a"),
     ({"colour": {"x": 1}}, "colour"), ({"code": [2]}, "code"),
     ({"b": {}}, "b"), ({"a": "1_0"}, "a"), ({"a": 10**400}, "a")],
)  # fmt: skip
def test_a_bad_cell_is_named_with_row_value_rule_and_example(
    client: LocalClient, change: dict[str, Any], column: str
) -> None:
    answer = client.post("/models/colours/invocations", json={"instances": [GOOD, GOOD | change]})

    assert answer.status_code == 422
    body = answer.json()
    assert (body["column"], body["row"]) == (column, 1)
    assert body["value"]
    assert body["rule"]
    again = client.post("/models/colours/invocations", json={"instances": [body["example"]]})
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "not JSON"), (b"{", 400, "not JSON"), (b"[]", 400, "none of the forms"),
        (b"{}", 400, "none of the forms"),
        (b'{"instances": []}', 400, "no row"), (b'{"instances": 3}', 400, "none of the forms"),
        (b'{"instances": [3]}', 422, "row 0"), (b'{"instances": [[1, 2]]}', 422, "row 0"),
        (b'{"inputs": {"a": [1]}}', 422, "missing columns"),
        (b'{"inputs": {"a": [1, 2], "b": [1], "empty": [1], "colour": [1], "code": [1]}}', 422, "differ in length"),
        (b'{"instances": [{"a": 1, "b": 2, "empty": 3, "color": "red", "code": 1}]}', 422, "color"),
        (b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}', 422, "missing columns"),
        (b'{"dataframe_split": {"columns": 1, "data": []}}', 400, "none of the forms"),
        (b'{"instances": [{"a": "\\ud800", "b": 2, "empty": 3, "colour": "\\ud800", "code": 1}]}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"), (b"\xff\xfe", 400, "not JSON"),
        (b'{"instances": [{"a": 1, "b": 2, "empty": 3, "colour": "\xff\xfe", "code": 1}]}', 400, "not JSON"),
        (b'{"dataframe_split": {"columns": ["a", "b", "empty", "colour", "code", "a"], "data": [[1, 2, 3, 4, 5, 6]]}}',
         422, "column 'a' is given twice"),
        (b'{"instances": [{"a": 1, "b": 1, "empty": 1, "colour": 1, "code": 1, "at": "0001-01-01"}]}', 422, "1678"),
        (b'{"instances": [{"a": 1, "b": 1, "empty": 1, "colour": 1, "code": 1, "at": "9999-12-31T23:00-14:00"}]}',
         422, "2261"),
        (b'{"inputs": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], "ids": ["x", "y", "y"]}', 422, "'y' is giv"),
        (b'{"instances": [{"a": 1, "b": 1, "empty": 1, "colour": 1, "code": 1}], "ids": ["x", "y"]}', 422, "ids"),
        (b'{"instances": [{"a": 1, "b": 1, "empty": 1, "colour": 1, "code": 1}], "ids": [""]}', 422, "id"),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_with_what_is_wrong(
    client: LocalClient, content: bytes, status: int, words: str
) -> None:
    answer = client.post("/models/colours/invocations", content=content, headers={"content-type": "application/json"})

    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert answer.json()["message"] == answer.json()["error"]


def test_limits_routes_and_types(client: LocalClient) -> None:
    path = "/models/colours/invocations"
    assert client.post(path, json={"instances": [GOOD] * 501}).status_code == 413
    assert client.post(path, content=b" " * 200_001).status_code == 413
    assert client.post(path, content=_stream()).status_code == 413
    assert client.post(path, content=b"x", headers={"content-type": "text/xml"}).status_code == 415
    assert client.post(path, content=b"x", headers={"content-encoding": "br"}).status_code == 415
    assert client.get(path).status_code == 405
    assert client.get(path).headers["allow"] == "POST"
    assert client.post("/models/none/invocations", json={}).status_code == 404
    assert client.get("/models/none").status_code == 404
    assert client.get("/nothing").status_code == 404
    several = client.post("/invocations", json={"instances": [GOOD]})
    assert several.status_code == 400
    assert "/models/colours/invocations" in several.json()["error"]


def test_too_many_and_too_slow_are_told_when_to_come_back(home: Workspace) -> None:
    with client_of(home, deadline_seconds=0.05) as client:
        client.service.batcher.run = _slow
        large = {"instances": [GOOD | {"code": "x" * 1000}] * 200}
        slow = client.post("/models/colours/invocations", json=large)
        assert slow.status_code == 503
        assert slow.headers["retry-after"]
        client.app._in_work = 10**6
        busy = client.post("/models/colours/invocations", json={"instances": [GOOD]})
        assert busy.status_code == 429
        assert busy.headers["retry-after"]
        assert client.get("/v2/health/ready").status_code == 200


async def _stream() -> AsyncIterator[bytes]:
    for _ in range(2):
        yield b" " * 150_000


async def _slow(_function: Any) -> Any:
    import asyncio

    await asyncio.sleep(5)


def test_a_fault_of_ours_is_said_without_its_text(home: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(home) as client:
        client.service.score = None
        answer = client.post("/models/colours/invocations", json={"instances": [GOOD]})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in answer.json()["error"]
    assert "NoneType" not in answer.text


def test_tokens_open_what_their_scope_says(home: Workspace) -> None:
    made = {scope: new_token() for scope in ("predict", "label", "admin")}
    text = ",".join(f"{scope}:{digest}" for scope, (_, digest) in made.items())
    wanted = {
        "/models/colours/invocations": {"predict": 200, "label": 403, "admin": 200},
        "/models/colours/labels": {"predict": 403, "label": 200, "admin": 200},
    }
    bodies = {"invocations": {"instances": [GOOD]}, "labels": {"id": "x", "truth": 1}}
    with client_of(home, text) as client:
        for path, answers in wanted.items():
            body = bodies[path.rpartition("/")[2]]
            for scope, status in answers.items():
                found = client.post(path, json=body, headers={"authorization": f"Bearer {made[scope][0]}"})
                assert found.status_code == status, (path, scope)
            assert client.post(path, json=body).status_code == 401
            assert client.post(path, json=body, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/metrics", headers={"authorization": f"Bearer {made['predict'][0]}"}).status_code == 403
        assert client.get("/health").status_code == 200


def test_headers_and_request_ids(client: LocalClient) -> None:
    answer = client.get("/health", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/health", headers={"x-request-id": "bad id"}).headers["x-request-id"] != "bad id"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = client.post("/models/colours/invocations", json={"instances": [GOOD]}, headers={"traceparent": trace})
    assert traced.status_code == 200
    assert traced.headers["traceparent"] == trace


def test_a_request_is_a_span_in_its_clients_trace(client: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    client.post("/models/colours/invocations", json={"instances": [GOOD]}, headers=header)
    client.post("/models/colours/invocations", json={"instances": [GOOD]})

    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.kind is trace.SpanKind.SERVER


def test_refusals_are_logged_as_json_with_their_request_id(
    client: LocalClient, caplog: pytest.LogCaptureFixture
) -> None:
    from perennial.serving.processes.logs import JsonLines

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with caplog.at_level("INFO", logger="perennial.serving"):
        client.post("/models/colours/invocations", json={}, headers={"x-request-id": "mine-7", "traceparent": trace})
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert (line["message"], line["request_id"], line["status"]) == ("request", "mine-7", 400)
    assert (line["traceparent"], line["level"]) == (trace, "info")
    assert line["path"] == "/models/colours/invocations"
    assert line["milliseconds"] > 0


def test_what_is_live_is_told(client: LocalClient, home: Workspace) -> None:
    found = client.get("/models/colours").json()

    assert found["version"] == 1
    assert found["reason"] == "it was better"
    assert found["gate_verdict"] == "promote"
    assert found["since"]
    assert {"last_check", "labels", "traffic", "swaps", "refused"} <= found.keys()
    assert {"predictions", "labelled", "coverage", "waiting"} <= found["labels"].keys()
    assert {"requests_by_status", "latency_p50_ms_at_most", "latency_p99_ms_at_most"} <= found["traffic"].keys()
    assert found["fast_path"]["kind"] == "tables"
    assert found["fast_path"]["largest_difference"] <= 1e-9
    most = found["fast_path"]["rows_up_to"]  # measured: null is any number
    wanted = "for any number of rows" if most is None else f"up to {most} rows"
    assert _fast_path(home, "colours", 1) == f"tables {wanted}"
    assert _fast_path(home, "colours", 2) is None
    assert found["golden_difference"] <= 1e-6
    assert [item["name"] for item in found["inputs"]] == list(FEATURES)
    assert client.get("/models").json()["models"][0]["name"] == "colours"
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ping").status_code == 200


def test_labels_are_kept_checked_and_unknown_ids_named(client: LocalClient, home: Workspace) -> None:
    ids = client.post("/models/colours/invocations", json={"instances": [GOOD, GOOD]}).json()["ids"]
    answer = client.post(
        "/models/colours/labels", json={"labels": [{"id": ids[0], "truth": 1}, {"id": "ghost", "truth": 0}]}
    )

    assert answer.json()["accepted"] == 2
    assert answer.json()["unknown"] == ["ghost"]
    client.post("/models/colours/labels", json={"id": ids[0], "truth": 1, "author": "Ada"})
    client.post("/models/colours/labels", json={"id": ids[1], "truth": True})
    client.post("/models/colours/labels", json=[{"id": ids[1], "truth": 0.0, "author": "Ada"}])
    client.service.labels.ship()
    assert client.service.labels.waiting("colours") == 1
    client.post("/models/colours/invocations", json={"instances": [GOOD], "ids": ["ghost"]})
    client.service.labels._look_at = 0.0
    client.service.labels.ship()
    assert client.service.labels.waiting("colours") == 0
    frame = home.store.frame("colours", "labels")
    frame = frame[frame["id"].isin([*ids, "ghost"])]
    known = frame.sort_values("labelled_at").groupby("id")["truth"].last().to_dict()
    assert known == {ids[0]: 1.0, "ghost": 0.0, ids[1]: 0.0}
    assert (frame["id"] == ids[0]).sum() == 2  # Ada confirms what the API was told


@pytest.mark.parametrize(
    "body",
    [{}, {"labels": []}, {"labels": 1}, [1], {"id": "x"}, {"id": "x", "truth": 2}, {"id": "x", "truth": "late"},
     {"id": "", "truth": 1}, {"id": None, "truth": 1}, {"id": "x", "truth": None}, {"id": "x", "truth": 1, "author": 3},
     {"id": "x" * 300, "truth": 1}, {"id": "x", "truth": 1, "labelled_at": "2034-01-01"}, {"id": "x", "truth": [1]},
     {"id": "x", "truth": 1, "takeback": True}, {"id": "x", "truth": None, "take_back": "yes"}],
)  # fmt: skip
def test_bad_labels_are_refused(client: LocalClient, body: Any) -> None:
    answer = client.post("/models/colours/labels", json=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["rule"]


def test_truth_is_taken_in_the_targets_own_words_and_as_the_api_answers_it(client: LocalClient) -> None:
    champion = client.service.served("colours").champion
    object.__setattr__(champion, "manifest", {**champion.manifest, "classes": '["on time", "late"]'})
    asked = {"instances": [GOOD] * 6, "params": {"output": "word"}}
    answered = client.post("/models/colours/invocations", json=asked).json()
    assert set(answered["predictions"]) <= {"on time", "late"}
    given = ["late", "on time", 1, 0, True, False]
    labels = [{"id": name, "truth": truth} for name, truth in zip(answered["ids"], given, strict=True)]
    assert client.post("/models/colours/labels", json=labels).status_code == 200
    client.service.labels.ship()
    client.service.labels._look_at = 0.0
    frame = client.service.workspace.store.frame("colours", "labels")
    truth = frame[frame["id"].isin(answered["ids"])].set_index("id")["truth"]
    assert truth.reindex(answered["ids"]).tolist() == [1, 0, 1, 0, 1, 0]
    for wrong in ("banana", "Late", 2, "on-time"):
        refused = client.post("/models/colours/labels", json={"id": answered["ids"][0], "truth": wrong})
        assert refused.status_code == 422
        assert refused.json()["rule"] == "'on time' or 'late'"
    taken = client.post("/models/colours/labels", json={"id": answered["ids"][0], "take_back": True})
    assert taken.status_code == 200
    dated = {"id": answered["ids"][0], "truth": 1, "labelled_at": "2024-01-01"}
    problem = client.post("/models/colours/labels", json=dated).json()["error"]
    assert "labelled_at" in problem
    assert "`perennial label`" in problem
    both = client.post("/models/colours/labels", json={"id": "x", "truth": 1, "take_back": True})
    assert both.status_code == 422


def test_the_openapi_documents_examples_work_as_they_are(client: LocalClient) -> None:
    document = client.get("/openapi.json").json()

    tried = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "get":
                assert client.get(path).status_code == 200, path
                continue
            for kind, media in operation["requestBody"]["content"].items():
                if kind == "application/octet-stream":
                    continue  # bytes have no example
                examples = [item["value"] for item in media.get("examples", {}).values()] or [media["example"]]
                for example in examples:
                    jsonschema.validate(example, media["schema"] | {"components": document["components"]})
                    content = example if isinstance(example, str) else json.dumps(example)
                    answer = client.post(path, content=content, headers={"content-type": kind})
                    assert answer.status_code == 200, (path, answer.text)
                    tried += 1
    assert tried == 2 * (5 + 1 + 2)
    assert "/v2/models/colours/versions/1/infer" in document["paths"]
    page = client.get("/docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert client.get(name).status_code == 200, name
    assert "openapi.json" in client.get("/docs/start.js").text
    assert client.get("/docs/../app.py").status_code == 404


def test_an_example_in_csv_may_hold_commas(client: LocalClient) -> None:
    champion = client.service.host.served["colours"].champion
    schema = replace(champion.schema, example={**champion.schema.example, "colour": 'red, "or" green'})
    document = openapi({"colours": replace(champion, schema=schema)}, secured=True)
    text = document["paths"]["/models/colours/invocations"]["post"]["requestBody"]["content"]["text/csv"]["example"]
    answer = client.post("/models/colours/invocations", content=text, headers={"content-type": "text/csv"})
    assert answer.status_code == 200, answer.text
    assert document["paths"]["/invocations"]["post"]["operationId"] == "invocations"
    assert document["security"]


def test_images_come_as_bytes_never_as_paths(tmp_path: Path, mlflow_database: Path) -> None:
    workspace = make_workspace(tmp_path / "home", definition_of("pictures", wide=True))
    shutil.copy(mlflow_database, tmp_path / "home" / "mlflow.db")
    register(workspace, "pictures", "one")
    frame = rows_of(8, 5, wide=True)
    rows = records(frame, *FEATURES, "note")
    for row, content in zip(rows, frame["picture"], strict=True):
        row["picture"] = base64.b64encode(content).decode()
    secret = tmp_path / "secret.png"
    secret.write_bytes(frame["picture"].iloc[0])
    with client_of(workspace) as client:
        good = client.post("/invocations", json={"instances": rows})
        path = client.post("/invocations", json={"instances": [rows[0] | {"picture": str(secret)}]})
        broken = client.post("/invocations", json={"instances": [rows[0] | {"picture": "aGVsbG8="}]})
        missing = client.post("/invocations", json={"instances": [rows[0] | {"picture": None}]})
        assert client.get("/models/pictures").json()["fast_path"]["kind"] == "tables"

    np.testing.assert_allclose(good.json()["predictions"], wanted_scores(workspace, frame, "pictures"), atol=1e-9)
    assert (path.status_code, broken.status_code, missing.status_code) == (422, 422, 200)
    assert not math.isnan(missing.json()["predictions"][0])
    logged = json.loads(workspace.store.frame("pictures", "predictions")["inputs"].iloc[0])
    assert "picture" not in logged
    assert "note" in logged


def test_a_row_scores_the_same_over_the_api_from_a_file_and_by_scikit_learn(
    client: LocalClient, home: Workspace, tmp_path: Path
) -> None:
    frame, definition = rows_of(200, 21), home.definition("colours")
    source, target = tmp_path / "rows.parquet", tmp_path / "scored.parquet"
    frame.drop(columns="y").to_parquet(source)
    pipeline = load_version(home.registry, home.registry.version("colours", 1), definition)
    assert sum(len(rows) for rows, _, _ in score_file(pipeline, definition, source, target, version=1)) == 200
    batch = pd.read_parquet(target).set_index("row").loc[frame["row"], "score"].to_numpy()
    answer = client.post("/models/colours/invocations", json={"instances": records(frame, "row", *FEATURES)}).json()

    np.testing.assert_allclose(answer["predictions"], batch, atol=1e-9)
    np.testing.assert_allclose(batch, wanted_scores(home, frame), atol=0)
