"""`perennial reviews` as people type it: a day is put up, listed, answered, taken to Label Studio, and told of."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_model
from small_model import World, day, merge

from perennial.cli import main
from perennial.workspace import open_workspace
from tasks.rows.frames import known_labels
from tasks.steps.review.fill import fill_reviews

Run = Callable[..., tuple[int, str, str]]
NOW = day(13).isoformat()


@pytest.fixture
def run(trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line on the trained model, with tables of its own and a definition that asks for reviews."""
    shutil.copytree(trained.workspace.home / "tables", tmp_path / "tables")
    (tmp_path / "models").mkdir()
    raw = merge(small_model.RAW, {"review": {"per_day": 12, "double_share": 0}})
    (tmp_path / "models" / "digits.yaml").write_text(json.dumps(raw))
    monkeypatch.setenv("PERENNIAL_HOME", str(trained.workspace.home))
    monkeypatch.setenv("PERENNIAL_TABLES", str(tmp_path / "tables"))
    monkeypatch.setenv("PERENNIAL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", trained.workspace.settings.expectations)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def put_up(run: Run) -> Run:
    workspace = open_workspace()
    fill_reviews(workspace, workspace.definition("digits"), as_of=day(13))
    return run


def answered(run: Run, *arguments: object) -> Any:
    code, out, err = run("reviews", "digits", *arguments, "--json", "--as-of", NOW)
    assert code == 0, err
    return json.loads(out)


def test_a_person_lists_answers_and_is_told(put_up: Run) -> None:
    code, out, _ = put_up("reviews", "digits", "--by", "anna", "--limit", 3, "--as-of", NOW)
    assert code == 0
    assert "answer with '0' or '1': reviews digits answer ID TRUTH" in out
    assert "12 rows wait for anna; 3 are shown" in out
    name = answered(put_up, "list", "--by", "anna")["items"][0]["id"]
    code, out, _ = put_up(
        "reviews", "digits", "answer", name, "1", "--by", "anna", "--seconds", 2, "--note", "clear", "--as-of", NOW
    )
    assert (code, out) == (0, f"written down; 1 labels; {name} is settled\n")
    labels = known_labels(open_workspace().store, "digits", as_of=day(14), ids=pd.Series([name]))
    assert labels["truth"].tolist() == [1.0]
    assert answered(put_up, "list", "--by", "ben")["waiting"] == 11
    code, out, _ = put_up(
        "reviews", "digits", "answer", name, "--undo", "--by", "anna", "--as-of", day(13.1).isoformat()
    )
    assert out == f"written down; 1 labels; {name} is open\n"
    code, out, _ = put_up("reviews", "digits", "people", "--as-of", day(13.2).isoformat())
    assert "anna" in out


def test_two_people_are_compared(put_up: Run) -> None:
    for place, item in enumerate(answered(put_up, "list", "--by", "anna")["items"]):
        for who in ("anna", "ben"):
            truth = "1" if who == "anna" or place % 4 else "0"
            answered(put_up, "answer", item["id"], truth, "--by", who, "--seconds", 3)
    code, out, _ = put_up("reviews", "digits", "people", "--as-of", day(13.2).isoformat())
    assert code == 0
    assert "anna and ben agree on 75% of 12 rows, Cohen's kappa 0.000; most often '1' beside '0'" in out
    assert "Krippendorff's alpha is -" in out


def test_label_studio_gets_a_file_and_gives_one_back(put_up: Run, tmp_path: Path) -> None:
    code, out, _ = put_up("reviews", "digits", "export", tmp_path / "tasks.json", "--as-of", NOW)
    assert (code, out.startswith("12 tasks in ")) == (0, True)
    assert (tmp_path / "tasks.xml").read_text().startswith("<View>")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    result = [{"from_name": "truth", "to_name": "row", "type": "choices", "value": {"choices": ["0"]}}]
    done = {"id": 5, "completed_by": 7, "result": result, "was_cancelled": False, "lead_time": 2.0}
    (tmp_path / "export.json").write_text(json.dumps([tasks[0] | {"id": 1, "annotations": [done]}]))
    code, out, _ = put_up(
        "reviews", "digits", "import", tmp_path / "export.json", "--author", "7=cleo", "--as-of", day(13.1).isoformat()
    )
    assert (code, out) == (0, "1 answers of cleo, 0 known already, 1 labels\n")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("answer", "r0000", "1"), 1, "'r0000' was never put up for review in digits"),
        (("answer", "r0000", "2"), 1, "even: '2' is neither '0' nor '1' (positive)"),
        (("answer", "r0000"), 1, "the answer to r0000 says 0 things"),
        (("answer", "r0000", "1", "--skip"), 1, "the answer to r0000 says 2 things"),
        (("answer", "r0000", "--skip", "--gold"), 2, "--gold needs a TRUTH"),
        (("answer",), 2, "write: reviews MODEL answer ID [TRUTH]"),
        (("list", "r0000"), 2, "write: reviews MODEL list, without more"),
        (("export", "tasks.csv"), 1, "tasks.csv is no file that can be written. End it in .json"),
        (("import", "none.json"), 1, "none.json can't be read as JSON"),
        (("import", "none.json", "--author", "anna"), 2, "write --author NUMBER=NAME"),
    ],
)
def test_what_cannot_be_is_refused_by_name(put_up: Run, arguments: tuple[str, ...], code: int, problem: str) -> None:
    found, _, err = put_up("reviews", "digits", *arguments, "--by", "anna")
    assert (found, problem in err) == (code, True), err


@pytest.mark.slow
def test_the_flow_puts_a_day_up(run: Run, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    done = answered(run, "fill")
    assert sum(done["put_up"].values()) == 12
    assert answered(run, "fill")["told"] == "those of 2024-03-19 were put up before"
