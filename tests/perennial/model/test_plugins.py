"""Tests of loading a team's own code by path."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from perennial.errors import DefinitionError
from perennial.model.plugins import find_attribute, load_attribute


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_loads_a_function_without_touching_the_search_path(tmp_path: Path) -> None:
    write(tmp_path, "def build():\n    return 41 + 1\n")
    before = list(sys.path)
    assert load_attribute("own.py:build", tmp_path)() == 42
    assert sys.path == before
    assert "own" not in sys.modules
    assert not (tmp_path / "__pycache__").exists()


def test_a_file_named_like_a_library_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path, "def dumps():\n    return 'ours'\n", "json.py")
    assert load_attribute("json.py:dumps", tmp_path)() == "ours"
    import json

    assert json.dumps({}) == "{}"


def test_an_edited_file_is_loaded_anew_even_within_a_second_and_of_the_same_size(tmp_path: Path) -> None:
    write(tmp_path, "def f():\n    return 1\n")
    first = load_attribute("own.py:f", tmp_path)
    write(tmp_path, "def f():\n    return 2\n")
    second = load_attribute("own.py:f", tmp_path)
    assert (first(), second()) == (1, 2)


def test_runs_once_per_content_and_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path, "class A: pass\n")
    write(tmp_path / "other", "class A: pass\n")
    assert load_attribute("own.py:A", tmp_path) is load_attribute("own.py:A", tmp_path)
    assert load_attribute("own.py:A", tmp_path) is not load_attribute("other/own.py:A", tmp_path)


def test_its_classes_pickle(tmp_path: Path) -> None:
    write(tmp_path, "from dataclasses import dataclass\n\n@dataclass\nclass Point:\n    x: int\n")
    point = load_attribute("own.py:Point", tmp_path)(3)
    assert pickle.loads(pickle.dumps(point)) == point


@pytest.mark.parametrize(
    ("text", "spec", "words"),
    [
        (None, "own.py:build", ["own.py", "can't be read", "No such file"]),
        ("def built(): pass\n", "own.py:build", ["own.py", "'build'", "built", "Define build"]),
        ("build = 3\n", "own.py:build", ["own.py", "build is int 3", "function"]),
        ("x = 1\ny = x / 0\n", "own.py:build", ["line 2", "ZeroDivisionError"]),
        ("def (:\n", "own.py:build", ["line 1", "SyntaxError"]),
        ("import neighbour_of_mine\n", "own.py:build", ["line 1", "ModuleNotFoundError", "neighbours"]),
        ("", "own:build", ["'own:build'", "file.py:name"]),
    ],
)
def test_errors_name_file_attribute_finding_and_remedy(
    tmp_path: Path, text: str | None, spec: str, words: list[str]
) -> None:
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(DefinitionError) as caught:
        load_attribute(spec, tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_a_module_that_failed_is_not_left_behind(tmp_path: Path) -> None:
    write(tmp_path, "raise OSError('not yet')\n")
    before = set(sys.modules)
    with pytest.raises(DefinitionError):
        load_attribute("own.py:f", tmp_path)
    assert not {name for name in set(sys.modules) - before if name.startswith("perennial_plugin_")}


def test_an_optional_attribute(tmp_path: Path) -> None:
    write(tmp_path, "def build(): pass\n")
    assert find_attribute("own.py:search_space", tmp_path) is None
