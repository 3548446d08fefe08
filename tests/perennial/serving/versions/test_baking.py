"""A version as a folder for an image: checked, refused where its packages would differ, served without a registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_world import ROOT, answering, copy_home, definition_of, make_workspace, records, register, rows_of, serving

from perennial.cli import main
from perennial.errors import ConflictError, RegistryError, ServiceError
from perennial.model import pins
from perennial.serving.versions import baking
from perennial.serving.versions.host import Host
from perennial.state.layout import require
from perennial.workspace import Workspace

FEATURES = ("a", "b", "empty", "colour", "code")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    """A home with two versions of `colours`; the first is champion."""
    home = tmp_path_factory.mktemp("baking")
    shutil.copy(mlflow_database, home / "mlflow.db")
    workspace = make_workspace(home, definition_of())
    register(workspace, "colours", "one")
    register(workspace, "colours", "two", seed=1, promote=False)
    return home


@pytest.fixture
def workspace(home: Path, tmp_path: Path) -> Workspace:
    return copy_home(home, tmp_path / "home")


def bake(workspace: Workspace, output: Path, number: int = 1, **options: bool) -> baking.Baked:
    definition = workspace.definition("colours")
    return baking.bake(workspace, definition, workspace.registry.version("colours", number), output, **options)


def served_alone(context: Path, home: Path) -> Workspace:
    """A workspace that knows nothing but the baked folder."""
    found = make_workspace(home)
    return Workspace(found.settings.model_copy(update={"models": str(context / "baked")}))


@pytest.mark.process
def test_a_baked_version_answers_without_registry_or_home(workspace: Workspace, tmp_path: Path) -> None:
    baked = bake(workspace, tmp_path / "context")
    frame = rows_of(5, seed=9)
    with answering(workspace) as client:
        asked = {"dataframe_records": records(frame, *FEATURES)}
        wanted = client.post("/models/colours/invocations", json=asked).json()["predictions"]
    shutil.rmtree(workspace.home)
    alone = served_alone(baked.folder, tmp_path / "elsewhere")
    with serving(alone, PERENNIAL_SERVING_BAKED=str(baked.folder / "baked")) as client:
        assert client.get("/v2/health/ready").status_code == 200
        answer = client.post("/models/colours/invocations", json=asked).json()
        assert (answer["predictions"], answer["version"]) == (wanted, 1)
        assert client.get("/health").json() == {
            "status": "ok", "models": {"colours": 1}, "registry": "none", "spool_bytes": answer_bytes(client),
            "shed_rows": 0, "problems": [], "notes": [],
        }  # fmt: skip
        assert client.get("/models/colours").json()["reason"] == "it was better"
    require(alone.settings)  # what it logged on its own lets it start again
    assert len(alone.store.read("colours", "predictions")) == 5
    assert not list((baked.folder / "baked").rglob("*.sqlite"))


def answer_bytes(client: object) -> int:
    return int(client.get("/health").json()["spool_bytes"])  # type: ignore[attr-defined]


def change(folder: Path, part: str, workspace: Workspace) -> None:
    changed = folder / "baked" / "colours" / part
    if part == "golden.parquet":
        shutil.copy2(workspace.registry.run_artifact(workspace.registry.version("colours", 2), part), changed)
    else:
        changed.write_bytes(changed.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("model/MLmodel", "has the digest|have the digest"),
        ("golden.parquet", "golden scores are off"),
        ("manifest.json", "is not whole"),
    ],
)
def test_a_changed_version_is_not_served(workspace: Workspace, tmp_path: Path, part: str, told: str) -> None:
    baked = bake(workspace, tmp_path / "context")
    host = Host(served_alone(baked.folder, tmp_path / "elsewhere"), baked=baked.folder / "baked")
    change(baked.folder, part, workspace)
    with pytest.raises(RegistryError, match=told):
        host.start()
    assert host.served == {}


@pytest.mark.process
def test_an_image_that_can_t_serve_ends_and_says_why(workspace: Workspace, tmp_path: Path) -> None:
    baked = bake(workspace, tmp_path / "context")
    change(baked.folder, "manifest.json", workspace)
    alone = served_alone(baked.folder, tmp_path / "elsewhere")
    environment = {
        **os.environ, "PERENNIAL_HOME": str(alone.home), "PERENNIAL_MODELS": alone.settings.models,
        "PERENNIAL_SERVING_BAKED": str(baked.folder / "baked"),
    }  # fmt: skip
    command = [sys.executable, "-m", "perennial.cli", "serve", "--port", "0"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "manifest.json is not whole" in done.stderr
    assert done.stderr.strip().endswith("Build the image anew: `perennial containerize`.")


def test_the_folder_has_all_that_an_image_needs_and_no_address_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    baked = bake(workspace, tmp_path / "context", number=2)
    text = (baked.folder / "Dockerfile").read_text(encoding="utf-8")
    assert "FROM serving AS model" in text
    assert "FROM packager AS worker" not in text
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    for source in [name for names in copied for name in names if not name.startswith("--")]:
        assert list(baked.folder.glob(source)), f"{source} is copied, but not there"
    assert (baked.folder / pins.LOCK_FILE).read_text(encoding="utf-8") == pins.serving_lock()
    manifest = json.loads((baked.folder / "baked" / "colours" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["version"], manifest["reason"]) == (2, "never champion")
    assert str(workspace.home) not in json.dumps(manifest)
    assert "classes" in manifest  # or the API would not know what 0 and 1 mean
    assert f'perennial.digest="{baked.digest}"' in text
    assert f"library/python:{sys.version_info[0]}.{sys.version_info[1]}-slim" in text


def change_lock(text: str) -> str:
    return text.replace("numpy==", "numpy==9.", 1)


def test_another_lock_is_refused_unless_the_trained_one_is_asked_for(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = pins.serving_lock()
    monkeypatch.setattr(pins, "serving_lock", lambda: change_lock(trained))
    with pytest.raises(ConflictError, match=r"numpy \S+ there, 9\.\S+ here\. .*or pass --trained-lock"):
        bake(workspace, tmp_path / "context")
    assert not (tmp_path / "context").exists()
    baked = bake(workspace, tmp_path / "context", trained_lock=True)
    assert (baked.folder / pins.LOCK_FILE).read_text(encoding="utf-8") == trained


@pytest.mark.parametrize(
    ("tag", "value", "told"),
    [
        ("lock", "", "carries no lock of the packages that trained it"),
        ("lock_differences", "numpy 1 instead of 2", "differ from its lock: numpy 1 instead of 2"),
        ("lock", "0" * 64, "Its files were changed"),
    ],
)
def test_a_version_without_its_own_lock_is_refused(
    workspace: Workspace, tmp_path: Path, tag: str, value: str, told: str
) -> None:
    workspace.registry.set_tags(workspace.registry.version("colours", 1), {tag: value})
    with pytest.raises(ConflictError, match=told) as caught:
        bake(workspace, tmp_path / "context", trained_lock=True)
    assert "perennial retrain colours" in caught.value.remedy
    assert list(tmp_path.glob("*context*")) == []


def test_changed_artifacts_and_used_folders_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConflictError, match="is there already"):
        bake(workspace, tmp_path / "used")
    registry = workspace.registry
    version = registry.version("colours", 1)
    registry.set_tags(version, {"digest": "0" * 64})
    with pytest.raises(RegistryError, match=r"registered was 000000000000…"):
        bake(workspace, tmp_path / "context")
    assert list(tmp_path.glob("*context*")) == []


@pytest.fixture
def run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("PERENNIAL_HOME", str(workspace.home))
    monkeypatch.setenv("PERENNIAL_MODELS", workspace.settings.models)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["containerize", "colours", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_says_how_to_build(run: Callable[..., tuple[int, str, str]], workspace: Workspace) -> None:
    code, out, _ = run()
    folder = workspace.home / "images" / "colours-1"
    assert (code, out) == (
        0, f"version 1 of colours is in {folder}\nbuild it with: docker build --tag perennial-colours:1 {folder}\n"
    )  # fmt: skip
    code, _, err = run()
    assert (code, err) == (1, f"error: {folder} is there already. Name a new folder with --output, or empty it.\n")
    assert run("--version", "7")[0] == 1


@pytest.mark.process
def test_without_an_engine_the_folder_stays_and_the_error_says_so(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baked = bake(workspace, tmp_path / "context")
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "docker").write_text("#!/bin/sh\nexit 1\n")
    (fake / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake))
    assert baking.find_engine() is None  # a docker without its daemon is none
    with pytest.raises(ServiceError, match=r"is ready to be built\. Build it where there is one: docker build"):
        baking.build(baked)
    (fake / "podman").write_text('#!/bin/sh\necho "$@" >> ' + str(tmp_path / "asked") + "\n")
    (fake / "podman").chmod(0o755)
    assert baking.build(baked) == "perennial-colours:1"
    assert (tmp_path / "asked").read_text().splitlines() == [
        "info",
        f"build --format docker --file {baked.folder}/Dockerfile --tag perennial-colours:1 {baked.folder}",
    ]
