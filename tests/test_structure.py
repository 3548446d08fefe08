"""The house's rules that no linter knows: which way imports point, and what is imported when."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from perennial.settings import PROJECT_ROOT

LAYERS = ("perennial", "tasks", "flows", "deployments")
FILES = sorted(path for layer in LAYERS for path in (PROJECT_ROOT / layer).rglob("*.py"))
HEAVY = ("mlflow", "prefect", "great_expectations", "evidently", "optuna", "matplotlib")


def name(path: Path) -> str:
    return path.relative_to(PROJECT_ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, everywhere: bool = True) -> Iterator[tuple[str, int]]:
    """The modules that a file imports with their lines; what only a type checker reads is left out."""
    waiting: list[ast.AST] = [tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((item.name, node.lineno) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{item.name}", node.lineno) for item in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def offences(path: Path, forbidden: tuple[str, ...], *, everywhere: bool = True) -> list[str]:
    return [
        f"{name(path)}:{line} imports {module}"
        for module, line in imports(path, everywhere=everywhere)
        if module.split(".")[0] in forbidden
    ]


def is_command_line(path: Path) -> bool:
    return name(path) == "perennial/cli.py" or name(path).startswith("perennial/commands/")


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    paths = [path for path in FILES if name(path).startswith(f"{layer}/") and not is_command_line(path)]
    assert paths
    assert [told for path in paths for told in offences(path, above)] == []


def test_the_command_line_imports_the_layers_above_only_inside_functions() -> None:
    paths = [path for path in FILES if is_command_line(path)]
    assert paths
    assert [told for path in paths for told in offences(path, LAYERS[1:], everywhere=False)] == []


def test_the_api_imports_no_orchestration() -> None:
    forbidden = ("prefect", "great_expectations", "evidently", "tasks", "flows", "deployments")
    paths = [path for path in FILES if name(path).startswith("perennial/serving/")]
    assert [told for path in paths for told in offences(path, forbidden)] == []


def test_tasks_don_t_know_prefect() -> None:
    paths = [path for path in FILES if name(path).startswith("tasks/")]
    assert [told for path in paths for told in offences(path, ("prefect",))] == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    # A flow's file is imported by Prefect only.
    paths = [path for path in FILES if not name(path).startswith("flows/")]
    assert [told for path in paths for told in offences(path, HEAVY, everywhere=False)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name(path) for path in FILES if not (ast.get_docstring(tree(path)) or "").strip()] == []


def test_no_test_folder_is_a_package() -> None:
    assert list((PROJECT_ROOT / "tests").rglob("__init__.py")) == []


def test_the_command_lines_import_is_light() -> None:
    code = "import json, sys, perennial.cli; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout))
    assert "perennial" in loaded
    assert loaded & {*HEAVY, "pandas", "sklearn", "fastapi", "deltalake", "tasks", "flows", "deployments"} == set()
