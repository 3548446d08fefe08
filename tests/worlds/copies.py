"""A workspace as it stands, once more in another folder: what a test changes there, no other sees. No tests."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from perennial.settings import Settings
from perennial.workspace import Workspace

# Where MLflow keeps addresses of files.
_ADDRESSES = (
    ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
    ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip


def copy_workspace(source: Workspace, folder: Path) -> Workspace:
    """A copy of a workspace that conftest's `make_workspace` made, with its registry, in an empty folder or none yet.

    Runs and models keep their numbers; their files are the copy's own.
    """
    root = source.home.parent
    shutil.copytree(root, folder, dirs_exist_ok=True)
    home = folder / "home"
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        for table, column in _ADDRESSES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(root), str(folder)))
    for manifest in (home / "live").glob("*.json"):
        manifest.write_text(manifest.read_text("utf-8").replace(str(root), str(folder)), encoding="utf-8")
    return Workspace(Settings(home=home, models=str(folder / "models"), expectations=str(folder / "expectations")))
