"""Rows from a definition's source, within a range of time. No normal form, no tables of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from glob import glob
from pathlib import Path
from typing import Any

import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError, DefinitionError
from perennial.model.plugins import load_attribute
from perennial.state.store import read_table
from tasks.rows.files import read_file, require_readable, typed_frame
from tasks.rows.normal_form import time_column


def read_source(definition: ModelDefinition, start: datetime | None, end: datetime) -> pd.DataFrame:
    """The source's rows with start ≤ time < end, as they come.

    Raises:
        DataError: The source is missing, unreadable, or has no time column.
    """
    source, folder = definition.data.source, definition.folder
    if source.loader:
        function = load_attribute(source.loader, folder)
        frame = function(start, end, **source.options)
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"{source.loader} returned {type(frame).__name__}", "Return a pandas DataFrame")
    elif source.sql:
        frame = _read_sql(source.sql, str(source.url_env), start, end)
    elif source.delta:
        frame = typed_frame(read_table(_resolve(source.delta, folder)), definition)
    else:
        paths = _expand(_resolve(str(source.parquet or source.csv), folder))
        frame = pd.concat([read_file(path, definition) for path in paths], ignore_index=True)
    return _within(frame, definition, start, end)


def require_source(definition: ModelDefinition) -> None:
    """Refuse, before anything is begun, a source of which that much is certain: it can't be read.

    Raises:
        DataError: No file matches, or its beginning can't be read.
        DefinitionError: The variable with the database's address is not set, or the loader does not exist.
    """
    source, folder = definition.data.source, definition.folder
    if source.loader:
        load_attribute(source.loader, folder)
    elif source.sql:
        _address(str(source.url_env))
    elif not source.delta:
        require_readable(_expand(_resolve(str(source.parquet or source.csv), folder))[0], definition)


def _within(frame: pd.DataFrame, definition: ModelDefinition, start: datetime | None, end: datetime) -> pd.DataFrame:
    time = definition.data.time
    if time not in frame.columns:
        raise DataError(f"the source has no column {time}", "Correct data.time in the definition")
    moments = time_column(frame[time])
    inside = moments < pd.Timestamp(end)
    if start is not None:
        inside &= moments >= pd.Timestamp(start)
    return frame[inside.to_numpy()].reset_index(drop=True)


def _read_sql(query: str, url_env: str, start: datetime | None, end: datetime) -> pd.DataFrame:
    lower = start or datetime.fromisoformat("0001-01-01T00:00:00+00:00")

    def run(connection: Any) -> Any:
        import sqlalchemy

        span: dict[str, Any] = {"start": lower, "end": end}
        if connection.dialect.name == "sqlite":
            # It has no times. Python's driver writes them as this text, from 3.12 on under protest.
            span = {name: moment.isoformat(" ") for name, moment in span.items()}
        return connection.execute(sqlalchemy.text(query), span)

    return _of_database(url_env, run)


def read_sql_table(table: str, url_env: str, rows: int) -> pd.DataFrame:
    """The first rows of a table, `NAME` or `SCHEMA.NAME`, for who has no definition yet.

    Raises:
        DefinitionError: The environment variable with the database's URL is not set.
        DataError: The database refuses.
    """

    def run(connection: Any) -> Any:
        import sqlalchemy

        schema, _, name = table.rpartition(".")
        return connection.execute(
            sqlalchemy.select(sqlalchemy.text("*"))
            .select_from(sqlalchemy.table(name, schema=schema or None))
            .limit(rows)
        )

    return _of_database(url_env, run)


def sql_of_table(table: str, time: str, url_env: str) -> str:
    """The query that a definition reads a table by, in the words of its database.

    Raises:
        DefinitionError: The environment variable with the database's URL is not set.
    """
    import sqlalchemy

    quote = sqlalchemy.create_engine(_address(url_env)).dialect.identifier_preparer.quote
    name = ".".join(quote(part) for part in table.split("."))
    return f"SELECT * FROM {name} WHERE {quote(time)} >= :start AND {quote(time)} < :end"  # noqa: S608 - quoted by the database's rules


def _of_database(url_env: str, run: Callable[[Any], Any]) -> pd.DataFrame:
    """What a query gives, as the driver gives it."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    url = _address(url_env)
    try:
        with sqlalchemy.create_engine(url, poolclass=NullPool).connect() as connection:
            result = run(connection)
            names, rows = list(result.keys()), result.fetchall()
    except ImportError as error:
        raise DataError(f"the driver of {url_env} is missing: {error}", "Install it beside Perennial") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        # The database's message without the URL: it may hold a password.
        kind = type(error.__cause__ or error).__name__
        raise DataError(f"the query of {url_env} failed: {kind}", "Run it by hand to see why") from None
    # As the driver gives them: pandas would make floats of integers beside a missing value, and of decimals.
    return pd.DataFrame([tuple(row) for row in rows], columns=names, dtype=object)


def _address(url_env: str) -> str:
    url = os.environ.get(url_env)
    if not url:
        raise DefinitionError(f"the environment variable {url_env} is not set", "Put the database URL there")
    return url


def _resolve(path: str, folder: Path) -> str:
    expanded = os.path.expandvars(path)
    return expanded if "://" in expanded or Path(expanded).is_absolute() else str(folder / expanded)


def _expand(pattern: str) -> list[str]:
    if "://" in pattern:
        return [pattern]
    found = sorted(glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
    if not found:
        raise DataError(f"no file matches {pattern}", "Correct data.source in the definition, or put the file there")
    return found
