"""The report for people says what the decision says, and copes with columns that would abort a library's."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import World, day, rows

from tasks.check.decision import Decision
from tasks.rows.labels import label_frame
from tasks.steps.monitor import champion_reference, check_rows, reference_sample, run_check
from tasks.steps.report import column_rows, qualities, set_beside, write_report


@pytest.fixture(scope="module")
def decision(trained: World) -> Decision:
    """A real one, but that more training would have given its columns limits, beyond which two of them are."""
    found = run_check(trained.workspace, trained.definition, as_of=day(13))
    reference = champion_reference(trained.workspace.registry, trained.training.version)
    names = [column.name for column in reference.profile.columns if column.name not in ("ink_11", "shade")]
    ratios = {"ink_11": 2.5, "shade": 1.25, **{name: 0.9 - 0.01 * place for place, name in enumerate(names)}}
    moved = [
        {"column": "shade", "ratio": 1.25, "change": 0.08, "shift": 0.07},
        {"column": "ink_11", "ratio": 2.5, "change": 0.01, "shift": None},
    ]
    return replace(found, evidence={**found.evidence, "drift": ratios, "effects": moved})


@pytest.fixture
def report(trained: World, decision: Decision) -> Iterator[tuple[str, dict[str, object]]]:
    path = write_report(trained.workspace, trained.definition, decision)
    assert path is not None
    yield Path(path).read_text(encoding="utf-8"), json.loads(Path(path).with_suffix(".json").read_text())
    for file in trained.workspace.reports_folder("digits").iterdir():
        file.unlink()


def test_each_column_is_flagged_as_the_check_has_it(report: tuple[str, dict[str, object]], decision: Decision) -> None:
    page, told = report
    ratios = decision.evidence["drift"]
    drawn = {item["config"]["column"]: item["value"] for item in told["metrics"] if "column" in item["config"]}
    assert drawn == pytest.approx(ratios)
    moved = {name for name, ratio in ratios.items() if ratio > 1}
    assert re.findall(r'class="moved">([^<]+) \(moved\)<', page) == ["shade", "ink_11"], "by what it does"
    assert page.count("Data drift detected") == len(moved)
    assert page.count("Data drift not detected") == len(ratios) - len(moved)
    assert list(drawn) == list(ratios), "the furthest first"


def test_it_begins_with_who_when_and_what(report: tuple[str, dict[str, object]], decision: Decision) -> None:
    page, _ = report
    assert f"<title>digits version 1: {decision.verdict}, 2024-03-01 00:00 to 2024-03-19 00:00 UTC</title>" in page
    lead = page[page.index("<main") : page.index("</main>")]
    assert page.index("<main") < page.index('id="root_metric')
    assert decision.decision_id in lead
    assert lead.index("What moved") < lead.index("Quality") < lead.index("Distributions")
    for told in ("No truth is known", f"{decision.evidence['rows']:,} rows", "Slices", "3 slices"):
        assert told in lead, told


def test_what_is_missing_is_what_the_check_counted(trained: World, decision: Decision) -> None:
    """Answers are known of a part of the training's rows: the others are padding, and nothing is missing."""
    reference = champion_reference(trained.workspace.registry, trained.training.version)
    told = {row["column"]: row for row in column_rows(reference, decision)}
    window = decision.evidence["window"]["columns"]
    assert {name: row["missing"] for name, row in told.items() if name in window} == {
        name: values[0] for name, values in window.items()
    }
    assert told["(prediction)"]["trained"] is None
    assert told["(prediction)"]["missing"] is None


def test_quality_is_that_of_the_newest_mature_window(trained: World, tmp_path: Path) -> None:
    world, definition = trained.workspace, trained.definition
    sample = reference_sample(world.registry, trained.training.version)
    assert qualities(world, definition, sample, as_of=day(13)) == []
    shutil.copytree(world.home / "tables", tmp_path / "tables")
    copy = replace(world, settings=world.settings.model_copy(update={"tables": str(tmp_path / "tables")}))
    truths = rows(9, 12)[["row", "even"]]
    label_frame(copy.store, definition, truths, as_of=day(13), author="late")
    found = {name: (before, now) for name, before, now in qualities(copy, definition, sample, as_of=day(13))}
    judged = run_check(copy, definition, as_of=day(13)).evidence["loss"]
    assert found["brier"][1] == pytest.approx(judged["mean"])
    assert found["brier"][0] == pytest.approx(judged["at_promotion"], rel=0.3)


def test_empty_and_infinite_columns_are_left_out(trained: World, decision: Decision) -> None:
    registry, version = trained.workspace.registry, trained.training.version
    reference, sample = champion_reference(registry, version), reference_sample(registry, version)
    window = check_rows(trained.workspace, trained.definition, as_of=day(13), limit=100)
    window = window.rename(columns={"score": "_score"})
    broken = window.assign(ink_00=np.nan, ink_01=np.inf).drop(columns="ink_02")
    sides = set_beside(reference, broken, sample, decision)
    assert {"ink_00", "ink_01", "ink_02"} & set(sides.ratios) == set()
    assert {"ink_03", "shade", "(prediction)"} <= set(sides.ratios)
    unlimited = replace(decision, evidence={**decision.evidence, "drift": {}})
    assert set(set_beside(reference, window, sample, unlimited).ratios.values()) == {0.0}
