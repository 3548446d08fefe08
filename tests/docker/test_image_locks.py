"""The images' locks: parts of the whole one, without an address, and enough for what each image imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from perennial.settings import PROJECT_ROOT

WHOLE, WORKER, SERVING = "requirements.lock", "requirements-worker.lock", "requirements-serving.lock"
NOT_SERVED = {"prefect", "great-expectations", "evidently", "mlflow", "optuna", "matplotlib", "sqlalchemy", "pytest"}


def entries(name: str) -> set[str]:
    """Each package of a lock with its version and marker."""
    lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.removesuffix("\\").strip() for line in lines if "==" in line and not line.startswith((" ", "#"))}


def names(name: str) -> set[str]:
    return {canonicalize_name(Requirement(entry).name) for entry in entries(name)}


@pytest.mark.parametrize("name", [WHOLE, WORKER, SERVING])
def test_each_package_has_hashes_and_no_lock_an_address(name: str) -> None:
    text = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    blocks = text.split("\n    --hash=")
    assert len(blocks) > 2 * len(entries(name)) - 1
    assert all(f"{entry} \\\n    --hash=sha256:" in text for entry in entries(name))


@pytest.mark.parametrize("name", [WORKER, SERVING])
def test_an_image_s_versions_are_those_that_are_tested(name: str) -> None:
    ours, whole = {}, {}
    for lock, found in ((name, ours), (WHOLE, whole)):
        for entry in entries(lock):
            requirement = Requirement(entry)
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(requirement.name)] = str(requirement.specifier)
    # Extras of the group `server` come with `make lock`; before that the whole lock has no other version of them.
    assert {key: value for key, value in ours.items() if whole.get(key, value) != value} == {}


def test_the_serving_image_lacks_what_only_flows_need() -> None:
    assert names(SERVING) & NOT_SERVED == set()
    assert names(WORKER) & {"pytest", "mypy", "ruff", "hypothesis"} == set()
    assert {"prefect", "mlflow", "boto3", "pg8000"} <= names(WORKER)


def test_each_package_of_the_serving_group_is_one_of_ours() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ours = {canonicalize_name(Requirement(text).name) for text in project["project"]["dependencies"]}
    group = {canonicalize_name(Requirement(text).name) for text in project["dependency-groups"]["serving"]}
    assert group - ours == {"mlflow-skinny"}


def imported(path: Path) -> Iterator[str]:
    """What a file imports anywhere, inside functions too; what only a type checker reads is left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (str(node.module), *(f"{node.module}.{item.name}" for item in node.names))
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            waiting += ast.iter_child_nodes(node)


def test_all_that_the_api_may_import_some_day_is_in_its_lock() -> None:
    # A registry that is a database is asked by trainers, not by the image; cards are written by who promotes.
    elsewhere = {"sqlalchemy", "markdown_it"}
    waiting = [
        *(PROJECT_ROOT / "perennial" / "serving").rglob("*.py"),
        PROJECT_ROOT / "perennial/commands/installation/serve.py",
    ]
    seen: set[Path] = set()
    found: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for module in imported(path):
            top = module.split(".")[0]
            if top == "perennial":
                place = PROJECT_ROOT / module.replace(".", "/")
                waiting += [place.with_suffix(".py"), place / "__init__.py"]
            elif top not in sys.stdlib_module_names:
                found[top] = path.name
    owners = packages_distributions()
    assert {"numpy", "uvicorn", "obstore", "mlflow"} <= set(found)
    assert [
        f"{path} imports {module}"
        for module, path in found.items()
        if module not in elsewhere and not {canonicalize_name(name) for name in owners[module]} & names(SERVING)
    ] == []


@pytest.mark.process
def test_the_api_starts_with_nothing_but_its_lock(tmp_path: Path) -> None:
    site = tmp_path / "site"  # the packages of the lock, as links into this environment's
    site.mkdir()
    for name in names(SERVING):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another Python or platform
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
    code = """
import perennial.commands.installation.serve, perennial.serving.about, perennial.serving.service
import perennial.serving.processes.worker, perennial.serving.processes.shipping, perennial.serving.web.app
import perennial.serving.log.shipper, perennial.serving.log.labels, perennial.serving.scoring.scorer
import perennial.serving.versions.fetch, mlflow.artifacts, skops.io, treelite, uvloop, httptools
from perennial.serving.web import docs
assert b"swagger" in docs.page_file("swagger-ui.css")[0]
try:
    import prefect
except ImportError:
    print("alone")
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PYTHONPATH": f"{site}:{PROJECT_ROOT}", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "alone\n", done.stderr[-2000:]
