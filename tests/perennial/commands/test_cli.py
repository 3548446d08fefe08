from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import numpy as np
import pandas as pd
import pytest

from perennial import cli
from perennial.cli import COMMANDS, main
from perennial.commands.lifecycle.validate_config import schema_text
from perennial.commands.output import plain, print_json
from perennial.errors import PerennialError
from perennial.operate.servers import free_port
from perennial.settings import PROJECT_ROOT

TOY = """
name: {name}
task: regression
data: {{source: {{csv: rows.csv}}, id: id, time: time, target: y}}
features: {{numeric: [a]}}
"""
SUITE = {
    "name": "toy",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}, "severity": "critical"},
    ],
}
HEAVY = ("prefect", "mlflow", "great_expectations", "evidently", "pandas", "numpy", "pydantic", "sklearn", "optuna")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for models, suites and state."""
    for name in ("models", "expectations", "home"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(tmp_path / name))
    return tmp_path


def write_model(folder: Path, name: str = "toy", text: str = TOY, suite: dict[str, Any] | None = SUITE) -> Path:
    path = folder / "models" / f"{name}.yaml"
    path.write_text(text.format(name=name))
    if suite:
        (folder / "expectations" / f"{name}.json").write_text(json.dumps({**suite, "name": name}))
    return path


@pytest.mark.process
def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy\nfrom perennial.cli import main\n"
        "try:\n    main(['--help'])\nfinally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


@pytest.mark.process
def test_the_installed_command() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("perennial")), "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "perennial, version 0.1.0\n")


class TestCommands:
    @pytest.mark.parametrize("name", sorted(COMMANDS))
    def test_each_name_leads_to_its_command(self, name: str) -> None:
        command = cli.cli.get_command(click.Context(cli.cli), name)
        assert command is not None
        assert command.name == name
        assert command.help

    def test_an_unknown_command_proposes_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["modls"]) == 2
        assert "Did you mean 'models'?" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments", [[], ["models", "--nope"], ["models", "extra"], ["validate-config", "--write", "x"]]
    )
    def test_wrong_usage_is_2(self, arguments: list[str]) -> None:
        assert main(arguments) == 2


class TestEdge:
    def run(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli.cli, "get_command", lambda *_: fail)
        return main(["models"])

    def test_a_refusal_is_one_line_and_1(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(monkeypatch, PerennialError("two\nlines", "mend it")) == 1
        captured = capsys.readouterr()
        assert captured.err == "error: two lines. mend it.\n"
        assert captured.out == ""

    def test_an_interruption_is_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.run(monkeypatch, KeyboardInterrupt()) == 130

    def test_a_bug_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ZeroDivisionError):
            self.run(monkeypatch, ZeroDivisionError())

    def test_a_wrong_setting(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PERENNIAL_PREFECT_PORT", "many")
        assert main(["models"]) == 1
        assert "PERENNIAL_PREFECT_PORT = 'many'" in capsys.readouterr().err

    def test_home_reaches_the_settings(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PERENNIAL_HOME", "elsewhere")  # so that it is put back
        write_model(folder)
        assert main(["--home", str(folder / "given"), "deploy"]) == 1
        assert f"no Prefect server runs for {folder}/given. Start it with: perennial up." in capsys.readouterr().err
        assert os.environ["PERENNIAL_HOME"] == str(folder / "given")


class TestModels:
    def test_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_model(folder)
        assert main(["models", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["name"] == "toy"
        assert row["path"] == str(path)
        assert row["monitor"] is None

    def test_a_table_in_a_pipe_is_not_cut_off(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        name = "a" * 60
        write_model(folder, name)
        assert main(["models"]) == 0
        assert name in capsys.readouterr().out


# Great Expectations imports a module whose dependency uses a name that Python 3.11 deprecates.
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
class TestValidateConfig:
    def test_all_is_well(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_model(folder)
        assert main(["validate-config"]) == 0, capsys.readouterr()
        assert capsys.readouterr().out == f"ok: {path}\n"

    def test_every_problem_of_every_file_is_named(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_model(folder, "unknown", TOY + "colour: red\n")
        write_model(folder, "plugin", TOY + "training: {{estimator: absent.py:build}}\n", suite=None)
        write_model(folder, "fine")
        assert main(["validate-config", "--json"]) == 1
        captured = capsys.readouterr()
        findings = {Path(item["path"]).stem: " ".join(item["problems"]) for item in json.loads(captured.out)}
        assert "colour" in findings["unknown"]
        assert "absent.py" in findings["plugin"]
        assert "plugin.json" in findings["plugin"]
        assert findings["fine"] == ""
        assert captured.err.startswith("error: 3 problems in 2 of 3 definitions.")
        assert captured.err.count("\n") == 1

    def test_a_suite_that_is_wrong(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        unknown = {**SUITE, "expectations": [{"type": "expect_the_best", "kwargs": {}}]}
        write_model(folder, suite=unknown)
        assert main(["validate-config"]) == 1
        assert "expect_the_best" in capsys.readouterr().out

    def test_two_models_of_one_name(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_model(folder)
        (folder / "more").mkdir()
        (folder / "more" / "toy.yaml").write_text(path.read_text())
        monkeypatch.setenv("PERENNIAL_MODELS", f"{folder / 'models'}{os.pathsep}{folder / 'more'}")
        assert main(["validate-config"]) == 1
        assert f"'toy' is taken by {path}" in capsys.readouterr().out

    def test_no_model(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["validate-config"]) == 1
        assert "no model is defined" in capsys.readouterr().err

    def test_the_committed_schema_is_current(self) -> None:
        committed = PROJECT_ROOT / "deployments" / "model.schema.json"
        remedy = "perennial validate-config --schema --write deployments/model.schema.json"
        assert committed.read_text(encoding="utf-8") == schema_text(), f"make it anew: {remedy}"

    def test_the_schema_is_printed_and_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["validate-config", "--schema"]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == "ModelDefinition"
        assert main(["validate-config", "--schema", "--write", str(tmp_path / "schema.json")]) == 0
        assert (tmp_path / "schema.json").read_text(encoding="utf-8") == schema_text()


@pytest.mark.slow
def test_deploy_without_and_with_a_server(
    folder: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flows.monitor", reason="the flows are not there")
    write_model(folder)
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    assert main(["deploy"]) == 1
    assert "Start it with: perennial up." in capsys.readouterr().err
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    assert main(["deploy", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "+ deployment retrain/toy" in told
    assert re.search(r"\d+ of \d+ would change$", told)
    assert main(["deploy"]) == 0
    assert capsys.readouterr().out == "".join(told.splitlines(keepends=True)[:-1])
    assert main(["deploy", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing would change"
    assert main(["deploy", "--pool", "nowhere"]) == 1
    assert "no work pool 'nowhere'. Make it: perennial deploy --pool nowhere --pool-type" in capsys.readouterr().err
    assert main(["deploy", "--json"]) == 0
    assert {change["action"] for change in json.loads(capsys.readouterr().out)} == {"unchanged"}


def test_options_of_deploy_that_need_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(folder)
    assert main(["deploy", "--image", "worker:1"]) == 2
    assert "--pool-type and --image need --pool" in capsys.readouterr().err
    assert main(["deploy", "--pool", "a", "--pool-template", str(folder / "models" / "toy.yaml")]) == 2
    assert "--pool-template needs --pool-type" in capsys.readouterr().err


class Colour(Enum):
    RED = "red"


class Level(int, Enum):
    HIGH = 3


@dataclass(frozen=True)
class Point:
    when: datetime
    x: float


MOMENT = datetime(2013, 4, 1, 12, 30, tzinfo=UTC)


class TestPlain:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (float("nan"), None),
            (float("-inf"), None),
            (1.5, 1.5),
            (True, True),
            (MOMENT, "2013-04-01T12:30:00Z"),
            (datetime(2013, 4, 1), "2013-04-01T00:00:00"),
            (date(2013, 4, 1), "2013-04-01"),
            (timedelta(minutes=1), 60.0),
            (pd.Timestamp(MOMENT), "2013-04-01T12:30:00Z"),
            (pd.NaT, None),
            (pd.NA, None),
            (pd.Timedelta("1h"), 3600.0),
            (np.float64("nan"), None),
            (np.int64(7), 7),
            (np.bool_(True), True),
            (np.array([[1.0, np.nan]]), [[1.0, None]]),
            (np.str_("a"), "a"),
            (Path("a/b"), "a/b"),
            (UUID(int=1), str(UUID(int=1))),
            (Colour.RED, "red"),
            (Level.HIGH, 3),
            (Point(MOMENT, float("nan")), {"when": "2013-04-01T12:30:00Z", "x": None}),
            ({"b", "a"}, ["a", "b"]),
            ((1, [2, {"k": float("inf")}]), [1, [2, {"k": None}]]),
            ({MOMENT: 1}, {"2013-04-01T12:30:00Z": 1}),
        ],
    )
    def test_values(self, value: object, expected: object) -> None:
        found = plain(value)
        assert found == expected
        assert type(found) is type(expected)
        json.dumps(found, allow_nan=False)

    def test_what_has_no_plain_form_is_refused(self) -> None:
        with pytest.raises(TypeError, match="object has no JSON form"):
            plain({"a": object()})

    def test_printed_json_is_read_back(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_json([Point(MOMENT, 1.0), "naïve"])
        out = capsys.readouterr().out
        assert json.loads(out) == [{"when": "2013-04-01T12:30:00Z", "x": 1.0}, "naïve"]
        assert "naïve" in out
