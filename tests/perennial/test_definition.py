"""A definition is read strictly: each error names file, key, value, rule and remedy; its hash is its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_model import RAW, merge

from perennial.definition import (
    NOT_MODELS,
    ModelDefinition,
    duration_text,
    json_schema,
    load_definition,
    load_definitions,
)
from perennial.errors import DefinitionError
from perennial.settings import PROJECT_ROOT

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(changes: dict[str, Any] | None = None, *, name: str = "digits", folder: Path = tmp_path) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(merge(RAW, changes or {})), encoding="utf-8")
        return path

    return write


def message(path: Path) -> str:
    with pytest.raises(DefinitionError) as caught:
        load_definition(path)
    return str(caught.value)


def test_reads_what_it_says(write: Write) -> None:
    path = write({"training": {"window": "90d"}, "monitoring": {"persistence": "1 of 2", "schedule": "0 6 * * *"}})
    definition = load_definition(path)
    assert definition.training.window == timedelta(days=90)
    assert definition.monitoring.persistence == (1, 2)
    assert definition.monitoring.schedule == "0 6 * * *"
    assert definition.folder == path.parent
    assert definition.loss == "brier"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tsak": "regression"}, "tsak = 'regression': unknown key. Did you mean task?"),
        ({"gate": {"magrin": 0.1}}, "gate.magrin = 0.1: unknown key. Did you mean margin?"),
        (
            {"gate": {"limits": {"brier": {"maxx": 1, "max": 1}}}},
            "gate.limits.brier.maxx = 1: unknown key. Did you mean max?",
        ),
        ({"serving": {"x": 1}}, "serving.x = 1: unknown key. Remove it; known here: "),
        ({"runner": {"dask": "scheduler:8786"}}, "runner.dask = 'scheduler:8786': an address is tcp://HOST:PORT, tls"),
        ({"runner": {"dusk": "local"}}, "runner.dusk = 'local': unknown key. Did you mean dask?"),
        ({"training": {"tuning": {"trials": -1}}}, "training.tuning.trials = -1: input should be greater than or"),
        ({"data": {"label_delay": "1 fortnight"}}, "data.label_delay = '1 fortnight': a duration is a number and a"),
        ({"data": {"label_delay": 7}}, "data.label_delay = 7: a duration is a number and a unit: 30s, 15m, 12h, 7d"),
        ({"data": {"label_delay": "9" * 20 + "w"}}, "a duration is at most 999999999d. Correct the value"),
        ({"monitoring": {"persistence": "3 of 2"}}, "monitoring.persistence = '3 of 2': persistence is \"k of n\""),
        ({"monitoring": {"schedule": "daily"}}, "monitoring.schedule = 'daily': a schedule is a cron expression of"),
        ({"monitoring": {"schedule": 6}}, "monitoring.schedule = 6: a schedule is a cron expression of five fields"),
        ({"task": "ranking"}, "task = 'ranking': input should be 'classification' or 'regression'"),
        ({"name": "Digits!"}, "name = 'Digits!': string should match pattern"),
        ({"gate": {"limits": {"rmse": {"max": 1}}}}, "'rmse' is no metric of classification; known: roc_auc, "),
        ({"gate": {"limits": {"brier": {}}}}, "gate.limits.brier: a limit needs min, max or both"),
        ({"gate": {"limits": {"brier": {"min": 2, "max": 1}}}}, "gate.limits.brier: min 2.0 is above max 1.0"),
        ({"gate": {"slices": ["colour"]}}, "gate.slices must be features: colour"),
        ({"features": {"text": ["shade"]}}, "features: each feature has one kind; named twice: shade"),
        ({"features": {"text": ["Shade"]}}, "shade and Shade differ only in upper and lower case, which the tables"),
        ({"data": {"id": []}}, "data: id names one column, or several that differ; found []"),
        ({"data": {"id": ["row", "row"]}}, "data: id names one column, or several that differ; found ['row', 'row']"),
        ({"data": {"id": ["row"]}}, "data: a single id column is no list: write `id: row`"),
        ({"data": {"id": ["row", "even"]}}, "data: the target even can't be the id or the time as well"),
        ({"data": {"time": "even"}}, "data: the target even can't be the id or the time as well"),
        ({"data": {"id": "shade"}}, "id, time and target can't be features: shade"),
        ({"features": {"text": ["_id"]}}, "features: names that start with an underscore are ours: _id"),
        ({"features": {"text": ["even"]}}, "id, time and target can't be features: even"),
        ({"data": {"source": {"csv": "b"}}}, "give exactly one of parquet, csv, delta, sql, loader; found ['parquet',"),
        ({"data": {"source": {"parquet": None}}}, "data.source: give exactly one of parquet, csv, delta, sql, loader"),
        ({"training": {"estimator": "xgboost"}}, "training.estimator = 'xgboost': an estimator is one of hist_gr"),
        ({"data": {"source": {"parquet": None, "loader": "load.py"}}}, 'data.source: a loader is "file.py:function"'),
        ({"data": {"source": {"parquet": None, "sql": "select 1"}}}, "data.source: sql needs url_env"),
        ({"path": "x"}, "path: unknown key. Remove it."),
        ({"review": {"perday": 5}}, "review.perday = 5: unknown key. Did you mean per_day?"),
        ({"review": {"random_share": 0.9}}, "review: random_share 0.9 and unfamiliar_share 0.2 are more than"),
        ({"review": {"expires": "1m"}}, "review: expires is at least 1h"),
        ({"review": {"most_weight": 0.5}}, "review.most_weight = 0.5: input should be greater than or equal to 1"),
        ({"review": {"tolerance": 2}}, "review.tolerance belongs to task: regression"),
    ],
)  # fmt: skip
def test_an_error_names_file_key_value_rule_and_remedy(write: Write, changes: dict[str, Any], problem: str) -> None:
    path = write(changes)
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert problem in text
    assert any(verb in text for verb in ("Correct", "Remove", "Add", "Did you mean"))


def test_an_exact_message(write: Write) -> None:
    path = write({"gate": {"confidence": 95}})
    assert message(path) == f"{path}: gate.confidence = 95: input should be less than 1. Correct the value."


def test_a_missing_key(write: Write) -> None:
    path = write()
    raw = yaml.safe_load(path.read_text())
    del raw["data"]["target"]
    path.write_text(yaml.safe_dump(raw))
    assert message(path) == f"{path}: data.target: is required. Add it."


def test_all_problems_at_once(write: Write) -> None:
    text = message(write({"tsak": "x", "gate": {"margin": -1}}))
    assert "tsak" in text
    assert "gate.margin = -1" in text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n", "holds list, not a mapping. Start it with `name: NAME`."),
        (b"", "holds NoneType, not a mapping"),
        (b"a: [1\n", "is not YAML: while parsing a flow sequence"),
        (b"name: caf\xe9\n", "is not UTF-8"),
        (b"1: 2\n", "keys should be strings"),
    ],
)
def test_what_is_no_definition(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "digits.yaml"
    path.write_bytes(content)
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert problem in text


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert message(tmp_path / "none.yaml").endswith(
        "can't be read: No such file or directory. Give the path of a definition."
    )
    assert "can't be read: Is a directory" in message(tmp_path)


def test_the_file_has_the_models_name(write: Write) -> None:
    path = write(name="other")
    assert message(path) == f"{path}: name: 'digits' differs from the file's name. Name the file digits.yaml."


def test_folders_outside_the_project(write: Write, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(folder=first)
    write({"name": "others"}, name="others", folder=second)
    (second / "prefect.yaml").write_text("deployments: []")
    assert list(load_definitions([first, second])) == ["digits", "others"]
    write(folder=second)
    with pytest.raises(DefinitionError, match=rf"name: 'digits' is taken by {first}/digits.yaml. Rename one"):
        load_definitions([first, second])
    with pytest.raises(DefinitionError, match=r"does not exist. Make it, or set PERENNIAL_MODELS"):
        load_definitions([tmp_path / "third"])


def test_the_hash_is_the_content(write: Write, tmp_path: Path) -> None:
    once = load_definition(write()).hash
    path = write()
    path.write_text("# a remark\n" + path.read_text())
    assert load_definition(path).hash == once
    assert load_definition(write({"gate": {"confidence": 0.95}, "data": {"label_delay": "144h"}})).hash == once
    assert load_definition(write({"runner": {"dask": "tcp://scheduler:8786"}})).hash == once, "where is no part of what"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load_definition(write(folder=elsewhere)).hash == once
    for changes in ({"gate": {"confidence": 0.9}}, {"data": {"label_delay": "25h"}}, {"training": {"seed": 1}}):
        assert load_definition(write(changes)).hash != once


@given(st.integers(min_value=0, max_value=10**15))
def test_a_duration_survives_its_text(microseconds: int) -> None:
    value = timedelta(microseconds=microseconds)
    raw = merge(RAW, {"data": {"label_delay": duration_text(value)}})
    assert ModelDefinition.model_validate(raw).data.label_delay == value


@given(st.integers(1, 20), st.integers(1, 20))
def test_persistence(k: int, n: int) -> None:
    raw = merge(RAW, {"monitoring": {"persistence": f"{k} of {n}"}})
    if k > n:
        with pytest.raises(ValueError, match=r"with 1 ≤ k ≤ n"):
            ModelDefinition.model_validate(raw)
    else:
        definition = ModelDefinition.model_validate(raw)
        assert definition.monitoring.persistence == (k, n)
        assert json.loads(definition.model_dump_json())["monitoring"]["persistence"] == f"{k} of {n}"


DEFINITIONS = [path for path in sorted((PROJECT_ROOT / "deployments").glob("*.yaml")) if path.name not in NOT_MODELS]


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_the_schema_accepts_the_definitions_here(path: Path) -> None:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(raw, json_schema())
    load_definition(path)
    with pytest.raises(jsonschema.ValidationError, match=r"tsak"):
        jsonschema.validate(raw | {"tsak": 1}, json_schema())


def test_the_exported_schema_is_this_one() -> None:
    exported = PROJECT_ROOT / "deployments" / "model.schema.json"
    assert json.loads(exported.read_text(encoding="utf-8")) == json_schema()


def test_what_people_look_at_is_no_part_of_the_hash(write: Write) -> None:
    """Nor is a definition that says nothing of it another than it was."""
    without = load_definition(write())
    assert without.review.per_day == 0
    assert load_definition(write({"review": {"per_day": 5, "most_weight": 3}})).hash == without.hash
