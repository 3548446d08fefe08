"""What a server goes through: swaps, refusals, torn manifests, full disks, starts. Kills and load: test_soak.

What the watcher and its workers do is tested on the processes; what one worker does, in a thread.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_world import (
    ROOT,
    answering,
    counted,
    promote_version,
    records,
    register_pipeline,
    rows_of,
    serving,
    wait_for,
    worker_pids,
)  # fmt: skip

from perennial.errors import DefinitionError, ServiceError, StorageError
from perennial.serving.processes.server import _require_home
from perennial.serving.settings import load_serving_settings
from perennial.workspace import Workspace
from tasks.learning.fitting import fit

pytestmark = pytest.mark.process
FEATURES = ("a", "b", "empty", "colour", "code")
PATH = "/models/colours/invocations"
GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}


def live_version(client: httpx.Client) -> int:
    return int(client.get("/health").json()["models"]["colours"])


def test_the_api_imports_no_flow_no_task_and_none_of_their_libraries() -> None:
    code = (
        "import sys, perennial.serving.processes.worker, perennial.serving.web.app, perennial.serving.service; "
        "print([name for name in ('prefect', 'mlflow', 'great_expectations', 'evidently', 'optuna', 'matplotlib', "
        "'duckdb', 'tasks', 'flows', 'deployments') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_swaps_refusals_and_a_registry_that_is_away(workspace: Workspace, tmp_path: Path) -> None:
    frame = rows_of(200, 9)
    definition = workspace.definition("colours")
    other = fit(definition, frame, {"max_iter": 5, "min_samples_leaf": 10}, 5).pipeline
    with answering(workspace) as client:
        assert live_version(client) == 1
        answers, stop = _ask_in_the_background(client)
        for number in (2, 3, 1, 2):
            promote_version(workspace, "colours", number)
            moved = time.monotonic()
            wait_for(lambda number=number: live_version(client) == number)  # type: ignore[misc]
            assert time.monotonic() - moved < 5
        wrong = register_pipeline(workspace, definition, other, frame, "wrong", golden_offset=0.01)
        wait_for(lambda: counted(client, 'perennial_swaps_total{model="colours",result="refused"}') or _refused(client))
        assert "golden" in _refused(client)["reason"]
        assert _refused(client)["version"] == wrong
        assert client.get("/health").json()["status"] == "degraded"
        assert live_version(client) == 2
        promote_version(workspace, "colours", 3)
        wait_for(lambda: live_version(client) == 3)
        assert client.get("/health").json()["status"] == "ok"
        stop.set()
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} >= {1, 2, 3}
    manifest = workspace.home / "live" / "colours.json"
    text = manifest.read_text()
    # The registry and its storage are gone, and the manifest names a version that nobody can fetch.
    (workspace.home / "mlflow.db").unlink()
    manifest.write_text(json.dumps(json.loads(text) | {"version": 77, "digest": "0" * 64, "model_uri": "/nowhere"}))
    with answering(workspace) as client:
        assert live_version(client) == 3
        assert client.post(PATH, json={"instances": [GOOD]}).json()["version"] == 3
        wait_for(lambda: client.get("/health").json()["registry"] == "down")
        assert counted(client, "perennial_registry_up") == 0
        assert "version 77" in " ".join(client.get("/health").json()["problems"])


def test_a_torn_manifest_is_told_and_the_last_good_version_goes_on(workspace: Workspace) -> None:
    manifest = workspace.home / "live" / "colours.json"
    whole = manifest.read_text()

    def degraded(client: Any, *words: str) -> bool:
        told = client.get("/health").json()
        return told["status"] == "degraded" and all(word in " ".join(told["problems"]) for word in words)

    with answering(workspace) as client:
        for torn in ("", whole[: len(whole) // 2], "[]"):
            manifest.write_text(torn)
            wait_for(lambda: degraded(client, str(manifest), "version 1 goes on", "perennial check colours"))
            assert client.post(PATH, json={"instances": [GOOD]}).json()["version"] == 1
            manifest.write_text(whole)
            wait_for(lambda: client.get("/health").json()["problems"] == [])
        promote_version(workspace, "colours", 2)
        wait_for(lambda: live_version(client) == 2)
    manifest.write_bytes(b"\xff\x00")
    (workspace.home / "live" / "numbers.json").write_text("")
    (workspace.home / "serving" / "good" / "numbers.json").write_text("")
    with answering(workspace) as client:
        assert live_version(client) == 2
        assert degraded(client, str(manifest), "version 2 goes on", "numbers.json", "nothing answers for it")
        answer = client.post("/models/numbers/invocations", json={"instances": [GOOD]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "numbers.json" in answer.json()["error"]
        assert client.get("/v2/models/numbers/ready").status_code == 503
        workspace.registry.settle("colours")
        workspace.registry.settle("numbers")  # as `perennial check` begins
        wait_for(lambda: client.get("/health").json()["status"] == "ok")
        assert client.post("/models/numbers/invocations", json={"instances": [GOOD]}).status_code == 200


def test_a_candidate_that_is_missing_is_told(workspace: Workspace) -> None:
    path = workspace.home / "models" / "colours.yaml"
    path.write_text(path.read_text() + "serving: {canary: 30%, shadow: 10%, candidate: previous}\n")
    promote_version(workspace, "colours", 2)
    with answering(workspace) as client:
        assert client.get("/health").json()["notes"] == []
        assert client.get("/models/colours").json()["candidate"] == 1
        now = datetime.now(UTC)
        workspace.registry.rollback("colours", to=None, at=now, recorded_at=now, by="test", reason="it was worse")
        wait_for(lambda: live_version(client) == 1)
        (note,) = client.get("/health").json()["notes"]
        assert "colours: nobody gets canary and shadow" in note
        assert "rolled back" in note
        told = client.get("/models/colours").json()
        assert told["candidate"] is None
        assert "no champion stands before" in told["candidate_missing"]
    assert "previous" not in json.loads((workspace.home / "live" / "colours.json").read_text())
    assert "previous" not in workspace.registry.client.get_registered_model("colours").aliases


def test_a_cached_version_that_a_power_cut_tore_is_fetched_again(workspace: Workspace) -> None:
    from perennial.serving.versions.cache import Cache, read_manifest

    cache, manifest = Cache(workspace.home, ""), read_manifest(workspace.home / "live" / "colours.json")
    assert manifest
    folder = cache.fetch(manifest)
    for path in (folder / "model" / "model.skops", folder / "golden.parquet"):
        whole = path.read_bytes()
        path.write_bytes(b"")
        assert cache.fetch(manifest) == folder
        assert path.read_bytes() == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system to fill")
def test_a_promotion_on_a_full_disk_leaves_the_manifest_before_it(workspace: Workspace) -> None:
    small, whole = workspace.home / "live", (workspace.home / "live" / "colours.json").read_text()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        (small / "colours.json").write_text(whole)
        _fill(small / "filler")
        with pytest.raises(
            StorageError, match=r"colours\.json can't be written: No space left.*perennial check colours"
        ):
            promote_version(workspace, "colours", 2)
        assert (small / "colours.json").read_text() == whole
        assert {path.name for path in small.iterdir()} == {"colours.json", "filler"}
        (small / "filler").unlink()
        workspace.registry.settle("colours")
        assert json.loads((small / "colours.json").read_text())["version"] == 2
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system to fill")
def test_a_full_disk_keeps_answering_and_recovers(workspace: Workspace) -> None:
    small = workspace.home / "serving"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        answered = _fill_and_make_room(workspace, small)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    log = workspace.store.read("colours", "predictions", columns=["id", "score"]).to_pylist()
    scores = {row["id"]: row["score"] for row in log}
    assert len(scores) == len(log)
    assert answered["before"].items() <= scores.items()
    assert answered["after"].items() <= scores.items()
    assert all(answered["full"][name] == score for name, score in scores.items() if name in answered["full"])
    assert len(scores) < sum(map(len, answered.values()))


def _fill_and_make_room(workspace: Workspace, small: Path) -> dict[str, dict[str, float]]:
    """Answers, by id, before the disk was full, while it was, and after."""
    answered: dict[str, dict[str, float]] = {}

    def ask(client: Any, when: str, count: int = 20) -> None:
        answered[when] = {}
        for number in range(count):
            name = f"{when}-{number}"
            body = {"instances": [GOOD | {"a": number / 7, "code": "x" * 2000}], "ids": [name]}
            answer = client.post(PATH, json=body)
            assert answer.status_code == 200, answer.text
            answered[when][name] = answer.json()["predictions"][0]

    with serving(workspace) as client:
        ask(client, "before")
        wait_for(lambda: counted(client, "perennial_shipped_rows_total") == 20)
        filler = small / "filler"
        _fill(filler)
        ask(client, "full")
        told = client.get("/health").json()
        assert (told["status"], counted(client, "perennial_log_failing")) == ("degraded", 1)
        assert any("space" in problem.lower() for problem in told["problems"])
        _recovers_by_itself(client, filler, told["shed_rows"])
        _fill(filler)
        os.kill(worker_pids(client.process)[0], signal.SIGKILL)  # even a start must not need room
        wait_for(lambda: _answers(client))
        filler.unlink()
        wait_for(lambda: _answers(client))
        time.sleep(1.2)
        ask(client, "after")
        wait_for(lambda: "space" not in " ".join(client.get("/health").json()["problems"]).lower())
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(30) == 0
    return answered


def _fill(filler: Path) -> None:
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b" " * 4096)
            file.flush()


def _recovers_by_itself(client: Any, filler: Path, shed: int) -> None:
    """There is room again, and nobody asks for anything or starts anew: health and metric say so, and what was shed."""
    pids = worker_pids(client.process)
    filler.unlink()
    wait_for(lambda: client.get("/health").json()["status"] == "ok")
    assert client.get("/health").json()["problems"] == []
    wait_for(lambda: counted(client, "perennial_log_failing") == 0)
    assert 0 < shed == client.get("/health").json()["shed_rows"] == counted(client, "perennial_shed_rows_total")
    assert worker_pids(client.process) == pids


def _answers(client: Any) -> bool:
    try:
        return bool(client.post(PATH, json={"instances": [GOOD]}).status_code == 200)
    except httpx.TransportError:
        return False


def _refused(client: httpx.Client) -> Any:
    return client.get("/models/colours").json()["refused"]


def _ask_in_the_background(client: Any) -> tuple[list[tuple[int, int]], threading.Event]:
    answers: list[tuple[int, int]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url) as own:
            while not stop.is_set():
                answer = own.post(PATH, json={"instances": [GOOD]})
                answers.append((answer.status_code, answer.json().get("version", 0)))
                time.sleep(0.005)

    threading.Thread(target=ask, daemon=True).start()
    return answers, stop


def test_changed_files_are_refused(workspace: Workspace) -> None:
    from perennial.errors import RegistryError
    from perennial.serving.versions.cache import Cache, read_manifest
    from perennial.serving.versions.model import load_version as load

    manifest = read_manifest(workspace.home / "live" / "colours.json")
    assert manifest
    stored = workspace.home / "copy"
    source = Path(manifest["model_uri"].removeprefix("file://"))
    shutil.copytree(source, stored)
    (stored / "model.skops").write_bytes((stored / "model.skops").read_bytes() + b" ")
    with pytest.raises(RegistryError, match="digest"):
        Cache(workspace.home, "").fetch({**manifest, "model_uri": str(stored)})
    folder = Cache(workspace.home, "").fetch(manifest)
    (folder / "model" / "model.skops").write_bytes(b"changed in the cache")
    with pytest.raises(RegistryError, match="digest"):
        load(folder, manifest, workspace.definition("colours"))


def test_storage_that_is_not_on_this_machine_is_fetched_by_mlflow(workspace: Workspace) -> None:
    from perennial.serving.versions.cache import Cache, read_manifest

    manifest = read_manifest(workspace.home / "live" / "colours.json")
    assert manifest
    remote = {**manifest, "model_uri": "mlflow-artifacts:/1/model", "run_uri": "mlflow-artifacts:/1"}
    folder = Cache(workspace.home, workspace.settings.mlflow_uri).fetch(remote)
    assert (folder / "golden.parquet").is_file()
    assert (folder / "model" / "model.skops").is_file()


def test_beyond_this_machine_tokens_are_demanded(workspace: Workspace) -> None:
    """With tokens it is served: see test_soak."""
    own = ["--home", str(workspace.home), "serve", "--host", "0.0.0.0", "--port", "0"]
    command = [sys.executable, "-m", "perennial.cli", *own]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "PERENNIAL_SERVING_TOKENS" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PERENNIAL_SERVING_MOST_ROW", "3", "Did you mean PERENNIAL_SERVING_MOST_ROWS?"),
        ("PERENNIAL_SERVING_TOKEN", "predict:x", "Did you mean PERENNIAL_SERVING_TOKENS?"),
        ("PERENNIAL_SERVING_LOG_LEVEL", "loud", "PERENNIAL_SERVING_LOG_LEVEL = 'LOUD': Input should be 'DEBUG', "),
        ("PERENNIAL_SERVING_TOKENS", "predict:abc", "a token is SCOPE:SHA256"),
    ],
)
def test_wrong_settings_are_named_and_no_token_is_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DefinitionError) as caught:
        load_serving_settings()
    assert told in str(caught.value)
    assert "abc" not in str(caught.value)


def test_what_kubernetes_sets_for_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP", "PORT_8000_TCP_ADDR",
                 "PORT_8000_TCP_PORT", "PORT_8000_TCP_PROTO"):  # fmt: skip
        monkeypatch.setenv(f"PERENNIAL_SERVING_{name}", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("PERENNIAL_SERVING_LOG_LEVEL", "debug")
    assert load_serving_settings().log_level == "DEBUG"


def test_a_home_that_can_t_be_written_is_refused_a_full_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match=r"file can't be written: Not a directory. Set PERENNIAL_HOME"):
        _require_home(tmp_path / "file")

    def full(**options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("perennial.serving.processes.server.tempfile.TemporaryFile", full)
    _require_home(tmp_path)


def test_a_start_without_any_champion_waits_for_one(workspace: Workspace) -> None:
    live = workspace.home / "live" / "colours.json"
    kept = live.read_text()
    for path in live.parent.glob("*.json"):
        path.unlink()
    with answering(workspace) as client:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/invocations", json=records(rows_of(1), *FEATURES)).status_code == 404
        live.write_text(kept)
        wait_for(lambda: client.get("/v2/health/ready").status_code == 200)
        assert client.post("/invocations", json={"instances": [GOOD]}).status_code == 200
