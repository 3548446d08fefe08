"""The Python API does what the commands do, shows itself, and costs nothing before it runs a flow."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_model
from small_model import World

import perennial
from perennial.errors import DataError, NotFoundError
from perennial.interactive.shown import Result, Told
from perennial.settings import PROJECT_ROOT
from tasks.steps.review.fill import fill_reviews


@pytest.mark.process
def test_opening_costs_no_prefect(tmp_path: Path) -> None:
    program = (
        "import sys, perennial\n"
        f"home = perennial.open({str(tmp_path)!r})\n"
        "home.models(); home.model('flights'); home.model('flights').definition\n"
        "heavy = {'prefect', 'mlflow', 'great_expectations', 'evidently', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_defined(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"Did you mean flights\?"):
        perennial.open(tmp_path).model("flihgts")


def test_results_show_themselves() -> None:
    found = Result("two <rows>", {"rows": 2, "reasons": ["a", "b"], "none": None})
    assert found.rows == found["rows"] == 2
    assert dict(found) == {"rows": 2, "reasons": ["a", "b"], "none": None}
    assert repr(found) == "two <rows>\n  rows: 2\n  reasons: a; b\n  none: -"
    assert "two &lt;rows&gt;" in found._repr_html_()
    with pytest.raises(AttributeError, match="Result has no other; it has rows, reasons, none"):
        _ = found.other
    assert Told("t", {}, "a < b")._repr_html_() == "<pre>a &lt; b</pre>"


def test_what_was_written_down(trained: World) -> None:
    settings = trained.workspace.settings
    home = perennial.open(settings.home, models=settings.models, expectations=settings.expectations)
    model = home.model("digits")
    history = model.history()
    assert list(history["version"]) == [trained.training.version.number]
    assert set(history.columns) >= {"at", "by", "reason", "action", "previous"}
    assert model.ledger().empty
    assert model.quality().empty
    assert "version 1 since" in model._repr_html_()
    assert "digits" in set(home.models()["model"])


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_url: str) -> None:
    """Each cell as Jupyter runs it: its last expression is shown."""
    for name in ("home", "models", "expectations"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"PERENNIAL_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    cells = json.loads((PROJECT_ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    shown: list[Any] = []
    for cell in cells:
        if cell["cell_type"] == "code":
            shown.append(_run("".join(cell["source"]), names))
    assert names["trained"].gate == "promote"
    assert len(names["scores"]) == len(names["later"])
    assert names["decision"].verdict in ("hold", "recalibrate", "retrain")
    assert all(hasattr(value, "_repr_html_") for value in shown if value is not None)
    quality = shown[-1]
    assert isinstance(quality, pd.DataFrame)
    assert int(quality["labelled"].sum()) > 0


def _run(text: str, names: dict[str, Any]) -> Any:
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "notebook", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "notebook", "eval"), names)


def test_reviews_are_asked_and_answered(trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = trained.workspace.settings
    shutil.copytree(settings.home_path / "tables", tmp_path / "tables")
    raw = small_model.merge(small_model.RAW, {"review": {"per_day": 5, "double_share": 0, "hide_score": True}})
    (tmp_path / "digits.yaml").write_text(json.dumps(raw))
    monkeypatch.setenv("PERENNIAL_TABLES", str(tmp_path / "tables"))
    model = perennial.open(settings.home, models=tmp_path, expectations=settings.expectations).model("digits")
    at = small_model.day(13)
    assert model.reviews("anna", as_of=at).empty
    fill_reviews(model.workspace, model.definition, as_of=at)
    asked = model.reviews("anna", as_of=at)
    assert len(asked) == 5
    assert list(asked.columns) == ["id", "time", "again", *model.definition.features.columns]
    done = model.answer(asked["id"][0], 1, by="anna", seconds=2, as_of=at)
    assert (done.written, done.labels) == (1, 1)
    assert model.answer(asked["id"][1], by="anna", skip=True, as_of=at).labels == 0
    assert len(model.reviews("anna", as_of=at)) == 3
    with pytest.raises(DataError, match="says 0 things"):
        model.answer(asked["id"][2], by="anna", as_of=at)
