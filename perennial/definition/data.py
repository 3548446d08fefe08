"""The rows of a model and the columns it reads, as its definition says them. It reads no rows."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from perennial.definition.values import Duration, Section, Share


class Source(Section):
    """Where rows come from: exactly one of the kinds."""

    parquet: str | None = Field(None, description="A path or glob, local or s3://, relative to this file.")
    csv: str | None = Field(None, description="A path or glob, local or s3://, relative to this file.")
    delta: str | None = Field(None, description="A Delta table's path or URL.")
    sql: str | None = Field(None, description="A SELECT; :start and :end are bound to the wanted range of time.")
    loader: str | None = Field(
        None, description='"file.py:function", called as function(start, end, **options) for a DataFrame.'
    )
    url_env: str | None = Field(None, description="The environment variable with the database URL, for sql.")
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the loader.")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        given = [kind for kind in ("parquet", "csv", "delta", "sql", "loader") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of parquet, csv, delta, sql, loader; found {given or 'none'}")
        if self.sql and not self.url_env:
            raise ValueError("sql needs url_env: the name of the environment variable that holds the database URL")
        if self.loader and not re.fullmatch(r"[^:]+\.py:\w+", self.loader):
            raise ValueError('a loader is "file.py:function"')
        return self


class Data(Section):
    """The rows: where from, who they are, when they happened, and when their truth is known."""

    source: Source
    id: str | tuple[str, ...] = Field(
        description="The column that names a row, unique over all time; or a list of columns that do so together."
    )
    time: str = Field(description="The column with the event's time; naive values are taken as UTC.")
    target: str = Field(description="The column with the truth.")
    label_delay: Duration = Field(timedelta(0), description="How long after the event the truth is known.")
    refused_share: Share = Field(
        0.2,
        description="A batch of which more rows than this are unreadable or contradict others is refused whole; "
        "fewer go to quarantine alone. What the suite refuses counts by its own `mostly`.",
    )

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns that name a row together; mostly one."""
        return (self.id,) if isinstance(self.id, str) else self.id

    @model_validator(mode="after")
    def _one_part_each(self) -> Data:
        names = self.id_columns
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"id names one column, or several that differ; found {list(names)}")
        if not isinstance(self.id, str) and len(names) == 1:
            raise ValueError(f"a single id column is no list: write `id: {names[0]}`")
        if self.target in (*names, self.time):
            raise ValueError(f"the target {self.target} can't be the id or the time as well")
        return self


class Features(Section):
    """The columns that the model reads, by kind."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    image: tuple[str, ...] = Field((), description="Columns of image paths or bytes.")
    boolean: tuple[str, ...] = Field(
        (), description="Columns of truth values: true, yes, t or 1, and false, no, f or 0, in any case."
    )
    datetime: tuple[str, ...] = Field(
        (), description="Columns of dates or times in ISO 8601; the model reads their parts, also as cycles."
    )
    epoch_units: Mapping[str, Literal["s", "ms", "us", "ns"]] = Field(
        default_factory=dict, description="What the numbers in a datetime column count since 1970."
    )
    timezone: str = Field(
        "UTC", description="The zone in whose hours, days and weekdays datetime features are told, such as Europe/Rome."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        return self.numeric + self.categorical + self.text + self.image + self.boolean + self.datetime

    @model_validator(mode="after")
    def _distinct(self) -> Features:
        if not self.columns:
            raise ValueError("a model needs at least one feature")
        if hidden := [name for name in self.columns if name.startswith("_")]:
            raise ValueError(f"names that start with an underscore are ours: {', '.join(hidden)}")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise ValueError(f"each feature has one kind; named twice: {', '.join(twice)}")
        if strange := sorted(set(self.epoch_units) - set(self.datetime)):
            raise ValueError(f"epoch_units must name datetime features: {', '.join(strange)}")
        _require_zone(self.timezone)
        folded: dict[str, str] = {}
        for name in self.columns:
            if (other := folded.setdefault(name.casefold(), name)) != name:
                raise ValueError(
                    f"{other} and {name} differ only in upper and lower case, which the tables don't tell apart; "
                    "rename one in the data and here"
                )
        return self


def _require_zone(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"timezone: {name!r} is no zone of the IANA database, such as UTC or Europe/Rome") from None
