"""What is wrong with a definition, a suite or a file is told before anything is kept or any server runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_model import SUITE, day, define, rows, suite

from perennial.cli import main
from perennial.definition import ModelDefinition
from perennial.workspace import Workspace
from tasks.rehearsal.rehearse import Line, rehearse
from tasks.validation.fitness import unfit_expectations
from tasks.validation.suites import load_suite


def lines(workspace: Workspace, definition: ModelDefinition, path: Path) -> list[Line]:
    return list(rehearse(definition, suite(workspace), path, as_of=day(99)))


def problems(workspace: Workspace, definition: ModelDefinition, frame: pd.DataFrame, tmp_path: Path) -> list[str]:
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    return [f"{line.topic}: {line.text}" for line in lines(workspace, definition, path) if line.problem]


def write_suite(workspace: Workspace, *items: dict[str, Any]) -> None:
    path = workspace.settings.expectation_folders[0] / "digits.json"
    made = [{"severity": "critical", **item} for item in items]
    path.write_text(json.dumps({"name": "digits", "expectations": made}))


@pytest.mark.process
def test_a_sound_file(workspace: Workspace, tmp_path: Path) -> None:
    definition = define(workspace)
    path = tmp_path / "rows.csv"
    rows(0, 10).assign(secret=1).to_csv(path, index=False)
    found = lines(workspace, definition, path)
    assert [line for line in found if line.problem] == []
    told = {line.topic: line.text for line in found}
    assert list(told) == ["columns", "truth", "ids", "times", "kinds", "suite", "fit", "load"]
    assert told["columns"] == "not read: secret"
    assert told["truth"] == "positive is '1': the model answers its probability"
    assert told["ids"] == "row names every row once, such as 'r0000'"
    assert told["times"].startswith("from 2024-01-01 00:00 to 2024-02-29 22:00")
    assert told["suite"] == "passed: 4 of 4 expectations met"
    assert "linear on 720 rows" in told["fit"]
    assert told["load"] == "another process loads it and answers 200 rows alike, the small requests by linear"
    assert not (workspace.home / "tables").exists()


@pytest.mark.process
def test_windows_with_too_few_rows_to_watch_are_told(workspace: Workspace, tmp_path: Path) -> None:
    definition = define(workspace, monitoring={"window": "6d", "minimum_rows": 100})
    path = tmp_path / "rows.parquet"
    rows(0, 10).to_parquet(path)
    told = [line.text for line in lines(workspace, definition, path) if line.topic == "times"]
    assert told[1].startswith("about 72 rows in a window of 6d, and monitoring.minimum_rows = 100: no check would")
    rows(0, 2).to_parquet(path)  # too short to say
    assert len([line for line in lines(workspace, definition, path) if line.topic == "times"]) == 1


@pytest.mark.process
def test_what_is_wrong_with_rows(workspace: Workspace, tmp_path: Path) -> None:
    definition = define(workspace)
    said = np.where(np.arange(216) % 20 == 0, "maybe", ["yes", "no"] * 108)
    frame = rows(0, 3).astype({"ink_22": object}).assign(even=said)
    frame.loc[:99, "ink_22"] = "broken"
    frame["ink_22"] = frame["ink_22"].astype(str)
    found = " | ".join(problems(workspace, definition, frame, tmp_path))
    assert "100 of 216 rows can't be read and go to quarantine; so the batch is refused" in found
    assert "ink_22: no finite number (100 rows, such as ink_22: 'broken' is no finite number)" in found
    assert "Whether 'maybe' is a class is not clear" in found
    late = rows(0, 3).assign(when=lambda made: made["when"] + pd.Timedelta(3650, unit="D"))
    assert "216 rows are dated after now" in problems(workspace, definition, late, tmp_path)[0]
    customers = rows(0, 3).assign(row=["c1", "c2", "c3"] * 72)
    (text,) = problems(workspace, definition, customers, tmp_path)
    assert "row names no row: 216 rows contradict another" in text
    assert "`data: {id: [row, when]}`" in text
    (text,) = problems(workspace, definition, rows(0, 3).drop(columns="shade"), tmp_path)
    assert "the columns shade are missing" in text
    empty = rows(0, 3).assign(ink_11=50.0, ink_12=np.nan)
    found = " | ".join(problems(workspace, definition, empty, tmp_path))
    assert "kinds: ink_12: every value is missing" in found
    assert "suite: refused: 3 of 4 expectations met" in found
    (line,) = rehearse(definition, suite(workspace), tmp_path / "absent.csv", as_of=day(9))
    assert line.problem
    assert "absent.csv does not exist" in line.text


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"type": "expect_column_values_to_be_between", "kwargs": {"column": "shade", "min_value": 1}},
         "column 'shade' is held as text, and text is in no range of numbers"),
        ({"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "shade", "type_": "int"}},
         "column 'shade' is held as text, never as int. Say str"),
        ({"type": "expect_column_values_to_be_in_type_list", "kwargs": {"column": "ink_11", "type_list": ["int64"]}},
         "column 'ink_11' is held as floats, never as int64. Say float64"),
        ({"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "ink_11", "value_set": ["1", "2"]}},
         "its value_set ['1', '2'] has no number. Write numbers without quotes"),
        ({"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "note", "value_set": [1, 2]}},
         "its value_set [1, 2] has numbers only. Write them in quotes"),
        ({"type": "expect_column_values_to_match_regex", "kwargs": {"column": "ink_11", "regex": "^1"}},
         "column 'ink_11' is held as floats, which has no pattern"),
        ({"type": "expect_column_mean_to_be_between", "kwargs": {"column": "shade", "max_value": 3}},
         "text is in no range of numbers"),
    ],
)  # fmt: skip
def test_expectations_that_can_never_be_met(workspace: Workspace, item: dict[str, Any], told: str) -> None:
    definition = define(workspace, features={"text": ["note"]})
    present = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": item["kwargs"]["column"]}}
    write_suite(workspace, present, item)
    found = unfit_expectations(suite(workspace), definition)
    assert len(found) == 1
    assert told in found[0]
    assert f"expectations[1] ({item['type']})" in found[0]


def test_shipped_and_fitting_suites_are_fit(workspace: Workspace) -> None:
    definition = define(workspace)
    write_suite(
        workspace, *SUITE["expectations"],
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "shade", "value_set": [1, 2.0, "dark"]}},
        {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "shade", "type_": "str"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "when", "min_value": "2000-01-01T00:00"}},
    )  # fmt: skip
    path = workspace.settings.expectation_folders[0] / "digits.json"
    text = json.loads(path.read_text())
    text["expectations"].append(
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "when"}, "severity": "critical"}
    )
    path.write_text(json.dumps(text))
    assert unfit_expectations(load_suite(path), definition) == []


OWN = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.preprocessing import FunctionTransformer

def ratio(frame):
    return frame.fillna(0) / 16

def build(definition, parameters, seed):
    numbers = make_column_transformer((FunctionTransformer(ratio), make_column_selector(dtype_include="number")))
    return make_pipeline(numbers, LogisticRegression())

def wrong(definition):
    return LogisticRegression()
"""


@pytest.mark.process
def test_an_own_estimator_s_signature_and_whether_others_can_load_it(workspace: Workspace, tmp_path: Path) -> None:
    folder = workspace.settings.model_folders[0]
    (folder / "own.py").write_text(OWN)
    frame = rows(0, 10)
    wrong = define(workspace, training={"estimator": "own.py:wrong"})
    (text,) = problems(workspace, wrong, frame, tmp_path)
    assert text.startswith("fit: training.estimator own.py:wrong: wrong() takes 1 positional argument but 3 were given")
    assert "Define it as function(definition, parameters, seed)" in text
    plain = define(workspace, training={"estimator": "own.py:build"})
    (text,) = problems(workspace, plain, frame, tmp_path)
    assert text.startswith("load: the model holds types that nobody trusts: ")
    assert "`training: {trusted_types: [own.ratio]}`" in text
    pickled = define(workspace, training={"estimator": "own.py:build", "allow_pickle": True})
    assert problems(workspace, pickled, frame, tmp_path) == []


@pytest.mark.process
def test_the_command_needs_no_server(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    define(workspace)
    settings = workspace.settings
    monkeypatch.setenv("PERENNIAL_HOME", str(settings.home))
    monkeypatch.setenv("PERENNIAL_MODELS", settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", settings.expectations)
    # Nothing answers there: whoever asks for a server fails.
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", "http://127.0.0.1:1/api")
    path = tmp_path / "rows.parquet"
    rows(0, 10).to_parquet(path)
    assert main(["validate-config", "digits", "--data", str(path)]) == 0
    out = capsys.readouterr().out
    assert "ok      load     another process loads it" in out
    rows(0, 10).assign(ink_11=50.0).to_parquet(path)
    assert main(["validate-config", "digits", "--data", str(path)]) == 1
    captured = capsys.readouterr()
    assert "PROBLEM suite    ink_11: expected values to be between 0 and 16" in captured.out
    assert "as digits reads it. Correct the file, the definition or the suite" in captured.err
    for arguments, told in (
        (["ingest", "digits", "absent.csv"], "absent.csv does not exist"),
        (["ingest", "digit"], "Did you mean digits?"),
        (["label", "digits", "absent.csv"], "absent.csv does not exist"),
        (["score", "digits", str(path), str(tmp_path / "out.csv")], "digits has no champion yet"),
        (["check", "digits"], "digits has no champion yet"),
        (["retrain", "digits"], "has no ingested rows"),
        (["quarantine", "digits", "discard", "--reason", "x"], "discard needs --id"),
    ):
        assert main(arguments) in (1, 2)
        assert told in capsys.readouterr().err, arguments
