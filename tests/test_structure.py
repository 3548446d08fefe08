"""The house's rules that no linter knows: which way imports point, and what is imported when."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from perennial.settings import PROJECT_ROOT

LAYERS = ("perennial", "tasks", "flows", "deployments")
FILES = sorted(path for layer in LAYERS for path in (PROJECT_ROOT / layer).rglob("*.py"))
MOST_MODULES = 12
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
    return name(path) == "perennial/cli.py" or name(path).startswith(("perennial/commands/", "perennial/interactive/"))


@pytest.mark.process
def test_the_order_of_packages_is_kept() -> None:
    """The contracts in pyproject.toml: layers, rooms, no circles, what the API and the steps never import."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    run = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


def test_no_folder_is_crowded() -> None:
    counted = Counter(name(path.parent) for path in FILES if path.name != "__init__.py")
    assert {folder: count for folder, count in counted.items() if count > MOST_MODULES} == {}


def test_the_command_line_imports_the_layers_above_only_inside_functions() -> None:
    paths = [path for path in FILES if is_command_line(path)]
    assert paths
    assert [told for path in paths for told in offences(path, LAYERS[1:], everywhere=False)] == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    # A flow's file is imported by Prefect only.
    paths = [path for path in FILES if not name(path).startswith("flows/")]
    assert [told for path in paths for told in offences(path, HEAVY, everywhere=False)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name(path) for path in FILES if not (ast.get_docstring(tree(path)) or "").strip()] == []


def test_no_test_folder_is_a_package() -> None:
    assert list((PROJECT_ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.process
def test_the_command_lines_import_is_light() -> None:
    code = "import json, sys, perennial.cli; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout))
    assert "perennial" in loaded
    assert loaded & {*HEAVY, "pandas", "sklearn", "fastapi", "deltalake", "tasks", "flows", "deployments"} == set()


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by that name alone, and in one process refuses a second of it."""
    names = Counter(path.name for path in (PROJECT_ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
