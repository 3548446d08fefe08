"""Policies beside the model's own, their files' errors, and the way of one into the YAML with its comments."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.definition import ModelDefinition, load_definition
from perennial.errors import ConflictError, DefinitionError
from tasks.backtest.policies import make_candidates, write_policy

WEEK = timedelta(days=7)
HEAD = """\
# The shop's model.
name: shop   # as the file
task: regression
data:
  source: {csv: rows.csv}
  id: row
  time: when
  target: sales
features: {numeric: [price,
                     demand]}   # two
"""
TAIL = """
# Serving, last.
serving: {threshold: 0.4}
"""
SECTIONS = {
    "block": "monitoring:\n  # weekly, as the planners do\n  window: 7d   # a week\n  growth: 1.5\n\n",
    "four": "monitoring:\n    window: 7d   # a week\n    triggers:\n        drift: false   # noisy here\n",
    "flow": "monitoring: {window: 7d, growth: 1.5}   # short\n",
    "empty": "monitoring: {}\n",
    "none": "",
}


def write(folder: Path, text: str) -> ModelDefinition:
    path = folder / "shop.yaml"
    path.write_bytes(text.encode())
    return load_definition(path)


def change(definition: ModelDefinition, **changes: Any) -> Any:
    return definition.monitoring.model_validate({**definition.monitoring.model_dump(), **changes})


class TestWrite:
    @pytest.mark.parametrize("section", sorted(SECTIONS))
    @pytest.mark.parametrize("tail", [TAIL, ""])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_only_the_section_changes(self, tmp_path: Path, section: str, tail: str, newline: str) -> None:
        text = (HEAD + SECTIONS[section] + tail).replace("\n", newline)
        definition = write(tmp_path, text)
        triggers = definition.monitoring.triggers.model_copy(update={"growth": False})
        policy = change(definition, growth=1.8, recalibrate=False, triggers=triggers, maximum_age="30d")
        changed = write_policy(definition, policy)
        assert changed == ["growth: 1.8", "recalibrate: False", "maximum_age: 30d", "triggers.growth: False"]
        read = load_definition(tmp_path / "shop.yaml")
        assert read.monitoring == policy
        assert read.hash == definition.model_copy(update={"monitoring": policy}).hash
        after = (tmp_path / "shop.yaml").read_bytes().decode()
        assert after.startswith(HEAD.replace("\n", newline))
        assert tail.replace("\n", newline) in after
        comments = [part.partition("#")[2].strip() for part in SECTIONS[section].splitlines() if "#" in part]
        assert all(comment in after for comment in comments)
        assert after.count("\r\n") == (after.count("\n") if newline == "\r\n" else 0)
        assert [path.name for path in tmp_path.iterdir()] == ["shop.yaml"]
        assert write_policy(read, policy) == []

    def test_a_file_without_a_last_newline(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD + "serving: {threshold: 0.4}")
        write_policy(definition, change(definition, growth=2.0))
        assert (tmp_path / "shop.yaml").read_text() == HEAD + "serving: {threshold: 0.4}\nmonitoring:\n  growth: 2.0\n"

    def test_its_permissions_stay(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD)
        (tmp_path / "shop.yaml").chmod(0o640)
        write_policy(definition, change(definition, growth=2.0))
        assert (tmp_path / "shop.yaml").stat().st_mode & 0o777 == 0o640

    def test_a_file_that_changed_meanwhile_is_left_alone(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD)
        other = HEAD + "gate: {margin: 0.1}\n"
        (tmp_path / "shop.yaml").write_text(other)
        with pytest.raises(ConflictError, match="has changed since the backtest began"):
            write_policy(definition, change(definition, growth=2.0))
        assert (tmp_path / "shop.yaml").read_text() == other

    def test_a_section_behind_an_anchor_is_left_alone(self, tmp_path: Path) -> None:
        text = HEAD.replace("features:", "training: {window: &week 7d}\nfeatures:") + "monitoring: {window: *week}\n"
        definition = write(tmp_path, text)
        with pytest.raises(DefinitionError, match="can't be edited in place"):
            write_policy(definition, change(definition, growth=2.0))
        assert (tmp_path / "shop.yaml").read_text() == text


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("growth: 0.5", "monitoring.growth = 0.5: input should be greater than 1. Correct the value."),
            ("grwoth: 2", "monitoring.grwoth = 2: unknown key. Did you mean growth?."),
            ("cooldown: soon", "monitoring.cooldown = 'soon': a duration is a number and a unit: 30s, 15m, 12h, 7d or "
             "2w. Correct the value."),
            ("triggers: {drfit: true}", "monitoring.triggers.drfit = True: unknown key. Did you mean drift?."),
            ("- growth", "holds list, not a mapping. Start it with the keys of `monitoring`, such as `growth: 1.5`."),
            ("growth: [", "is not YAML: while parsing"),
        ],
    )  # fmt: skip
    def test_errors_are_those_of_a_definition(self, tmp_path: Path, text: str, problem: str) -> None:
        definition = write(tmp_path, HEAD)
        path = tmp_path / "calm.yaml"
        path.write_text(text)
        with pytest.raises(DefinitionError) as caught:
            make_candidates(definition, [path], every=WEEK)
        assert str(caught.value).startswith(f"{path}: {problem}")

    def test_what_a_file_leaves_out_is_the_models_own(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD + "monitoring: {window: 14d, triggers: {drift: false}}\n")
        for name, raw in {
            "a": {"growth": 2, "triggers": {"growth": False}},
            "b": {"monitoring": {"growth": 2}},
        }.items():
            path = tmp_path / f"{name}.policy.yaml"
            path.write_text(yaml.safe_dump(raw))
            (found,) = [each for each in make_candidates(definition, [path], every=WEEK) if each.kind == "file"]
            assert found.name == f"{name}.policy"
            assert (found.policy.window, found.policy.growth) == (2 * WEEK, 2)
            assert (found.policy.triggers.drift, found.policy.triggers.growth) == (False, name == "b")

    def test_a_name_that_is_taken(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD)
        path = tmp_path / "always.yaml"
        path.write_text("growth: 2")
        with pytest.raises(DefinitionError, match=r"the name of a policy is taken: always\.yaml\. Rename the file\."):
            make_candidates(definition, [path], every=WEEK, taken=("never", "always"))


class TestVariants:
    def test_a_variant_that_says_the_same_is_left_out(self, tmp_path: Path) -> None:
        alone = "{quality: false, drift: false, growth: true, schedule: false}"
        definition = write(tmp_path, HEAD + f"monitoring: {{recalibrate: false, triggers: {alone}}}\n")
        names = [each.name for each in make_candidates(definition, every=WEEK)]
        assert names[:2] == ["own", "own with maps"]
        assert "growth" not in names  # it is the own one
        assert "growth + maps" not in names  # it is the own one with maps

    def test_the_own_policy_stands_beside_itself_with_the_estimate_turned_round(self, tmp_path: Path) -> None:
        for asks, name in ((False, "own with estimate"), (True, "own without estimate")):
            definition = write(tmp_path, HEAD + f"monitoring: {{triggers: {{estimate: {str(asks).lower()}}}}}\n")
            named = {each.name: each.policy for each in make_candidates(definition, every=WEEK)}
            assert named["own"].triggers.estimate is asks
            assert named[name].triggers == named["own"].triggers.model_copy(update={"estimate": not asks})
            assert named[name].recalibrate == named["own"].recalibrate

    def test_the_schedule_has_an_age(self, tmp_path: Path) -> None:
        definition = write(tmp_path, HEAD.replace("  target: sales", "  target: sales\n  label_delay: 2d"))
        named = {each.name: each.policy for each in make_candidates(definition, every=WEEK)}
        assert named["schedule 30d"].maximum_age == timedelta(days=30)
        own = write(tmp_path, HEAD + "monitoring: {maximum_age: 60d}\n")
        assert "schedule 60d" in {each.name for each in make_candidates(own, every=WEEK)}
