"""What the first of the suite's processes that asks for it makes, and each has a copy of. No tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cloudpickle
import pytest
from copies import copy_workspace
from filelock import FileLock

from perennial.settings import Settings
from perennial.workspace import Workspace

T = TypeVar("T")


def made_once(
    factory: pytest.TempPathFactory, name: str, workspace: Callable[[Path], Workspace], make: Callable[[Workspace], T]
) -> tuple[Workspace, T]:
    """This process's own copy of a workspace in which something was made once, and what `make` told of that.

    Args:
        name: Of what is made, among all that is shared.
        workspace: Gives a folder a workspace.
        make: What to make in it; its answer holds no workspace.
    """
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose own folder lies in the run's
        run = run.parent
    folder, told = run / f"shared-{name}", run / f"shared-{name}.pickle"
    with FileLock(run / f"shared-{name}.lock"):
        if not told.exists():
            folder.mkdir()
            told.write_bytes(cloudpickle.dumps(make(workspace(folder))))
    value: T = cloudpickle.loads(told.read_bytes())
    made = Workspace(
        Settings(home=folder / "home", models=str(folder / "models"), expectations=str(folder / "expectations"))
    )
    return copy_workspace(made, factory.mktemp(name)), value
