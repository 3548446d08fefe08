"""MLflow's database as a whole: dumped and loaded by PostgreSQL's own programs. What is in it is not read.

Addresses go to those programs by environment, never by argument: arguments can be seen by everybody on the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from perennial.errors import RegistryError
from perennial.redaction import redact


def dump_postgres(uri: str, target: Path) -> None:
    """Write the database into a file of pg_dump's own format.

    Raises:
        RegistryError: pg_dump is missing or failed.
    """
    _run("pg_dump", uri, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


def load_postgres(source: Path, uri: str) -> None:
    """Fill an empty database; all of it or nothing.

    Raises:
        RegistryError: pg_restore is missing or failed, for instance because the database is not empty.
    """
    arguments = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
    _run("pg_restore", uri, *arguments, f"--dbname={_parts(uri)['PGDATABASE']}", str(source))


def _run(program: str, uri: str, *arguments: str) -> None:
    if shutil.which(program) is None:
        raise RegistryError(f"{program} is not installed here", "Install postgresql-client")
    done = subprocess.run(  # noqa: S603 - PostgreSQL's program, arguments as a list
        [program, "--no-password", *arguments], env={**os.environ, **_parts(uri)}, capture_output=True, text=True,
        timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise RegistryError(f"{program} failed: {lines[0][:300]}", f"Mend what it names; the registry is {redact(uri)}")


def _parts(uri: str) -> dict[str, str]:
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    parts = {
        "PGHOST": url.host, "PGPORT": str(url.port or 5432), "PGUSER": url.username, "PGDATABASE": url.database,
        "PGPASSWORD": None if url.password is None else str(url.password),
    }  # fmt: skip
    return {name: value for name, value in parts.items() if value}
