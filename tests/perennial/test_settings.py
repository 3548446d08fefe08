"""Settings come from the environment, work without any, and name the variable that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perennial.errors import DefinitionError
from perennial.settings import PROJECT_ROOT, Settings, load_settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        monkeypatch.delenv(name)


def test_home_alone_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    settings = load_settings()
    assert settings.home_path == tmp_path
    assert settings.tables_root == str(tmp_path / "tables")
    assert settings.mlflow_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert settings.artifacts_root == str(tmp_path / "artifacts")
    assert settings.prefect_url == "http://127.0.0.1:4200/api"


def test_defaults_are_the_checkout() -> None:
    settings = load_settings()
    assert settings.home_path == Path.cwd() / ".perennial"
    assert settings.model_folders == [PROJECT_ROOT / "deployments"]
    assert settings.expectation_folders == [PROJECT_ROOT / "expectations"]


def test_each_place_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_TABLES", "s3://bucket/tables")
    monkeypatch.setenv("PERENNIAL_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("PERENNIAL_ARTIFACTS", "s3://bucket/artifacts")
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", "http://prefect:4200/api")
    monkeypatch.setenv("PERENNIAL_MODELS", f"{tmp_path}{os.pathsep}~/models{os.pathsep}")
    settings = load_settings()
    assert settings.tables_root == "s3://bucket/tables"
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.artifacts_root == "s3://bucket/artifacts"
    assert settings.prefect_url == "http://prefect:4200/api"
    assert settings.model_folders == [tmp_path, Path("~/models").expanduser().resolve()]


@pytest.mark.parametrize(("name", "value"), [("PREFECT_PORT", "0"), ("MLFLOW_PORT", "many"), ("API_PORT", "70000")])
def test_a_wrong_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PERENNIAL_{name}", value)
    with pytest.raises(DefinitionError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"PERENNIAL_{name} = {value!r}: ")
    assert caught.value.remedy == f"Correct or unset PERENNIAL_{name}"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match=r"frozen"):
        Settings().host = "0.0.0.0"  # type: ignore[misc]
