"""A home that was copied or moved is noticed before anything is written, refused, and brought to its new place."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from small_model import World

from perennial.cli import main
from perennial.errors import ConflictError, RegistryError
from perennial.operate import doctor
from perennial.settings import Settings
from perennial.state.addresses import former_roots, relocate
from perennial.workspace import Workspace

ARTIFACTS = ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "storage_location")


def addresses(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return [
            address
            for table, column in ARTIFACTS
            for (address,) in connection.execute(f"select {column} from {table} where {column} like 'file:%'")
        ]


@pytest.fixture
def copied(trained: World, tmp_path: Path) -> Workspace:
    """A copy, made while the original stays."""
    shutil.copytree(trained.workspace.home, tmp_path / "a copy")
    settings = trained.workspace.settings
    return Workspace(settings.model_copy(update={"home": tmp_path / "a copy"}))


def test_a_copy_is_refused_by_name_and_brought_home(
    copied: Workspace, trained: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, settings = trained.workspace.home, copied.settings
    before = sorted(path.relative_to(original) for path in (original / "artifacts").rglob("*"))
    monkeypatch.setenv("PERENNIAL_HOME", str(copied.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    assert main(["status", "digits"]) == 1
    told = capsys.readouterr().err
    assert f"lead to {original / 'artifacts'}" in told
    assert "perennial migrate" in told
    (found,) = [item for item in doctor.examine(settings) if item.check == "registry" and item.status == "error"]
    assert found.remedy.endswith("perennial migrate")

    assert main(["migrate"]) == 0
    told = capsys.readouterr().out
    assert "digits: aliases and the API's manifest are as the history says" in told
    assert addresses(copied.home) != []
    assert [one for one in addresses(copied.home) if not one.startswith((copied.home / "artifacts").as_uri())] == []
    manifest = json.loads((copied.home / "live" / "digits.json").read_text())
    assert manifest["model_uri"].startswith((copied.home / "artifacts").as_uri())
    assert main(["migrate"]) == 0
    assert "nothing to do" in capsys.readouterr().out

    again = Workspace(settings)
    run = again.registry.run_for("digits", "of the copy", name="of the copy", tags={})
    again.registry.client.log_text(run, "written by the copy", "note.txt")
    assert len(list((copied.home / "artifacts").rglob("note.txt"))) == 1
    assert sorted(path.relative_to(original) for path in (original / "artifacts").rglob("*")) == before
    assert Workspace(trained.workspace.settings).registry.champion("digits") is not None


def test_a_moved_home_is_refused_too(copied: Workspace, tmp_path: Path) -> None:
    (copied.home / "live").mkdir(exist_ok=True)
    with pytest.raises(ConflictError, match="perennial migrate"):
        copied.store.read("digits", "history")
    copied.home.rename(tmp_path / "moved")
    with pytest.raises(ConflictError, match="perennial migrate"):
        Workspace(copied.settings.model_copy(update={"home": tmp_path / "moved"})).store.read("digits", "history")


def test_artifacts_that_stayed_while_the_setting_changed_are_no_copy(trained: World, tmp_path: Path) -> None:
    settings = trained.workspace.settings.model_copy(update={"artifacts": str(tmp_path / "new")})
    assert former_roots(settings) == []
    assert former_roots(trained.workspace.settings) == []
    remote = trained.workspace.settings.model_copy(update={"artifacts": "s3://bucket/artifacts"})
    assert former_roots(remote) == []


def test_no_registry_yet_and_one_that_is_no_database(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert former_roots(settings) == []
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("create table other (x)")
    assert former_roots(settings) == []
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(RegistryError, match=r"mlflow\.db can't be read"):
        former_roots(settings)


def test_a_folder_whose_name_only_begins_alike_stays(copied: Workspace) -> None:
    root = (copied.home / "artifacts").as_uri()
    with closing(sqlite3.connect(copied.home / "mlflow.db")) as connection:
        connection.execute("update experiments set artifact_location = ?", (f"{root}2/digits",))
        connection.commit()
    relocate(copied.settings.mlflow_uri, root, "file:///elsewhere")
    with closing(sqlite3.connect(copied.home / "mlflow.db")) as connection:
        assert set(connection.execute("select artifact_location from experiments")) == {(f"{root}2/digits",)}
