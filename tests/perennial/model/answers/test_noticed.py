"""What a model could not take is counted over chunks and said in a line."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from small_model import World, rows

import perennial
from perennial.model.answers.noticed import Noticed, say
from tasks.steps.score import load_version


@pytest.fixture
def noticed(trained: World) -> Noticed:
    return Noticed(load_version(trained.workspace.registry, trained.training.version, trained.definition))


@pytest.fixture
def frame() -> pd.DataFrame:
    found = rows(0, 1).drop(columns="even")
    found.loc[[3, 5], "shade"] = "Dark"
    found.loc[7, "shade"] = None
    return found


def test_categories_that_training_never_saw(noticed: Noticed, frame: pd.DataFrame) -> None:
    for part in (frame.head(4), frame.tail(68)):
        noticed.see(part)
    (found,) = noticed.warnings()
    assert found == {"problem": "unknown category", "column": "shade", "value": "Dark", "rows": 2, "nearest": "dark"}
    assert say(found) == "unknown category in column shade: 'Dark' (2 rows); the nearest known: 'dark'"
    assert say(found | {"nearest": None}) == "unknown category in column shade: 'Dark' (2 rows)"


def test_images_that_can_t_be_read(noticed: Noticed) -> None:
    for count in (0, 1):
        noticed.lose("photo", count)
        noticed.lose("scan", 0)
    (found,) = noticed.warnings()
    assert say(found) == "images that can't be read in column photo (1 row): scored as missing ones"


def test_a_notebook_is_warned(
    trained: World, frame: pd.DataFrame, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_PREFECT_API_URL", prefect_url)
    settings = trained.workspace.settings
    shutil.copytree(settings.home_path / "tables", tmp_path / "tables")  # others look at the model's own
    monkeypatch.setenv("PERENNIAL_TABLES", str(tmp_path / "tables"))
    model = perennial.open(
        settings.home, models=settings.models, expectations=settings.expectations
    ).model("digits")  # fmt: skip
    with pytest.warns(UserWarning, match=r"^digits: unknown category in column shade: 'Dark' \(2 rows\)"):
        model.score(frame.assign(row=frame["row"] + "-new"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.score(frame.assign(shade="dark", row=frame["row"] + "-newer"))
