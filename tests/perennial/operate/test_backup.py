"""A backup holds everything, is consistent while others write, and comes back whole or not at all."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_model import World, rows

from perennial.cli import main
from perennial.errors import ConflictError, DataError, NotFoundError, RegistryError
from perennial.operate import backup as module
from perennial.operate.backup import NOTE, backup, check_restored, restore
from perennial.settings import Settings
from perennial.state.layout import RECORD
from perennial.state.storage import Objects, dump
from perennial.workspace import Workspace
from tasks.steps.score import load_version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(trained: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a trained model, with something in the spool."""
    segment = trained.workspace.home / "serving" / "spool" / "dead" / "digits" / "dead-1.jsonl"
    segment.parent.mkdir(parents=True)
    segment.write_text('["champion"]\n')
    place = tmp_path_factory.mktemp("backups") / "one"
    backup(trained.workspace.settings, place)
    shutil.rmtree(trained.workspace.home / "serving")
    return place


@pytest.fixture
def target(tmp_path: Path, trained: World) -> Settings:
    changes = {"home": tmp_path / "new home"}
    return trained.workspace.settings.model_copy(update=changes)


def test_it_comes_back_whole(saved: Path, target: Settings, trained: World) -> None:
    done = restore(target, saved)
    assert check_restored(target, done.tables) == ["digits: version 1 is champion, its files are whole"]
    before, after = trained.workspace, Workspace(target)
    assert after.registry.history("digits") == before.registry.history("digits")
    assert after.ledger("digits").rows() == before.ledger("digits").rows()
    for table in ("predictions", "batches", "receipts", "labels"):
        assert after.store.version("digits", table) == before.store.version("digits", table)
        assert after.store.read("digits", table).equals(before.store.read("digits", table))
    first = after.store.read("digits", "batches", version=1)
    assert first.equals(before.store.read("digits", "batches", version=1)), "with its history"
    champion = after.registry.champion("digits")
    assert champion
    assert champion.digest == trained.training.version.digest
    assert str(after.registry.artifacts(champion)).startswith(str(target.home_path)), "nothing leads to the old home"
    live = json.loads((after.home / "live" / "digits.json").read_text())
    assert live["model_uri"].startswith((target.home_path / "artifacts").as_uri())
    frame = rows(12, 13)
    shutil.move(before.home / "artifacts", before.home / "gone")
    try:
        scores = load_version(after.registry, champion, trained.definition).predict_proba(frame)
    finally:
        shutil.move(before.home / "gone", before.home / "artifacts")
    assert np.array_equal(scores, trained.training.final.pipeline.predict_proba(frame))
    assert (after.home / "serving" / "spool" / "dead" / "digits" / "dead-1.jsonl").read_text() == '["champion"]\n'
    # And it goes on: the next commit follows the last one.
    label = pd.DataFrame({"id": ["a"], "truth": 1.0, "labelled_at": pd.Timestamp.now("UTC"), "author": "x"})
    again = after.store.append("digits", "labels", label, key="after")
    assert again.version == (before.store.version("digits", "labels") or 0) + 1


def test_commands(
    saved: Path, target: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(target.home_path))
    assert main(["restore", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["champions"] == ["digits: version 1 is champion, its files are whole"]
    assert main(["restore", str(saved)]) == 1
    assert "are not empty" in capsys.readouterr().err
    assert main(["backup", str(saved)]) == 1
    assert "is not empty. Name a new folder" in capsys.readouterr().err
    assert main(["backup", str(target.home_path.parent / "second")]) == 0
    assert "not in it: settings and secrets" in capsys.readouterr().out


def test_nothing_of_a_changed_backup_is_restored(saved: Path, target: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    changed = next(path for path in sorted((copy / "tables").rglob("*.parquet")))
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    with pytest.raises(DataError, match=r"is not what was backed up. Restore another backup: nothing was changed here"):
        restore(target, copy)
    changed.unlink()
    with pytest.raises(DataError, match=r"is missing from the backup"):
        restore(target, copy)
    assert not target.home_path.exists()


def test_a_broken_off_restore_is_not_taken_for_a_home(
    saved: Path, target: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back, left = module._put_back, 5

    def fail(settings: Settings, source: Path, name: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise OSError("the disk went away")
        put_back(settings, source, name)

    monkeypatch.setattr(module, "_put_back", fail)
    with pytest.raises(OSError, match="went away"):
        restore(target, saved)
    with pytest.raises(ConflictError, match=r"a restore into .* was broken off"):
        _ = Workspace(target).store
    monkeypatch.undo()
    shutil.rmtree(target.home_path)
    assert restore(target, saved).tables["digits/history"] == 1


def test_a_broken_off_backup_has_no_name(trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "_copy_databases", fail)
    with pytest.raises(OSError, match="no space"):
        backup(trained.workspace.settings, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_other_layouts_and_other_folders(saved: Path, target: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"holds no backup.json. Name the folder"):
        restore(target, tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    note = json.loads((saved / NOTE).read_text())
    (copy / NOTE).write_bytes(dump(note | {"layout": 99, "perennial": "9.0"}))
    with pytest.raises(ConflictError, match=r"with layout 99; this one .* Install Perennial 9\.0 or a newer one"):
        restore(target, copy)


def test_a_registry_elsewhere_is_refused_or_left_out(trained: World, tmp_path: Path) -> None:
    settings = trained.workspace.settings.model_copy(update={"tracking_uri": "http://user:hidden@mlflow:5000"})
    with pytest.raises(RegistryError, match=r"the registry is behind http://user:\*\*\*@mlflow:5000") as caught:
        backup(settings, tmp_path / "b")
    assert "--without-registry" in caught.value.remedy
    made = backup(settings, tmp_path / "b", without_registry=True)
    assert made.registry == "left out"
    assert any("the registry and its artifacts" in line for line in made.left_out)
    note = (tmp_path / "b" / NOTE).read_text()
    assert "hidden" not in note
    assert not (tmp_path / "b" / "artifacts").exists()


def test_a_segment_that_is_sealed_meanwhile_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer writes on and renames it: once after it was listed, once after it was copied."""
    folder = tmp_path / "spool" / "owner" / "m"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(f"{name} first\n")
    download = Objects.download

    def seal(name: str) -> None:
        path = folder / f"{name}.jsonl"
        path.write_text(path.read_text() + f"{name} second\n")
        path.rename(folder / f"{name}.sealed.jsonl")

    def moved(self: Objects, name: str, target: Path) -> str:
        if name == "b.jsonl":
            seal("b")
        digest = download(self, name, target)
        if name == "a.jsonl":
            seal("a")
        return digest

    monkeypatch.setattr(Objects, "download", moved)
    copy = module._Copy(tmp_path / "copy")
    copy.folder(tmp_path / "spool", "spool")
    assert {name: (copy.root / name).read_text() for name in copy.files} == {
        "spool/owner/m/a.sealed.jsonl": "a first\na second\n",
        "spool/owner/m/b.sealed.jsonl": "b first\nb second\n",
    }
    assert not (copy.root / "spool/owner/m/a.jsonl").exists()


def test_it_is_consistent_while_rows_come_in(make_workspace: Callable[[Path], Workspace], tmp_path: Path) -> None:
    """Each batch is a row in batches and then its receipt: no receipt may come back without its row."""
    workspace = make_workspace(tmp_path / "busy")
    stop, written = threading.Event(), 0
    at = pd.Timestamp("2024-01-01", tz="UTC")

    def write() -> None:
        nonlocal written
        while not stop.is_set() and written < 400:
            name = f"b{written}"
            row = {"_batch_id": [name], "_id": [name], "_time": at, "_ingested_at": at}
            workspace.store.append("m", "batches", pd.DataFrame(row), key=f"batch:{name}")
            receipt = {
                "batch_id": [name], "ingested_at": at, "source": "t", "verdict": "accepted", "rows": 1, "kept": 1,
                "quarantined": 0, "duplicates": 0, "labels": 0, "time_from": at, "time_until": at, "report": "",
            }  # fmt: skip
            workspace.store.append("m", "receipts", pd.DataFrame(receipt), key=f"receipt:{name}")
            written += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while written < 8:
            time.sleep(0.01)
        before = written
        backup(workspace.settings, tmp_path / "saved")
    finally:
        stop.set()
        thread.join()
    assert written > before, "nobody wrote meanwhile: the test shows nothing"
    target = workspace.settings.model_copy(update={"home": tmp_path / "back"})
    restore(target, tmp_path / "saved")
    back = Workspace(target)
    received = set(back.store.frame("m", "receipts")["batch_id"])
    assert len(received) >= before
    assert received <= set(back.store.frame("m", "batches")["_id"])
    assert Objects(str(target.home_path)).get(RECORD) is not None
