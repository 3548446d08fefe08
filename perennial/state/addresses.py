"""Where MLflow's database says that artifacts are: whether that is still so after a copy or a move, and its correction.

MLflow keeps whole paths. In a home that was copied they name the original, and the copy's trainings would write there.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perennial.errors import ConflictError, RegistryError
from perennial.settings import Settings

# Where MLflow (held to 3.17) keeps addresses of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_OURS = "select name, artifact_location from experiments where lifecycle_stage = 'active'"


def require_at_home(settings: Settings) -> None:
    """Refuse a registry whose artifacts are kept elsewhere than its addresses say.

    Raises:
        ConflictError: The home, or the folder of artifacts, was copied or moved.
        RegistryError: The database can't be read.
    """
    for former in former_roots(settings):
        raise ConflictError(
            f"MLflow's addresses in {_database(settings)} lead to {former}: what is in {settings.artifacts_root} was "
            "copied or moved from there",
            "End what still runs on it, then: perennial migrate",
        )


def former_roots(settings: Settings) -> list[Path]:
    """The folders that addresses lead to although their artifacts are below the settings' own by now.

    A registry that isn't a file, and artifacts in an object store, neither move nor are copied with a home. A root that
    was set anew while the artifacts stayed leaves older experiments where they are.

    Raises:
        RegistryError: The database can't be read.
    """
    path, root = _database(settings), _local(settings.artifacts_root)
    if path is None or root is None or not path.is_file():
        return []
    found = dict[Path, None]()
    for name, address in _experiments(path):
        place = _local(address)
        # As `Registry.experiment_id` makes them; a team's own experiments may be anywhere.
        if place is None or place.name != name or place.parent == root:
            continue
        if (root / name).exists() or not place.exists():
            found[place.parent] = None
    return list(found)


def bring_home(settings: Settings) -> list[str]:
    """Let the addresses lead to where the artifacts are; what was changed, a line each.

    Raises:
        RegistryError: The database can't be read.
    """
    told = []
    for former in former_roots(settings):
        after = Path(settings.artifacts_root.removeprefix("file://")).resolve()
        count = relocate(settings.mlflow_uri, former.as_uri(), after.as_uri())
        told.append(f"the registry in {_database(settings)}: {count} addresses lead to {after}, no longer to {former}")
    return told


def relocate(uri: str, before: str, after: str) -> int:
    """Let every address at or below `before` be at or below `after`; how many were changed."""
    import sqlalchemy
    from sqlalchemy import text

    engine = sqlalchemy.create_engine(uri)
    changed = 0
    with engine.begin() as connection:
        for table, column in _ADDRESSES:
            statement = text(
                f"update {table} set {column} = :after || substr({column}, :start) "  # noqa: S608 - our own names
                f"where {column} = :before or substr({column}, 1, :start) = :below"
            )
            values = {"after": after, "before": before, "below": f"{before}/", "start": len(before) + 1}
            changed += connection.execute(statement, values).rowcount
    engine.dispose()
    return changed


def _experiments(path: Path) -> list[tuple[str, str]]:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
            return list(connection.execute(_OURS)) if "experiments" in tables else []
    except sqlite3.Error as error:
        raise RegistryError(f"{path} can't be read: {error}", "See `perennial doctor`; restore a backup") from error


def _database(settings: Settings) -> Path | None:
    uri = settings.mlflow_uri
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _local(address: str) -> Path | None:
    """The folder of an address; None for one that is no local folder."""
    if "://" not in address:
        return Path(address).resolve() if address and ":/" not in address else None
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.hostname in (None, "localhost") else None
