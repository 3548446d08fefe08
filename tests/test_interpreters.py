"""README's Pythons: what can be told of each without an environment of its own, and README's commands on each in one.

The second takes minutes: `make test-interpreters`. What a module does is its own tests' subject, not this one's.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import python_discovery
import yaml
from lean_processes import trusting_environment
from packaging.specifiers import SpecifierSet

from perennial.settings import PROJECT_ROOT

PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUPPORTED = [f"3.{minor}" for minor in range(100) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
FOLDERS = ("perennial", "tasks", "flows", "deployments", "benchmarks", "tests", "docker", ".github")
# Compiles sources and imports names, given as JSON, and prints what fails; a warning is a failure.
PROBE = """
import importlib, json, sys
sources, names = json.load(sys.stdin)
def attempt(what, step):
    try:
        step()
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {error}")
def find(module, name):
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")
for path, source in sources.items():
    attempt(path, lambda: compile(source, path, "exec", dont_inherit=True))
for module, name, path in names:
    attempt(f"{path} imports {module}", lambda: find(module, name))
"""


@cache
def interpreter(version: str) -> str | None:
    """Where this Python is on the machine, if it is: on PATH, among pyenv's or among uv's."""
    pyenvs = map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    found = python_discovery.get_interpreter(f"cpython{version}", try_first_with=pyenvs)
    return found and found.executable


@pytest.fixture
def python(version: str) -> str:
    found = interpreter(version)
    if found is None:
        pytest.skip(f"no Python {version} at hand")
    return found


def standard_names(sources: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What the sources import of the running Python's standard library: module, name in it or nothing, source."""
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found = [(item.name, "") for item in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [(node.module, item.name) for item in node.names]
            else:
                continue
            yield from ((*pair, path) for pair in found if pair[0].partition(".")[0] in sys.stdlib_module_names)


def probe(python: str, sources: dict[str, str], names: Iterable[tuple[str, str, str]]) -> list[str]:
    """What this Python has against the sources and the names that they import, a line each."""
    command = [python, "-I", "-W", "error", "-c", PROBE]
    wanted = json.dumps([sources, sorted(set(names))])
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.process
@pytest.mark.parametrize("version", SUPPORTED)
def test_sources_compile_and_their_standard_imports_exist(python: str) -> None:
    paths = [path for folder in FOLDERS for path in (PROJECT_ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(PROJECT_ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    assert len(sources) > 100
    assert probe(python, sources, standard_names(sources)) == []


@pytest.mark.process
@pytest.mark.parametrize("version", SUPPORTED)
def test_what_this_python_cannot_run_is_told(python: str) -> None:
    source = {"imports.py": "import json.none, re\nfrom math import sinus, pi\nfrom xml import dom"}
    told = probe(python, {"print.py": "print '3'", "escape.py": r"a = '\d'"}, standard_names(source))
    assert [line.split(": ")[0] for line in told] == [
        "print.py", "escape.py", "imports.py imports json.none", "imports.py imports math",
    ]  # fmt: skip


def test_the_environment_has_no_setuptools_that_newer_pythons_lack() -> None:
    """Python 3.11 puts one into every environment: what leans on it would fail on 3.12 only."""
    locked = re.findall(r"(?m)^([a-z0-9-]+)==", (PROJECT_ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert len(locked) > 100
    assert "setuptools" not in locked
    assert [name for name in ("setuptools", "pkg_resources") if find_spec(name)] == [], "run `make setup` again"


def test_documents_and_workflow_name_the_same_pythons() -> None:
    workflow = yaml.safe_load((PROJECT_ROOT / ".github/workflows/test.yaml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"] == SUPPORTED
    told = f"Python {SUPPORTED[0]} to {SUPPORTED[-1]}"
    for name in ("README.md", "docs/operate.md"):
        assert told in (PROJECT_ROOT / name).read_text(encoding="utf-8"), f"{name} lacks: {told}"


@pytest.mark.interpreters
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", [version for version in SUPPORTED if version != RUNNING])
def test_readmes_commands_on_a_copy(python: str, tmp_path: Path) -> None:
    """Set up from the lock, three weeks of the demo, the quick tests; in an environment that is thrown away."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (PROJECT_ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    commands = [
        ["make", "setup", f"PYTHON={python}"],
        [".venv/bin/perennial", "demo", "--weeks", "3"],
        ["make", "test-quick"],
    ]
    mine = trusting_environment(os.environ)
    kept = {name: value for name, value in mine.items() if not name.startswith(("PREFECT_", "PERENNIAL_"))}
    for command in commands:
        done = subprocess.run(
            command, cwd=tmp_path, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )  # fmt: skip
        print(done.stdout)
        assert done.returncode == 0, f"{' '.join(command)} on {python}"
