"""doctor finds what is broken, one thing at a time, names the remedy, and says nothing of what is whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from small_model import World, define

from perennial.cli import main
from perennial.operate import doctor
from perennial.operate.doctor import Finding, examine, summary
from perennial.settings import Settings
from perennial.state.layout import LAYOUT_VERSION, RECORD
from perennial.state.leases import FOLDER, machine
from perennial.state.storage import Objects, dump
from perennial.workspace import Workspace


def look(settings: Settings, check: str) -> list[Finding]:
    return list(doctor._CHECKS[check](settings))


def wrong(settings: Settings) -> list[Finding]:
    return [item for item in examine(settings) if item.status != "ok"]


def test_a_working_installation_has_nothing_wrong(trained: World) -> None:
    found = examine(trained.workspace.settings)
    assert [item for item in found if item.status == "error"] == []
    assert [item.check for item in found if item.status == "warning" and item.check != "disk"] == ["prefect"]
    assert {item.check for item in found} >= set(doctor._CHECKS)
    assert summary(found)["error"] == 0
    (champion,) = [item for item in found if item.check == "champions"]
    rows = len(trained.training.record.golden[0])
    assert champion.detail == f"digits: version 1 is whole; a fresh process answers its {rows} golden rows"
    leftovers = [entry.name for entry in Objects(trained.workspace.settings.tables_root).entries("_perennial/probe")]
    assert leftovers == []


def test_a_new_home_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "none")
    assert [item.check for item in wrong(settings) if item.check != "disk"] == ["home", "prefect"]
    assert not settings.home_path.exists()


def test_the_command(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    define(workspace)
    settings = workspace.settings
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    assert main(["doctor"]) == 0
    assert "0 errors" in capsys.readouterr().out
    Objects(settings.tables_root).put(RECORD, dump({"layout": 99, "written_by": "9.0", "written_at": ""}))
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["error"] >= 1
    assert "Install Perennial 9.0 or a newer one" in [item["remedy"] for item in document["findings"]]


def test_wrong_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requires = ["pandas<2", "no-such-package>=1", "numpy>=1", 'tomli>=9; python_version < "3.0"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _name: requires)
    found, missing = look(Settings(home=tmp_path), "versions")
    assert found.status == "error"
    assert "pandas is 3." in found.detail
    assert "numpy" not in found.detail
    assert "make setup" in found.remedy
    assert (missing.status, missing.detail) == ("warning", "not installed: no-such-package")
    assert "make setup" in missing.remedy


def test_in_an_image_perennial_is_not_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(name: str) -> Any:
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", none)
    (found,) = look(Settings(home=tmp_path), "versions")  # by this checkout's pyproject.toml
    assert found.status == "ok"
    assert "every package within its pin" in found.detail
    monkeypatch.setattr(doctor, "PROJECT_ROOT", tmp_path)
    (found,) = look(Settings(home=tmp_path), "versions")  # the serving image has none
    assert (found.status, "pins" in found.detail) == ("ok", True)
    monkeypatch.setattr(doctor.importlib.metadata, "version", none)
    (found,) = doctor._same_version("registry", "mlflow", "3.17.2")
    assert found.detail == "the server answers, version 3.17.2; mlflow is not installed here"


def test_telemetry_that_somebody_switched_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [item.status for item in look(Settings(home=tmp_path), "telemetry")] == ["ok"]
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    (found,) = look(Settings(home=tmp_path), "telemetry")
    assert (found.status, found.detail) == ("warning", "switched on by DO_NOT_TRACK, MLFLOW_DISABLE_TELEMETRY")


def test_a_home_that_anybody_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (found,) = look(Settings(home=tmp_path), "home")
    assert (found.status, found.remedy) == ("warning", f"chmod o-w {tmp_path}")


@pytest.mark.parametrize(
    ("free", "status", "temporary"),
    [
        (50 * 2**20, "error", "error"),
        (400 * 2**20, "error", "warning"),
        (2**30, "warning", "ok"),  # what a container has in its memory for temporary files
        (2**40, "ok", "ok"),
    ],
)
def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str, temporary: str) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: usage)
    *found, last = look(Settings(home=tmp_path), "disk")
    assert {item.status for item in found} == {status}
    assert ("temporary files" in last.detail, last.status) == (True, temporary)


def test_an_old_layout(workspace: Workspace) -> None:
    (workspace.home / "live").mkdir()
    (home, _tables) = look(workspace.settings, "layout")
    assert (home.status, home.detail) == (
        "error", f"the home in {workspace.home}: 1, needed is {LAYOUT_VERSION}",
    )  # fmt: skip
    assert home.remedy.endswith("perennial migrate")


def test_a_storage_without_conditional_writes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(workspace.settings.tables_root).mkdir()
    monkeypatch.setattr(Objects, "create", lambda self, name, content: self.put(name, content) or True)
    (found,) = look(workspace.settings, "tables")
    assert found.status == "error"
    assert "commits and leases are not safe" in found.detail


def test_a_storage_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
    monkeypatch.setattr(doctor, "Objects", lambda root, patience_seconds=5.0: Objects(root, patience_seconds=0.1))
    found = look_safely(Settings(home=tmp_path, tables="s3://bucket/t"), "tables")
    assert [item.status for item in found] == ["error"]
    assert "s3://bucket/t did not write" in found[0].detail
    assert "planted-secret-key" not in json.dumps([item.__dict__ for item in found])


def look_safely(settings: Settings, check: str) -> list[Finding]:
    checks = {check: doctor._CHECKS[check]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "_CHECKS", checks)
        return examine(settings)


def test_a_damaged_registry(workspace: Workspace) -> None:
    path = workspace.home / "mlflow.db"
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)
    (found,) = look_safely(workspace.settings, "registry")
    assert found.status == "error"
    path.unlink()
    assert [item.status for item in look(workspace.settings, "registry")] == ["ok"]
    assert not path.exists(), "looking made none"


@pytest.mark.process
def test_servers_that_do_not_answer(tmp_path: Path) -> None:
    away = Settings(
        home=tmp_path, tracking_uri="http://127.0.0.1:9", prefect_api_url="http://user:pw-hidden@127.0.0.1:9/api"
    )
    (registry,) = look_safely(away, "registry")
    assert (registry.status, registry.remedy) == ("error", "Start the server, or correct its address")
    (prefect,) = look_safely(away, "prefect")
    assert prefect.status == "error"
    assert "pw-hidden" not in prefect.detail


@pytest.mark.slow
def test_a_server_of_this_version(prefect_url: str, prefect_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    update = {"prefect_api_url": prefect_url, "models": str(tmp_path / "models")}
    found = look(prefect_settings.model_copy(update=update), "prefect")
    assert [(item.check, item.status) for item in found] == [("prefect", "ok"), ("clock", "ok"), ("runs", "ok")]
    *_, runs = look(prefect_settings.model_copy(update={"prefect_api_url": prefect_url}), "prefect")
    assert (runs.status, "not registered" in runs.detail, "flights" in runs.detail) == ("warning", True, True)


@pytest.mark.parametrize(("seconds", "status"), [(0.0, "ok"), (-8.0, "warning"), (600.0, "error"), (-600.0, "error")])
def test_clocks(seconds: float, status: str) -> None:
    found = doctor._skew("the MLflow server", seconds)
    assert found.status == status
    assert bool(found.remedy) == (status != "ok")


def test_changed_files_of_a_champion(trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = trained.workspace.settings
    live = trained.workspace.home / "live" / "digits.json"
    kept = live.read_text()
    live.write_text(json.dumps(json.loads(kept) | {"sequence": 7}))
    (found,) = look(settings, "champions")
    assert (found.status, found.remedy) == ("warning", "Let a check mend it: perennial check digits")
    for torn in ("", kept[:50], "[]"):
        live.write_text(torn)
        (found,) = look(settings, "champions")
        assert found.status == "error"
        assert str(live) in found.detail
        assert "perennial check digits" in found.remedy
    trained.workspace.registry.settle("digits")  # as a check begins
    assert json.loads(live.read_text()) == json.loads(kept)
    live.write_text(kept)
    folder = trained.workspace.registry.artifacts(trained.training.version)
    (folder / "more.txt").write_text("x")
    try:
        (found,) = look(settings, "champions")
    finally:
        (folder / "more.txt").unlink()
    assert found.status == "error"
    assert "are not those that were registered" in found.detail


@pytest.mark.parametrize(
    ("changes", "status", "remedy"),
    [
        ({"pid": 2**22 + 1, "machine": machine()}, "warning", "Nothing: the next run takes it over"),
        ({"age": 1000}, "warning", "takes it over after 60 s. Else see its clock"),
        ({}, "ok", ""),
    ],
)
def test_leases(workspace: Workspace, changes: dict[str, Any], status: str, remedy: str) -> None:
    at = datetime.now(UTC) - timedelta(seconds=changes.pop("age", 0))
    record = {
        "sequence": 1, "held": True, "holder": "h", "host": "far", "machine": "far", "pid": 5, "started": "1",
        "renewed_at": at.isoformat(), "seconds": 60.0,
    } | changes  # fmt: skip
    Objects(workspace.settings.tables_root).put(f"{FOLDER}/retrain-m/{1:020d}.json", dump(record))
    (found,) = look(workspace.settings, "leases")
    assert found.status == status
    assert found.remedy.endswith(remedy)
    assert "retrain-m is held by process" in found.detail


def test_an_unfinished_spool(workspace: Workspace, make_spool: Callable[[], Path]) -> None:
    assert [item.status for item in look(workspace.settings, "spool")] == ["ok"]
    segment = make_spool()
    assert [item.status for item in look(workspace.settings, "spool")] == ["ok"], "it is young, and its writer lives"
    old = time.time() - 3600
    os.utime(segment, (old, old))
    (found,) = look(workspace.settings, "spool")
    assert (found.status, "60 minutes old" in found.detail) == ("error", True)
    orphan = workspace.home / "serving" / "labels" / "dead" / "m"
    orphan.mkdir(parents=True)
    (orphan / "dead-1.jsonl").write_text("[]\n")
    found = next(item for item in look(workspace.settings, "spool") if item.status == "warning")
    assert "perennial serve" in found.remedy


@pytest.fixture
def make_spool(workspace: Workspace) -> Callable[[], Path]:
    from perennial.serving.log.spool import Spool

    def make() -> Path:
        spool = Spool(workspace.home / "serving" / "spool", 10**6)
        assert spool.append("m", ["x"], 1)
        make.kept = spool  # type: ignore[attr-defined]
        return next(spool.folder.glob("m/*.jsonl"))

    return make
