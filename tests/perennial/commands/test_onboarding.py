"""init, adopt and remove by hand's way: a model comes, is used, and is taken away again, leaving nothing behind."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from small_model import add, day, define, retrain, rows

from perennial.cli import main
from perennial.workspace import Workspace


@pytest.fixture
def home(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace that the command line works in. No server answers: whoever asks for one fails."""
    settings = workspace.settings
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", "http://127.0.0.1:1/api")
    return workspace


def test_init_from_a_file(home: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "digits.csv"
    rows(0, 10).to_csv(path, index=False)
    said = ["init", "digits", str(path), "--target", "even", "--label-delay", "6d"]
    assert main(said) == 2
    assert "there is no terminal to ask on: give --yes" in capsys.readouterr().err
    assert main([*said, "--yes"]) == 0
    out = capsys.readouterr().out
    assert "data.id = row: What names a row: it differs in every row." in out
    assert "another process loads it and answers 200 rows alike" in out
    assert out.rstrip().endswith("perennial ingest digits\n  perennial retrain digits\n  perennial serve")
    definition = home.definition("digits")
    assert (definition.data.time, definition.classes) == ("when", ("0", "1"))
    assert definition.data.label_delay.days == 6
    text = definition.path.read_text() if definition.path else ""
    assert main([*said, "--yes"]) == 1
    assert "is there already, and nothing is overwritten. Choose another NAME" in capsys.readouterr().err
    assert definition.path is not None
    assert definition.path.read_text() == text
    assert main(["init", "Digits!", str(path), "--yes"]) == 1
    assert "is no model's name: lowercase letters" in capsys.readouterr().err
    assert main(["init", "other", str(tmp_path / "absent.csv"), "--yes"]) == 1
    assert "absent.csv does not exist" in capsys.readouterr().err


def test_init_from_several_files_and_from_a_database(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = rows(0, 10)
    (tmp_path / "data").mkdir()
    frame.head(400).to_parquet(tmp_path / "data" / "part-1.parquet")
    frame.tail(320).to_parquet(tmp_path / "data" / "part-2.parquet")
    files = [str(tmp_path / "data" / f"part-{number}.parquet") for number in (1, 2)]
    assert main(["init", "parts", *files, "--target", "even", "--yes"]) == 0
    assert str(home.definition("parts").data.source.parquet).endswith("data/part-*.parquet")
    assert main(["init", "one", files[0], str(tmp_path / "x.csv"), "--target", "even", "--yes"]) == 1
    url = tmp_path / "rows.db"
    with closing(sqlite3.connect(url)) as connection:
        frame.assign(when=frame["when"].astype("str")).to_sql("images", connection, index=False)
    monkeypatch.setenv("IMAGES_URL", f"sqlite:///{url}")
    assert main(["init", "stored", "--sql", "images", "--url-env", "IMAGES_URL", "--target", "even", "--yes"]) == 0
    source = home.definition("stored").data.source
    assert source.sql == 'SELECT * FROM images WHERE "when" >= :start AND "when" < :end'
    from datetime import UTC, datetime

    from tasks.rows.source import read_source

    assert len(read_source(home.definition("stored"), None, datetime.now(UTC))) == len(frame)
    assert main(["init", "stored2", "--sql", "images", "--yes"]) == 2
    assert "--sql needs --url-env" in capsys.readouterr().err


def test_remove_takes_all_and_leaves_the_name_free(home: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    definition = define(home)
    add(home, definition, rows(0, 12), as_of=day(13), history=True)
    retrain(home, definition, as_of=day(13))
    other = define(home, name="letters")
    add(home, other, rows(0, 12), as_of=day(13), history=True)
    assert main(["remove", "digits", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {part["kind"] for part in shown} == {"definition", "suite", "registry", "table", "artifacts", "files"}
    assert main(["remove", "digits"]) == 2
    assert "give --yes, or --dry-run" in capsys.readouterr().err
    assert definition.path is not None
    assert definition.path.exists()
    assert main(["remove", "digits", "--yes", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in Path(done["kept"]).iterdir()) == ["digits.json", "digits.yaml"]
    assert (Path(done["backup"]) / "backup.json").is_file()
    assert main(["remove", "digits", "--dry-run"]) == 1
    assert "there is nothing of a model 'digits' here" in capsys.readouterr().err
    left = [path for path in home.home.rglob("*digits*") if "removed" not in path.parts and "locks" not in path.parts]
    assert [str(path) for path in left if "retrain-digits" not in path.name and "ingest-digits" not in path.name] == []
    assert home.store.count("letters", "batches") == len(rows(0, 12))
    # Another model of that name begins anew.
    again = define(home)
    add(home, again, rows(0, 12), as_of=day(13), history=True)
    assert retrain(home, again, as_of=day(13)).version.number == 1
