"""A registry behind MLflow's own HTTP, which keeps the artifacts: a version registered, fetched and served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import services
from serving_world import definition_of, make_workspace, register

from perennial.serving.versions.host import Host
from perennial.workspace import Workspace


@pytest.fixture
def address(tmp_path: Path, mlflow_database: Path) -> Iterator[str]:
    shutil.copy(mlflow_database, tmp_path / "server.db")
    with services.mlflow_application(tmp_path / "server.db", tmp_path / "artifacts", tmp_path) as url:
        yield url


@pytest.mark.slow
def test_a_version_goes_to_a_remote_registry_and_comes_back_on_another_machine(address: str, tmp_path: Path) -> None:
    here = make_workspace(tmp_path / "laptop", definition_of())
    remote = {"tracking_uri": address, "tables": str(tmp_path / "tables")}
    laptop = Workspace(here.settings.model_copy(update=remote))
    assert laptop.settings.experiments_root is None
    register(laptop, "colours", "one")
    manifest = json.loads((laptop.home / "live" / "colours.json").read_text(encoding="utf-8"))
    assert manifest["model_uri"].startswith("mlflow-artifacts:/")
    assert not (laptop.home / "artifacts").exists(), "the server keeps the artifacts"
    assert laptop.registry.find("colours", "one") == laptop.registry.champion("colours")

    elsewhere = Workspace(laptop.settings.model_copy(update={"home": tmp_path / "elsewhere"}))
    host = Host(elsewhere)
    try:
        host.start()
        assert host.problems() == []
        assert host.served["colours"].champion.version == 1
        assert host.served["colours"].champion.golden_difference < 1e-9
    finally:
        host.stop()
