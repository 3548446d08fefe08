"""The life of a model with three classes: flows on a real server, and what its API answers, logs and learns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import small_model
from many_model import LOOPS, MANY, day, many_rows
from serving_world import LocalClient, records
from small_model import write_source

from perennial.definition.serving import Cost
from perennial.errors import ConflictError, DefinitionError
from perennial.model.calibrated import Recalibrated
from perennial.model.features import feature_frame
from perennial.model.scores import likeliest, score_array
from perennial.serving.service import Service
from perennial.serving.settings import ServingSettings, Tokens
from perennial.serving.web.app import Api
from perennial.workspace import Workspace
from tasks.learning.fitting import predict_score
from tasks.rows.classes import known_coding, settle
from tasks.steps.retrain import prepare
from tasks.steps.score import load_version
from tasks.steps.shown.compared import compare_versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def life(
    prefect_url: str, make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workspace, dict[str, Any]]]:
    """A model that was trained, scored, checked, recalibrated, trained again and checked again; and what was told."""
    workspace = make_workspace(tmp_path_factory.mktemp("many"))
    settings, told = workspace.settings, {}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
            patch.delenv(name)
        patch.setattr(small_model, "RAW", MANY)
        patch.setenv("PERENNIAL_HOME", str(settings.home))
        patch.setenv("PERENNIAL_MODELS", settings.models)
        patch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
        small_model.define(workspace)
        from flows.ingest import ingest
        from flows.monitor import monitor
        from flows.recalibrate import recalibrate
        from flows.retrain import retrain
        from flows.score import score

        stranger = many_rows(12, 13).head(3).assign(loops="three", row=["x0", "x1", "x2"])
        write_source(workspace, pd.concat([many_rows(0, 20), stranger]))
        told["ingest"] = ingest("loops", as_of=day(10))
        told["retrain"] = retrain("loops", as_of=day(10))
        for at in (12, 14, 16, 18):
            told["ingest", at], told["score", at] = ingest("loops", as_of=day(at)), score("loops", as_of=day(at))
            told["check", at] = monitor("loops", as_of=day(at), trigger=False, report=at == 14)
            if at == 14:
                told["recalibrate"] = recalibrate("loops", as_of=day(at))
            if at == 16:
                told["retrain again"] = retrain("loops", as_of=day(at))
        yield workspace, told


def version_tags(workspace: Workspace, number: int) -> Any:
    return workspace.registry.version("loops", number)


def test_three_classes_get_a_champion_and_are_scored(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, told = life
    assert told["retrain"]["gate"] == "promote"
    version = version_tags(workspace, 1)
    assert json.loads(version.tag("classes")) == list(LOOPS)
    run = workspace.registry.client.get_run(version.run_id)
    assert {"roc_auc", "f1", "brier", "class/two/recall", "class/none/roc_auc"} <= set(run.data.metrics)
    images = {item.path for item in workspace.registry.client.list_artifacts(version.run_id, "images")}
    assert any("confusion" in path for path in images)
    log = workspace.store.frame("loops", "predictions")
    scores = score_array(log["score"])
    assert scores.shape == (len(log), 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    truth = workspace.store.frame("loops", "labels").drop_duplicates("id", keep="last").set_index("id")["truth"]
    known = log["id"].map(truth)
    right = (likeliest(scores) == known)[known.notna()]
    assert right.mean() > 0.75  # the most frequent class alone is half of them


def test_a_class_that_nobody_knows_is_held_back_and_told(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, told = life
    assert not told["ingest"]["told"]
    sentences = [sentence for at in (12, 14, 16, 18) for sentence in told["ingest", at]["told"]]
    assert any("'three' is none of the 3 classes" in sentence for sentence in sentences)
    held = workspace.store.frame("loops", "quarantine")
    assert set(held["id"]) == {"x0", "x1", "x2"}
    assert "'three' is none of the 3 classes" in held["reasons"].iloc[0]
    assert not workspace.store.frame("loops", "labels")["id"].isin(["x0"]).any()


def test_classes_of_a_promoted_version_are_fixed(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = life
    champion = workspace.registry.champion("loops")
    assert champion is not None
    definition = workspace.definition("loops")
    try:
        for classes in (["none", "one", "two", "three"], ["one", "none", "two"], ["none", "two"]):
            changed = small_model.define(workspace, classes=classes)
            with pytest.raises(ConflictError, match="definition's classes are") as caught:
                load_version(workspace.registry, champion, changed)
            assert 'classes: ["none", "one", "two"]' in str(caught.value.remedy)
            with pytest.raises(ConflictError, match="definition's classes are"):
                settle(workspace.store, changed, known_coding(workspace.store, changed), at=day(19), batch_id="")
    finally:
        small_model.define(workspace)
    assert known_coding(workspace.store, definition).stored


def test_checks_judge_drift_labels_and_estimates_by_class(life: tuple[Workspace, dict[str, Any]]) -> None:
    _, told = life
    decision = told["check", 14]
    signals = {signal["name"]: signal for signal in decision["signals"]}
    assert signals["loss"]["value"] == pytest.approx(decision["evidence"]["loss"]["mean"])
    assert 0 < signals["estimated loss"]["value"] < np.log(3)
    assert {"drift of (prediction of none)", "drift of (prediction of two)"} <= set(signals)
    assert "of 3 classes are beyond theirs" in signals["truth"]["detail"]
    assert signals["recalibration"]["value"] is not None
    text = Path(decision["report"]).with_suffix(".json").read_text(encoding="utf-8")
    assert "prediction of two" in text


def test_a_map_of_three_classes_is_judged_and_registered(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, told = life
    version = version_tags(workspace, told["recalibrate"]["version"])
    found = json.loads(version.tag("recalibration"))
    assert found["method"] == "shifted"
    assert len(found["parameters"]) == 4
    assert json.loads(version.tag("classes")) == list(LOOPS)
    model = load_version(workspace.registry, version, workspace.definition("loops"))
    assert isinstance(model, Recalibrated)
    if told["recalibrate"]["promoted"]:
        log = workspace.store.frame("loops", "predictions")
        mapped = log[log["version"] == version.number]
        assert np.abs(score_array(mapped["score"]) - score_array(mapped["raw_score"])).max() > 1e-4


def test_a_challenger_is_judged_by_class_and_goes_on_probation(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, told = life
    made = told["retrain again"]
    assert made["gate"] in ("promote", "wait")
    report = json.loads(
        workspace.registry.run_artifact(version_tags(workspace, made["version"]), "gate.json").read_text()
    )
    names = {check["name"] for check in report["checks"]}
    assert {"slice:loops=none", "slice:loops=one", "calibration", "better_than_champion"} <= names
    looked = told["check", 18]["probation"]
    if made["promoted"]:
        assert looked["rows"] >= 50
        assert looked["interval"]


def test_a_backtest_replays_three_classes(life: tuple[Workspace, dict[str, Any]]) -> None:
    from flows.backtest import backtest

    found = backtest("loops", start=day(10), every="12d", jobs=1)
    losses = {name: result["loss"] for name, result in found["policies"].items()}
    assert 0 < losses["always"] < losses["never"] < np.log(3)
    assert set(losses) >= {"own", "always", "never"}


def test_the_api_answers_a_row_of_three_and_takes_words(life: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    workspace, _ = life
    definition = workspace.definition("loops")
    frame = many_rows(20, 21)
    columns = definition.features.columns
    champion = workspace.registry.champion("loops")
    assert champion is not None
    pipeline = load_version(workspace.registry, champion, definition)
    wanted = predict_score(pipeline, feature_frame(frame, definition.features), "classification")
    words = [LOOPS[code] for code in wanted.argmax(axis=1)]
    body = {"dataframe_records": records(frame, "row", *columns)}
    with LocalClient(Api(Service(workspace, ServingSettings(ship_seconds=0.1)), Tokens(""))) as client:
        about = client.get("/models/loops").json()
        answer = client.post("/models/loops/invocations", json=body).json()
        both = client.post("/models/loops/invocations?output=both", json=body).json()
        label = client.post("/models/loops/invocations?output=label", json=body).json()
        one = client.post("/models/loops/invocations", json={"dataframe_records": body["dataframe_records"][:1]}).json()
        tensors = [
            {"name": name, "shape": [len(frame)], "datatype": "FP64" if name != "shade" else "BYTES",
             "data": frame[name].tolist()}
            for name in columns
        ]  # fmt: skip
        outputs = [{"name": name} for name in ("probability", "label")]
        v2 = client.post("/v2/models/loops/infer", json={"inputs": tensors, "outputs": outputs}).json()
        metadata = client.get("/v2/models/loops").json()
        refused = client.post("/models/loops/labels", json={"labels": [{"id": "r1440", "truth": "three"}]})
        taken = client.post("/models/loops/labels", json={"labels": [{"id": "r1440", "truth": "two"}]}).json()
        document = client.get("/openapi.json").json()
    assert about["version"] == champion.number
    assert answer["classes"] == list(LOOPS)
    np.testing.assert_allclose(answer["predictions"], wanted, atol=1e-9)
    np.testing.assert_allclose(one["predictions"], wanted[:1], atol=1e-9)
    assert label["predictions"] == words
    assert [item["label"] for item in both["predictions"]] == words
    np.testing.assert_allclose([item["probability"] for item in both["predictions"]], wanted, atol=1e-9)
    probability, labels = v2["outputs"]
    assert (probability["shape"], probability["datatype"]) == ([len(frame), 3], "FP64")
    np.testing.assert_allclose(np.reshape(probability["data"], (-1, 3)), wanted, atol=1e-9)
    assert (labels["datatype"], labels["data"]) == ("BYTES", words)
    assert json.loads(metadata["parameters"]["classes"]) == list(LOOPS)
    assert {"name": "probability", "datatype": "FP64", "shape": [-1, 3]} in metadata["outputs"]
    assert refused.status_code == 422
    assert "'none', 'one' or 'two'" in refused.text
    assert taken["accepted"] == 1
    asked, told = (_schemas(document, f"/models/loops/{what}") for what in ("labels", "invocations"))
    for each in (answer, both, label, one):
        jsonschema.validate(each, told[1])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer | {"predictions": [0.5] * len(frame)}, told[1])
    jsonschema.validate({"id": "r1440", "truth": "two"}, asked[0])
    for wrong in ("three", 2, True, "true"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"id": "r1440", "truth": wrong}, asked[0])
    logged = workspace.store.frame("loops", "predictions")
    logged = logged[logged["origin"] == "api"]
    by_id = logged.drop_duplicates("id").set_index("id").loc[frame["row"]]
    np.testing.assert_allclose(score_array(by_id["score"]), wanted, atol=1e-9)
    said = workspace.store.frame("loops", "labels").set_index("id").loc["r1440"]
    assert (said["truth"], said["author"]) == (2.0, "api")


def _schemas(document: Any, path: str) -> tuple[Any, Any]:
    """Of what is posted, and of the good answer."""
    post = document["paths"][path]["post"]
    bodies = (post["requestBody"], post["responses"]["200"])
    whole = {"components": document["components"]}
    asked, told = (body["content"]["application/json"]["schema"] | whole for body in bodies)
    return asked, told


def test_a_file_gets_a_label_and_a_column_for_each_class(
    life: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    from flows.score import score

    workspace, _ = life
    source, target = tmp_path / "in.parquet", tmp_path / "out.csv"
    many_rows(21, 22).drop(columns=["loops", "digit"]).to_parquet(source)
    score("loops", input=str(source), output=str(target))
    found = pd.read_csv(target)
    assert list(found) == ["row", "label", "score_none", "score_one", "score_two", "version"]
    scores = found[[f"score_{name}" for name in LOOPS]].to_numpy()
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert found["label"].tolist() == [LOOPS[code] for code in scores.argmax(axis=1)]
    assert workspace.store.frame("loops", "predictions")["id"].isin(found["row"]).sum() >= len(found)


def test_what_people_look_at_is_of_every_class(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = life
    definition = workspace.definition("loops")
    newest = max(version.number for version in workspace.registry.versions("loops"))
    found = compare_versions(workspace, definition, 1, newest, as_of=day(18))
    assert {"brier", "roc_auc", "f1"} <= set(found.left.metrics)
    assert found.left.calibration == []
    assert all(0 <= item.left <= 1 and 0 <= item.right <= 1 for item in found.disagreements)
    json.dumps(found.to_dict(), allow_nan=False)
    figures = workspace.store.frame("loops", "figures")
    assert {"live", "first"} <= set(figures["kind"])
    assert figures["value"].between(0, 2).all()


def test_what_mistakes_cost_is_a_question_of_two_classes(life: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = life
    definition = workspace.definition("loops")
    cost = Cost(false_positive=1, false_negative=8)
    asked = definition.model_copy(update={"serving": definition.serving.model_copy(update={"cost": cost})})
    with pytest.raises(DefinitionError, match=r"serving\.cost belongs to two classes, and loops has 3"):
        prepare(workspace, asked, as_of=day(18))
