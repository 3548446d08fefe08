"""The known sets are what they are said to be: halves that don't mix, worlds whose truth holds, packages looked at."""

from __future__ import annotations

import json
from pathlib import Path

import build_sets
import numpy as np
import pandas as pd
import pytest
from known.frames import by_days, by_period, by_rows, thin
from known.halves import CHOSEN, FILE, HELD_OUT, LATER, SAME_ROWS, USED_BEFORE, deal, half_of
from known.later import LATER_SETS
from known.packages import Shelf, Wheel
from known.worlds import START, WINDOWS, WORLDS, World
from prequential.sets import load_set

BY_NAME = {world.name: world for world in WORLDS}


def test_the_halves_are_those_that_the_names_deal() -> None:
    kinds = build_sets.kinds()
    halves = json.loads(FILE.read_text(encoding="utf-8"))
    assert halves == deal(kinds)
    assert sorted(halves[CHOSEN] + halves[HELD_OUT]) == sorted(kinds)


def test_what_was_tuned_on_is_never_held_out_and_same_rows_stay_together() -> None:
    assert {half_of(name) for name in USED_BEFORE} == {CHOSEN}
    assert all(half_of(name) == half_of(other) for name, other in SAME_ROWS.items())
    assert half_of("a set of a stranger") == HELD_OUT


def test_sets_made_later_are_in_no_half() -> None:
    names = [known.name for known in LATER_SETS]
    assert {half_of(name) for name in names} == {LATER}
    assert not set(names) & set(build_sets.kinds())


def test_a_kind_of_world_is_in_both_halves() -> None:
    for world in WORLDS:
        twin = world.name[:-1] + ("b" if world.name.endswith("a") else "a")
        assert half_of(world.name) != half_of(twin)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_world_is_the_same_each_time_and_loads_as_a_set(world: World, tmp_path: Path) -> None:
    assert world.build().equals(world.build())
    build_sets.build(world, Shelf(tmp_path), tmp_path)
    data = load_set(tmp_path / world.name)
    assert (data.task == "regression") == (world.task == "regression")
    assert (data.windows, data.start) == (WINDOWS, START)
    assert json.loads((tmp_path / world.name / "meta.json").read_text())["truth"] == world.truth


def test_the_worlds_hold_what_they_say() -> None:
    months = BY_NAME["world_months_a"].build().groupby("w")["month"].agg(["first", "nunique"])
    assert set(months["nunique"]) == {1}
    assert list(months["first"].drop_duplicates())[:3] == ["jan", "feb", "mar"]
    rate = BY_NAME["world_rate_a"].build().groupby("w")["rate"].agg(["min", "max"])
    first = rate.iloc[:START]
    assert rate["min"].iloc[-1] > first["max"].max() + 5 * (first["max"].max() - first["min"].min())
    growth = BY_NAME["world_growth_a"].build().groupby("w")["budget"].median()
    assert growth.iloc[-1] > 8 * growth.iloc[0]
    question = BY_NAME["world_question_a"].build().groupby("w")["new_question"].count()
    assert question.iloc[:14].sum() == 0
    assert (question.iloc[14:] > 0).all()
    one_class = BY_NAME["world_one_class_a"].build().groupby("w")["y"].sum()
    assert one_class.iloc[:START].sum() == 0
    assert one_class.iloc[START + 1 :].min() > 0
    customers = BY_NAME["world_turnover_a"].build()["customer"]
    assert 0.25 < customers.str.startswith("n").mean() < 0.35
    assert customers[customers.str.startswith("n")].is_unique
    scale = BY_NAME["world_float_noise_a"].build()
    assert set(scale.loc[scale["w"] < 12, "scale"]) == {1.0}
    assert set(scale.loc[scale["w"] >= 12, "scale"]) == {1.0 + 1e-7}


def test_windows_are_cut_as_said() -> None:
    days = pd.DataFrame({"t": pd.date_range("2024-01-01", periods=400, freq="6h")})
    assert by_days(days, 7, fewest_rows=20)["w"].max() == 13  # fourteen whole weeks; the rest has too few rows
    periods = pd.DataFrame({"x": range(12)})
    parts = by_period(periods, pd.Series([1] * 8 + [0] * 4), parts=2)
    assert parts["w"].tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert parts["x"].tolist() == [8, 9, 10, 11, *range(8)]
    rows = by_rows(pd.DataFrame({"t": [3, 1, 2, 0]}), 2)
    assert rows["w"].tolist() == [0, 0, 1, 1]
    kept = thin(pd.DataFrame({"x": np.arange(100)}), 10)["x"]
    assert (len(kept), kept.iloc[0], kept.iloc[-1]) == (10, 0, 99)


def test_another_file_under_a_packages_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some-1.whl").write_bytes(b"not what was looked at")
    wheel = Wheel("some", "1", "some-1.whl", "0" * 64)
    with pytest.raises(SystemExit, match="another file than the one looked at"):
        Shelf(tmp_path).read(wheel, "data.csv")


def test_every_set_says_whose_it_is_and_how_it_may_be_used() -> None:
    text = (Path(build_sets.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert build_sets.table() in text
