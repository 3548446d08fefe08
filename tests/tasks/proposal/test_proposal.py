"""What is proposed of a table, and why: kinds, roles, classes, what was not understood, and a suite that fits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from small_model import rows as digit_rows

from perennial.definition import load_definition
from perennial.errors import DataError
from tasks.proposal.looks import look_at
from tasks.proposal.propose import Answers, Proposal, choose_window, look_at_table, propose
from tasks.proposal.roles import choose_classes
from tasks.validation.fitness import unfit_expectations
from tasks.validation.judging import validate
from tasks.validation.suites import load_suite

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def proposed(frame: pd.DataFrame, name: str = "churn", **said: Any) -> Proposal:
    answers = Answers(name, {"parquet": "rows.parquet"}, "rows.parquet", **said)
    return propose(look_at_table(frame), answers, as_of=NOW)


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([1.5, 2.5, None], "numeric", "numbers"),
        (["1", "2", ""], "numeric", "whole numbers"),
        (["1", "NA", "3"], "numeric", "whole numbers"),
        (["001", "002", "003"], "categorical", "3 categories"),
        (["1"] * 99 + ["?"], "numeric", "numbers, but for '?' in 1 rows, which are refused"),
        (["1", "?", "red"], "categorical", "3 categories"),
        ([True, False, True], "boolean", "true or false"),
        (["True", "false", ""], "boolean", "true or false"),
        (["yes", "no", None, "yes"], "boolean", "true or false, written as no, yes"),
        (["yes", "maybe", "no"], "categorical", "3 categories"),
        (["2026-01-31", "2026-02-01T10:00:00Z"], "datetime", "holds times"),
        (["2013", "2014"], "numeric", "whole numbers"),
        (["31/01/2026", "01/02/2026"], "none",
         "holds dates such as '31/01/2026', which may be read in two ways: write ISO 8601 (2026-01-31)"),
        ([None, None], "none", "every value is missing"),
        (["", ""], "none", "every value is missing"),
        ([3, 3], "none", "is 3 in every row"),
        (["a.png", "b.PNG"], "image", "paths of images"),
        ([f"the quick brown fox number {n} jumps" for n in range(40)], "text", "7 words on average"),
        ([f"name{n}" for n in range(40)], "none",
         "40 different texts in 40 rows: it names rows, and a model learns nothing of it"),
        ([[1], [2]], "none", "holds lists, or what else is neither number nor text"),
        (pd.to_timedelta([1, 2], unit="D"), "none", "holds durations: give a number in a unit of your choice"),
        ([1.0, np.inf], "numeric", "1 values are infinite: their rows are refused"),
        (pd.Categorical(["a", "b"]), "categorical", "2 categories"),
    ],
)  # fmt: skip
def test_looks(values: Any, kind: str, why: str) -> None:
    found = look_at(pd.Series(values, name="it"))
    assert (found.kind, found.why) == (kind, why)


def events(count: int = 2000) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    usage = generator.normal(50, 10, count)
    return pd.DataFrame(
        {
            "customer_id": [f"c{n}" for n in range(count)],
            "signed_up": pd.date_range("2025-01-01", periods=count, freq="1h").astype("str"),
            "plan": generator.choice(["basic", "gold", None], count),
            "usage": usage,
            "active": generator.choice([True, False], count),
            "country": "NL",
            "last_seen": pd.date_range("2025-02-01", periods=count, freq="2h"),
            "refunded": np.where(usage > 55, 9.5, 0.5),
            "churned": np.where(usage > 55, "yes", "no"),
        }
    )


def test_an_ordinary_table(tmp_path: Path) -> None:
    found = proposed(events(), "churned", label_delay=timedelta(days=30))
    definition = found.definition
    assert (definition.task, definition.classes) == ("classification", ("no", "yes"))
    assert (definition.data.id, definition.data.target) == ("customer_id", "churned")
    assert definition.data.time == "signed_up"
    assert definition.features.numeric == ()
    assert definition.features.categorical == ("plan",)
    assert definition.features.boolean == ("active",)
    assert definition.features.datetime == ("last_seen",)
    left = found.comments["features",]
    assert "refunded (it tells churned by itself: is it known only afterwards?)" in left
    assert "usage (it tells churned by itself" in left
    assert "country (is 'NL' in every row)" in left
    assert any(text.startswith("last_seen lies after signed_up in 2,000 rows") for text in found.doubts)
    assert any("the time is signed_up" in text for text in found.doubts)
    assert found.frame is None
    path = tmp_path / "churned.yaml"
    path.write_text(found.text)
    assert load_definition(path).hash == definition.hash
    assert yaml.safe_load(found.text) == found.raw


def test_what_is_said_wins() -> None:
    found = proposed(events(), time="signed_up", target="usage", without=("churned", "refunded"), id=("customer_id",))
    definition = found.definition
    assert (definition.task, definition.data.time, definition.data.target) == ("regression", "signed_up", "usage")
    assert definition.features.columns == ("plan", "active", "last_seen")
    assert "NOT TOLD" in found.comments["data", "label_delay"]
    with pytest.raises(DataError, match="there is no column 'nothing' for the target; there are customer_id"):
        proposed(events(), target="nothing")
    with pytest.raises(DataError, match="usage holds no times that can be read: it holds numbers"):
        proposed(events(), time="usage")
    with pytest.raises(DataError, match="country can't be predicted: it is 'NL' in every row"):
        proposed(events(), target="country")
    with pytest.raises(DataError, match="'maybe' is none of the classes no, yes"):
        proposed(events(), target="churned", positive="maybe")
    assert proposed(events(), target="churned", positive="no").definition.classes == ("yes", "no")


def test_a_small_table_without_id_or_time_is_told_so() -> None:
    frame = pd.DataFrame({"kind": ["a"] * 100 + ["b"] * 100, "size": np.random.default_rng(0).random(200)})
    found = proposed(frame, target="kind")
    assert found.frame is not None
    assert found.raw["data"]["id"] == "row_id"
    assert found.raw["training"]["estimator"] == "linear"
    assert found.raw["gate"]["minimum_rows"] == 40
    # In the order of the file the newest fifth would be of one class.
    newest = found.frame.sort_values("row_time").tail(40)
    assert newest["kind"].nunique() == 2
    assert found.frame["row_time"].max() <= pd.Timestamp(NOW)
    told = " ".join(found.caveats)
    for part in ("no column names a row", "no column holds a time", "200 labelled rows leave 40 to judge by"):
        assert part in told
        assert part in " ".join(line.removeprefix("# ") for line in found.text.splitlines())
    assert set(found.frame["row_id"]) == {f"churn-{n:03}" for n in range(200)}


def test_years_are_kept_where_there_is_no_finer_time() -> None:
    frame = pd.DataFrame({"year": [2007, 2008, 2009] * 50, "size": np.arange(150) / 7.0, "kind": list("abc") * 50})
    found = proposed(frame, target="size")
    assert found.frame is not None
    assert (found.frame["row_time"].dt.year == frame["year"]).all()
    assert "the finest time is year" in found.caveats[0]


def test_columns_that_name_a_row_together() -> None:
    days = pd.date_range("2025-01-01", periods=300)
    frame = pd.DataFrame(
        {"store": ["n", "s"] * 300, "day": days.repeat(2), "sales": np.random.default_rng(0).random(600)}
    )
    assert proposed(frame, target="sales").definition.data.id == ("store", "day")
    assert proposed(frame, target="sales").definition.features.columns == ("store",)
    twice = pd.concat([frame, frame.assign(sales=0.5)], ignore_index=True)
    assert proposed(twice, target="sales").raw["data"]["id"] == "row_id"
    # An amount that differs in every row by chance names none.
    chance = frame.assign(amount=np.random.default_rng(1).permutation(10**6)[:600]).drop(columns="store")
    assert proposed(chance, target="sales").raw["data"]["id"] == "row_id"


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (["yes", "no", "no"], ("no", "yes")),
        ([1, 0, 0], ("0", "1")),
        ([2.0, 1.0, 2.0], ("2", "1")),
        (["m", "f", "m"], ("m", "f")),
        ([True, False], ("false", "true")),
        (["b", "c", "a"], ("a", "b", "c")),
        ([10, 9, 2], ("2", "9", "10")),
    ],
)
def test_classes(words: list[Any], classes: tuple[str, ...]) -> None:
    assert choose_classes(pd.Series(words))[0] == classes


def test_the_suite_fits_its_table_and_finds_what_would_break_the_model(tmp_path: Path) -> None:
    frame = digit_rows(0, 10).assign(
        note=lambda made: made["row"].map(lambda name: f"an image by a writer, named {name}")
    )
    frame.loc[::3, "ink_00"] = np.nan
    found = proposed(frame, "digits", target="even", time="when", id=("row",))
    path = tmp_path / "digits.json"
    path.write_text(json.dumps(found.suite))
    suite = load_suite(path)
    assert unfit_expectations(suite, found.definition) == []

    def verdict(changed: pd.DataFrame) -> tuple[str, list[str]]:
        report = validate(changed, suite, id_column="row")
        return report.verdict, [f"{item.severity} {item.column}" for item in report.failures]

    kept = frame
    assert verdict(kept) == ("passed", [])
    assert not len(validate(kept, suite, id_column="row").quarantined_rows())
    # A gap here and there, a new category here and there: nothing is refused, no row goes to quarantine.
    odd = kept.assign(shade=kept["shade"].where(kept.index % 20 > 0, "purple"))
    assert verdict(odd) == ("passed with warnings", ["warning shade"])
    assert not len(validate(odd, suite, id_column="row").quarantined_rows())
    for broken, told in (
        (kept.assign(ink_11=kept["ink_11"] * 1000), "critical ink_11"),
        (kept.assign(shade=kept["shade"].str.upper()), "critical shade"),
        (kept.assign(ink_12=kept["ink_12"].where(kept.index % 5 == 0)), "critical ink_12"),
    ):
        found_verdict, failures = verdict(broken)
        assert (found_verdict, told in failures) == ("refused", True), failures


def test_windows() -> None:
    assert choose_window(100_000, timedelta(days=100)) == (timedelta(days=1), 1000)
    assert choose_window(10_000, timedelta(days=365))[0] == timedelta(days=14)
    assert choose_window(100, timedelta(days=365))[0] == timedelta(days=28)
    assert choose_window(100, timedelta(hours=3))[0] == timedelta(days=1)


def test_a_target_that_is_as_often_a_feature_is_a_doubt() -> None:
    """`amount` beside a last column of yes and no: the choice is told as one to look at, with what else it could be."""
    frame = events().rename(columns={"churned": "returned"})
    frame = frame.assign(amount=np.arange(len(frame)) / 7.0)
    frame = frame[[*(name for name in frame if name != "returned"), "returned"]]
    found = proposed(frame, "orders")
    assert found.raw["data"]["target"] == "amount"
    assert any("the target is amount" in doubt and "returned" in doubt for doubt in found.doubts), found.doubts
    assert not any("the target is" in doubt for doubt in proposed(events()).doubts)
