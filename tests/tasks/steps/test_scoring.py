"""Rows are scored once, files whole; what was predicted is on record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from described_world import picture
from small_model import World, add, day, define, rows

from perennial.errors import DataError, NotFoundError
from perennial.model.answers.noticed import Noticed
from perennial.workspace import Workspace
from tasks.learning.fitting import fit
from tasks.steps import score as scoring
from tasks.steps.score import (
    load_version,
    predictions_between,
    require_champion,
    score_file,
    score_rows,
    score_unscored,
    unscored_rows,
)


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    """The trained model with tables of its own."""
    settings = trained.workspace.settings.model_copy(update={"tables": str(tmp_path / "tables")})
    return replace(trained, workspace=Workspace(settings))


@pytest.fixture
def pipeline(trained: World) -> Any:
    return load_version(trained.workspace.registry, trained.training.version, trained.definition)


def test_no_champion(workspace: Workspace, trained: World) -> None:
    with pytest.raises(NotFoundError, match=r"digits has no champion yet. Train one: `perennial retrain digits`"):
        require_champion(workspace.registry, "digits")
    assert require_champion(trained.workspace.registry, "digits").number == 1


def test_a_version_is_loaded_once(trained: World, pipeline: Any) -> None:
    assert load_version(trained.workspace.registry, trained.training.version, trained.definition) is pipeline


def test_each_row_is_scored_exactly_once(world: World, pipeline: Any) -> None:
    store, definition = world.workspace.store, world.definition

    def score(at: float) -> int:
        return score_unscored(store, definition, pipeline, version=1, as_of=day(at))

    assert score(1) == 0
    add(world.workspace, definition, rows(0, 3), as_of=day(3))
    assert score(3) == len(rows(0, 3))
    assert score(3) == score(3.5) == 0
    add(world.workspace, definition, rows(2, 5), as_of=day(5))
    assert score(5) == len(rows(3, 5))
    logged = store.frame("digits", "predictions")
    assert sorted(logged["id"]) == rows(0, 5)["row"].tolist()
    assert logged["score"].between(0, 1).all()
    assert (set(logged["version"]), set(logged["origin"])) == ({1}, {"batch"})
    expected, raw = score_rows(pipeline, definition, rows(0, 5))
    np.testing.assert_allclose(logged.sort_values("id")["score"], expected, rtol=1e-12)
    np.testing.assert_array_equal(expected, raw)
    assert len(unscored_rows(store, definition, start=None, as_of=day(5))) == 0


def test_the_first_time_old_rows_are_history(world: World, pipeline: Any) -> None:
    add(world.workspace, world.definition, rows(0, 10), as_of=day(10), history=True)
    assert score_unscored(world.workspace.store, world.definition, pipeline, version=1, as_of=day(10)) == 3 * 72


def test_late_rows_are_scored_too(world: World, pipeline: Any) -> None:
    frame = rows(0, 3)
    late = frame["row"].isin(frame["row"].sample(20, random_state=0))
    add(world.workspace, world.definition, frame[~late], as_of=day(3))
    score_unscored(world.workspace.store, world.definition, pipeline, version=1, as_of=day(3))
    add(world.workspace, world.definition, frame[late], as_of=day(3.2))
    assert score_unscored(world.workspace.store, world.definition, pipeline, version=1, as_of=day(3.5)) == 20


def test_of_an_id_predicted_twice_the_first_counts(world: World, pipeline: Any) -> None:
    store, definition = world.workspace.store, world.definition
    add(world.workspace, definition, rows(0, 1), as_of=day(1))
    table = unscored_rows(store, definition, start=None, as_of=day(1))
    for number, at in enumerate((2, 1)):
        score = np.full(len(table), float(number))
        scoring.log_predictions(
            store, "digits", table, score, raw=score, version=1, as_of=day(at), origin="test"
        )  # fmt: skip
    found = predictions_between(store, "digits", start=None, end=day(1), known_at=day(3))
    assert len(found) == 72
    assert set(found["score"]) == {1.0}


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("given", ["in.parquet", "in.csv", "in.jsonl"])
def test_files(
    kind: str, given: str, trained: World, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 100)
    frame = rows(0, 4).drop(columns="even").assign(row=[f"{number:03d}" for number in range(288)])
    source, target = tmp_path / given, tmp_path / f"out.{kind}"
    if given == "in.csv":
        frame.to_csv(source, index=False)
    elif given == "in.jsonl":
        frame.to_json(source, orient="records", lines=True, date_format="iso")
    else:
        frame.to_parquet(source)
    chunks = 0
    for _ in score_file(pipeline, trained.definition, source, target, version=7):
        chunks += 1
        assert not target.exists()
    assert chunks == 3
    made = pd.read_parquet(target) if kind == "parquet" else pd.read_csv(target, dtype={"row": "str"})
    assert made["row"].tolist() == frame["row"].tolist()
    assert set(made["version"]) == {7}
    expected, _ = score_rows(pipeline, trained.definition, frame)
    np.testing.assert_allclose(made["score"], expected, rtol=1e-9)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([given, target.name])


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        (
            "ink_11",
            "much",
            r"in the rows from 200 on \(counted anew\): column 'ink_11', row 50 .*'much' is not a number",
        ),
        ("when", "soon", r"in the rows from 200 on \(counted anew\): column when: row 50 has 'soon'"),
        ("row", "", r"in the rows from 200 on \(counted anew\): column row: row 50 has no id"),
    ],
)
def test_a_bad_cell_far_down_is_found(
    column: str, cell: str, told: str, trained: World, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_ROWS", 100)
    frame = rows(0, 4).drop(columns="even").astype({"ink_11": object, "when": "str"})
    frame.loc[250, column] = cell
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    frame.to_csv(source, index=False)
    with pytest.raises(DataError, match=told):
        list(score_file(pipeline, trained.definition, source, target, version=7))
    assert not target.exists()


@pytest.mark.parametrize(("name", "columns"), [("score", ["score", "_score", "version"]),
                                               ("version", ["version", "score", "_version"]),
                                               ("_score", ["_score", "score", "version"])])  # fmt: skip
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_id_keeps_its_name_beside_our_columns(
    name: str, columns: list[str], ending: str, trained: World, pipeline: Any, tmp_path: Path
) -> None:
    definition = trained.definition.model_copy(update={"data": trained.definition.data.model_copy(update={"id": name})})
    frame = rows(0, 1).drop(columns="even").rename(columns={"row": name})
    frame.to_parquet(tmp_path / "in.parquet")
    target = tmp_path / f"out.{ending}"
    list(score_file(pipeline, definition, tmp_path / "in.parquet", target, version=7))
    made = pd.read_parquet(target) if ending == "parquet" else pd.read_csv(target)
    assert list(made.columns) == columns
    assert made[name].tolist() == frame[name].tolist()


def test_ids_of_several_columns_come_back_as_they_went(trained: World, pipeline: Any, tmp_path: Path) -> None:
    definition = trained.definition.model_copy(
        update={"data": trained.definition.data.model_copy(update={"id": ("shop", "day")})}
    )
    frame = rows(0, 1).drop(columns="even")
    frame = frame.assign(shop=["a|b", "c\\", "007"] * 24, day=[float(number) for number in range(72)])
    frame.to_csv(tmp_path / "in.csv", index=False)
    found = list(score_file(pipeline, definition, tmp_path / "in.csv", tmp_path / "out.parquet", version=7))
    made = pd.read_parquet(tmp_path / "out.parquet")
    assert list(made.columns) == ["shop", "day", "score", "version"]
    assert made["shop"].tolist() == frame["shop"].tolist()
    assert made["day"].tolist() == [str(number) for number in range(72)]
    assert found[0][0]["_id"][0] == "a\\|b|0"


def test_stored_images_that_can_t_be_read_are_told(workspace: Workspace, pipeline: Any) -> None:
    definition = define(workspace, features={"image": ["photo", "other"]})
    frame = rows(0, 1).assign(photo=[picture(number) for number in range(72)], other=picture(0))
    frame["photo"] = frame["photo"].mask(frame.index == 3).where(frame.index < 70, b"no picture")
    add(workspace, definition, frame, as_of=day(1))
    fitted = fit(definition, rows(1, 3).assign(photo=picture(1), other=picture(2)), {}, 0)
    noticed = Noticed(fitted.pipeline)
    scored = score_unscored(
        workspace.store, definition, fitted.pipeline, version=1, as_of=day(1), noticed=noticed
    )  # fmt: skip
    assert scored == 72
    assert noticed.warnings() == [{"problem": "unreadable image", "column": "photo", "rows": 2}]


def test_a_chunk_that_can_t_be_recorded_ends_the_scoring(trained: World, pipeline: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows(0, 4).drop(columns="even").to_parquet(source)

    def record(rows: pd.DataFrame, score: np.ndarray, raw: np.ndarray) -> None:
        raise DataError("the log is full", "Make room")

    with pytest.raises(DataError, match="the log is full"):
        list(score_file(pipeline, trained.definition, source, target, version=7, record=record))
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_a_broken_file_leaves_no_target(trained: World, pipeline: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"

    def refused(problem: str, source: Path = source, target: Path = target) -> None:
        with pytest.raises(DataError, match=problem):
            list(score_file(pipeline, trained.definition, source, target, version=1))
        assert not target.exists()
        assert not list(tmp_path.glob(".*.part"))

    refused(r"in\.parquet does not exist. Check the path")
    source.write_bytes(b"broken")
    refused(r"in\.parquet can't be read: ")
    rows(0, 1).drop(columns="shade").to_parquet(source)
    refused(r"the columns shade are missing")
    refused(r"out\.xlsx is no file that can be written. End it in", target=tmp_path / "out.xlsx")
    refused(r"the folder .*none does not exist. Make it first", target=tmp_path / "none" / "out.csv")
