"""An upgrade is looked at before it is made: a real environment of a lock, in which a champion answers otherwise."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from small_model import add, day, define, retrain, rows

from perennial.cli import main
from perennial.errors import DataError
from perennial.workspace import Workspace
from tasks.upgrade.comparison import compare, told
from tasks.upgrade.environment import FOLDER, read_lock

# A team's model whose answers depend on a package: of the version of the wheel below, it says something else.
OWN = """
import iniconfig
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


class Shifted(TransformerMixin, BaseEstimator):
    def fit(self, values, target=None):
        self.fitted_ = True
        return self

    def transform(self, values):
        return values + getattr(iniconfig, "SHIFT", 0.0)


def build(definition, parameters, seed):
    numbers = make_column_transformer(("passthrough", make_column_selector(dtype_include="number")))
    return make_pipeline(numbers, Shifted(), LogisticRegression(max_iter=500))
"""


def make_wheel(folder: Path, name: str, version: str, source: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.mark.slow
@pytest.mark.process
def test_a_lock_that_changes_answers_is_told_with_how_many(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With hashes, from a folder of wheels; the registry is as it was; what can't be installed is an error."""
    settings = workspace.settings
    (settings.model_folders[0] / "churn_model.py").write_text(OWN)
    definition = define(
        workspace, features={"categorical": []}, gate={"slices": []},
        training={"estimator": "churn_model.py:build", "trusted_types": ["churn_model.Shifted"]},
    )  # fmt: skip
    add(workspace, definition, rows(0, 16), as_of=day(16), history=True)
    retrain(workspace, definition, as_of=day(12))
    for name, value in (("HOME", settings.home), ("MODELS", settings.models), ("EXPECTATIONS", settings.expectations)):
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    wheel = make_wheel(tmp_path, "iniconfig", "99.0", "SHIFT = 3.0\n")
    lock = tmp_path / "new.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"--no-index\n--find-links .\n# made for this\niniconfig==99.0 \\\n    --hash=sha256:{digest}\n")
    at = ("--as-of", day(16).isoformat(), "--json")
    before = workspace.registry.history("digits")
    assert main(["upgrade-check", str(lock), *at]) == 1
    found = json.loads(capsys.readouterr().out)
    (model,) = found["models"]
    assert found["packages"]["iniconfig"][1] == "99.0"
    golden, fitted = model["golden"], model["fit"]
    assert golden["problem"] == fitted["problem"] == model["problem"] == ""
    assert golden["rows"] > 50
    assert golden["changed"] > 0.9 * golden["rows"]
    assert 0 < golden["flips"] < golden["rows"]
    assert golden["largest"] > 0.1
    assert fitted["largest"] < golden["largest"], "a model that is fitted with the shift learns it"
    assert model["windows"] == 4
    assert model["loss"][0] == "brier"
    assert workspace.registry.history("digits") == before
    assert len(list((settings.home_path / FOLDER).glob("*/complete.json"))) == 1
    missing = tmp_path / "missing.lock"
    missing.write_text("--no-index\n--find-links .\niniconfig==98.0\n")
    assert main(["upgrade-check", str(missing), "--quick"]) == 1
    assert "can't install the lock's packages" in capsys.readouterr().err


def test_what_is_here_in_its_version_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(workspace.home))
    monkeypatch.setenv("PERENNIAL_MODELS", workspace.settings.models)
    monkeypatch.setenv("PERENNIAL_EXPECTATIONS", workspace.settings.expectations)
    lock = tmp_path / "here.lock"
    lock.write_text(f"numpy=={np.__version__}\nabsent==1.0 ; sys_platform == 'nowhere'\n")
    assert main(["upgrade-check", str(lock)]) == 1
    assert "no model has a champion yet" in capsys.readouterr().err
    assert read_lock(lock).other() == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("numpy>=2\n", "is not pinned"),
        ("numpy==2.*\n", "is not pinned"),
        ("numpy\n", "is not pinned"),
        ("what is this\n", "is no requirement"),
        ("# nothing\n", "names no package"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_lock(path)


def test_a_lock_is_read_with_its_hashes_and_its_paths(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("-f wheels\n\nA_b==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nc==2  # why\n")
    lock = read_lock(path)
    assert lock.options == (f"--find-links {tmp_path / 'wheels'}",)
    assert lock.pins["a-b"].lines.count("--hash") == 2
    assert (lock.pins["a-b"].version, lock.pins["c"].version) == ("1.0", "2")
    assert lock.other() == {"a-b": ("none", "1.0"), "c": ("none", "2")}


def scores(*values: float | list[float]) -> dict[str, list[float | list[float]]]:
    return {"scores": list(values)}


def test_differences_are_counted_beyond_the_tolerance_and_classes_by_the_threshold() -> None:
    found = compare(
        "m", 1, {"golden": scores(0.1, 0.49, 0.9)}, {"golden": scores(0.1 + 1e-9, 0.51, 0.8)},
        threshold=0.5, tolerance=1e-6,
    )  # fmt: skip
    assert (found.golden.rows, found.golden.changed, found.golden.flips) == (3, 2, 1)
    assert found.golden.largest == pytest.approx(0.1)
    assert not found.alike
    assert told(found)[0] == "golden rows: 2 of 3 change, by up to 0.1, 1 change their class"
    assert told(found)[1] == "a fit anew: not looked at"
    assert "the API would refuse" in told(found)[-1]


def test_many_classes_flip_where_the_likeliest_is_another() -> None:
    now, new = scores([0.5, 0.3, 0.2], [0.1, 0.8, 0.1]), scores([0.3, 0.5, 0.2], [0.1, 0.7, 0.2])
    found = compare("m", 1, {"golden": now}, {"golden": new}, threshold=0.5, tolerance=1e-6)
    assert (found.golden.changed, found.golden.flips) == (2, 1)


def test_values_have_no_class_and_their_own_scale() -> None:
    found = compare("m", 1, {"fit": scores(1e6, 5.0)}, {"fit": scores(1e6 + 0.5, 5.0)}, threshold=None, tolerance=1e-6)
    assert (found.fit.changed, found.fit.flips) == (0, None)
    nan = compare("m", 1, {"fit": scores(1.0)}, {"fit": scores(float("nan"))}, threshold=None, tolerance=1e-6)
    assert nan.fit.changed == 1


def test_a_failure_is_a_change_and_says_where() -> None:
    new = {"golden": {"problem": "ImportError: gone"}, "backtest": {"problem": "DataError: short"}}
    backtest = {"loss": 0.1, "name": "brier", "windows": 4, "verdicts": ["hold"]}
    found = compare("m", 1, {"golden": scores(0.1), "backtest": backtest}, new, threshold=0.5, tolerance=0)
    assert not found.alike
    assert told(found)[0] == "golden rows: with the new lock: ImportError: gone"
    assert "backtest: none, with the new lock: DataError: short" in told(found)
    here = compare("m", 1, {"golden": {"problem": "x"}}, {"golden": scores(0.1)}, threshold=0.5, tolerance=0)
    assert here.golden.problem == "here, already: x"


def test_the_backtest_tells_loss_and_verdicts() -> None:
    def side(loss: float, *verdicts: str) -> dict[str, object]:
        return {"backtest": {"loss": loss, "name": "brier", "windows": 3, "verdicts": list(verdicts)}}

    found = compare("m", 1, side(0.1, "hold", "hold"), side(0.11, "hold", "retrain"), threshold=0.5, tolerance=0)
    assert (found.verdicts, found.alike) == (1, False)
    assert "backtest of 3 windows: brier 0.1 now, 0.11 then (+10.00%); 1 verdicts differ" in told(found)
    assert compare("m", 1, side(0.1, "hold"), side(0.1, "hold"), threshold=0.5, tolerance=0).alike
