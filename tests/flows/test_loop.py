"""The real flows on a real server: rows in, a champion, scores, truth, a check; and what they refuse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import doubtful_model
import pandas as pd
import pytest
from doubtful_model import CHALLENGER_AT, CHAMPION_AT, LATER_AT
from small_model import add, day, define, rows, write_source

from perennial.errors import ConflictError, DataError, NotFoundError, ValidationRefused
from perennial.state.approval import ask
from perennial.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flow_workspace(
    prefect_url: str, make_workspace: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A workspace that flows in this process find by their environment."""
    workspace = make_workspace(tmp_path_factory.mktemp("loop"))
    settings = workspace.settings
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
            patch.delenv(name)
        patch.setenv("PERENNIAL_HOME", str(settings.home))
        patch.setenv("PERENNIAL_MODELS", settings.models)
        patch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
        yield workspace


def artifacts(*keys: str) -> dict[str, Any]:
    """The newest artifact of each key on the server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=list(keys))))
    return {str(item.key): item for item in found}


def last_run(flow: str) -> Any:
    """The newest run of a flow."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), sort=FlowRunSort.START_TIME_DESC, limit=1
        )
    return run


def test_the_loop(flow_workspace: Workspace) -> None:
    from flows.ingest import ingest
    from flows.monitor import monitor
    from flows.retrain import retrain
    from flows.score import score

    workspace = flow_workspace
    define(workspace)
    write_source(workspace, rows(0, 20))
    got = ingest("digits", as_of=day(10))
    assert (got["rows"], got["kept"], got["quarantined"]) == (720, 720, 0)
    made = retrain("digits", as_of=day(10))
    assert (made["version"], made["gate"], made["promoted"]) == (1, "promote", True)
    run = last_run("retrain")
    assert run.state_name == "Completed"
    reign = workspace.registry.reign("digits")
    assert reign
    assert reign.by == str(run.id)
    for at in (11, 12, 13):
        ingest("digits", as_of=day(at))
        assert score("digits", as_of=day(at))["rows"] >= 72
    assert score("digits", as_of=day(13)) == {"rows": 0, "version": 1, "warnings": []}
    decision = monitor("digits", as_of=day(13), trigger=False)
    assert decision["verdict"] in ("hold", "recalibrate", "retrain")
    assert decision["champion_version"] == "1"
    report = Path(decision["report"])
    assert report.stat().st_size > 100_000
    assert report.with_suffix(".json").is_file()
    again = monitor("digits", as_of=day(13), trigger=False)
    assert {**again, "report": None} == {**decision, "report": None}
    assert len(workspace.ledger("digits").entries()) == 1
    keys = ("validation-digits", "tuning-digits", "tuning-trials-digits", "gate-digits", "check-digits")
    found = artifacts(*keys)
    assert set(found) == set(keys)
    assert "data:image/png;base64," in found["tuning-digits"].data
    assert decision["verdict"] in found["check-digits"].data


def test_a_refused_batch_fails_the_run(flow_workspace: Workspace, tmp_path: Path) -> None:
    from flows.ingest import ingest

    define(flow_workspace, name="refused")
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    rows(0, 1).to_parquet(good)
    rows(1, 2).assign(ink_11=99.0).to_parquet(bad)
    with pytest.raises(
        ValidationRefused, match=r"bad\.parquet was refused: .*ink_11.*Its rows are in quarantine: mend"
    ):
        ingest("refused", files=[str(good), str(bad)], as_of=day(2))
    run = last_run("ingest")
    assert run.state_name == "Failed"
    assert "ValidationRefused" in run.state.message
    store = flow_workspace.store
    assert len(store.read("refused", "batches")) == 72
    assert len(store.read("refused", "quarantine")) == 72


def test_a_model_without_champion(flow_workspace: Workspace) -> None:
    from flows.monitor import monitor

    define(flow_workspace, name="unborn")
    with pytest.raises(NotFoundError, match=r"unborn has no champion"):
        monitor("unborn", as_of=day(1))


def test_a_claimed_decision_ends_the_second_run(flow_workspace: Workspace) -> None:
    """The first run's holder is alive: a run of this server that is not in a final state."""
    from prefect import flow
    from prefect.runtime import flow_run

    from flows.retrain import retrain

    define(flow_workspace, name="claimed")
    ledger = flow_workspace.ledger("claimed")
    decision = {"decision_id": "d1", "as_of": day(10).isoformat(), "verdict": "retrain"}
    ledger.record(decision, recorded_at=day(10))

    @flow
    def holder() -> str:
        ledger.claim("d1", str(flow_run.get_id()), as_of=day(10), recorded_at=day(10), is_alive=lambda _: True)
        with pytest.raises(ConflictError, match=rf"decision d1 is claimed by {flow_run.get_id()}. Nothing is to do"):
            retrain("claimed", as_of=day(10), decision_id="d1")
        return str(flow_run.get_id())

    first = holder()
    assert ledger.entries()[0]["claims"] == [first]
    # It has ended without an outcome: the next run takes the decision over, and fails on its own account.
    with pytest.raises(Exception, match="has no ingested rows with labels yet"):
        retrain("claimed", as_of=day(10), decision_id="d1")
    assert len(ledger.entries()[0]["claims"]) == 2


def test_one_retraining_of_a_model_at_a_time(flow_workspace: Workspace) -> None:
    import threading

    from flows.retrain import retrain

    define(flow_workspace, name="busy")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with flow_workspace.retraining("busy", wait_seconds=1):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with pytest.raises(ConflictError, match=r"busy is being retrained by process \d+ on .*\. Wait for it to end"):
        retrain("busy", as_of=day(10), wait_seconds=0.2)
    done.set()
    thread.join()


def test_score_a_file(flow_workspace: Workspace, tmp_path: Path) -> None:
    from flows.score import score

    rows(14, 15).drop(columns="even").to_parquet(tmp_path / "in.parquet")
    made = score("digits", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "out.csv"), as_of=day(15))
    assert made == {"rows": 72, "version": 1, "output": str(tmp_path / "out.csv"), "warnings": []}
    scored = pd.read_csv(tmp_path / "out.csv")
    assert scored["row"].tolist() == rows(14, 15)["row"].tolist()
    logged = flow_workspace.store.frame("digits", "predictions")
    assert set(scored["row"]) <= set(logged["id"])


def test_a_person_answers_from_prefects_pages(flow_workspace: Workspace) -> None:
    """What the pages' form does: a run of the deployment with parameters, which then runs."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.flow_engine import run_flow

    from deployments.register import register, registered
    from flows.approve import approve
    from flows.retrain import retrain

    registry = flow_workspace.registry
    definition = define(flow_workspace, name="asked", gate={"approval": "human"})
    add(flow_workspace, definition, rows(0, 10), as_of=day(10), history=True)
    made = retrain("asked", as_of=day(10))
    assert (made["gate"], made["promoted"], made["waits_for_approval"]) == ("promote", False, True)
    told = artifacts("approval-asked")["approval-asked"].data
    assert "approve/asked" in told
    assert "perennial approve asked --reason WHY" in told
    register({"asked": definition})
    try:
        with get_client(sync_client=True) as client:
            deployment = registered(client)["approve/asked"]
            properties = deployment.parameter_openapi_schema["properties"]
            assert properties["answer"]["enum"] == ["approve", "refuse"]
            given = {"model": "asked", "by": "ada"}
            with pytest.raises(PrefectHTTPStatusError, match="reason"):
                client.create_flow_run_from_deployment(deployment.id, parameters=given)
            run = client.create_flow_run_from_deployment(deployment.id, parameters=given | {"reason": "looks right"})
            # What a runner's process does with it.
            run_flow(approve, flow_run=client.read_flow_run(run.id), parameters=run.parameters)
            assert client.read_flow_run(run.id).state_name == "Completed"
    finally:
        register({})
    reign = registry.reign("asked")
    assert reign is not None
    assert (reign.version, reign.action, reign.by, reign.reason) == (1, "approve", "ada", "looks right")

    run_id = registry.run_for("asked", "two", name="two", tags={})
    registry.client.log_text(run_id, "two", "model/weights.txt")
    tags = {"beaten_version": "1"}
    second = registry.register("asked", training_key="two", run_id=run_id, source=f"runs:/{run_id}/model", tags=tags)
    ask(registry, second)
    with pytest.raises(DataError, match="reason is empty"):
        approve("asked", by="ada", reason=" ", answer="refuse")
    assert approve("asked", by="ada", reason="a strike week", answer="refuse")["version"] == 2
    refused = registry.version("asked", 2)
    assert (refused.tag("approval"), refused.tag("approval.reason")) == ("refused", "a strike week")
    assert registry.history("asked") == [reign]


def test_a_monitor_settles_what_the_gate_left_in_doubt(flow_workspace: Workspace) -> None:
    from flows.monitor import monitor
    from flows.retrain import retrain

    workspace = flow_workspace
    definition = doubtful_model.define(workspace, name="doubtful")
    doubtful_model.fill(workspace, definition)
    assert retrain("doubtful", as_of=CHAMPION_AT)["promoted"]
    made = retrain("doubtful", as_of=CHALLENGER_AT, force=True)
    assert (made["gate"], made["promoted"], made["waits_for_evidence"]) == ("wait", False, True)
    assert monitor("doubtful", as_of=day(19.1), report=False, trigger=False)["waiting"]["verdict"] == "wait"
    settled = monitor("doubtful", as_of=LATER_AT, report=False, trigger=False)
    assert settled["waiting"]["verdict"] == "promote"
    reign = workspace.registry.reign("doubtful")
    assert reign
    assert (reign.version, reign.by) == (2, "evidence")
    assert "is let in" in artifacts("doubt-doubtful")["doubt-doubtful"].data
