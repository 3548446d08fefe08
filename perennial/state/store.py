"""The tables: Delta Lake under one root, a folder or s3://…. Their columns are in tables.py; it knows no model or flow.

A table is `ROOT/MODEL/TABLE`. Every append is one atomic commit, from any number of processes. An append
with a key happens once: the key is a Delta application transaction, so that of two writers with one key,
on any storage, one commits and the other is told. A commit's number is the table's version, and `read`
takes one: that is the data version which a training records.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from perennial.errors import ConflictError, DataError, NotFoundError
from perennial.state.storage import Objects, storage_error, storage_options
from perennial.state.tables import LAYOUT, TIME, cast_exactly, conform

_ATTEMPTS = 25
_GROUP_ROWS = 262_144
_CHUNK_ROWS = 32_768
_FILE_BYTES = 100 << 20
_VARIED_SHARE = 0.9  # so varied 32,768 rows have more values than a dictionary page holds
_VARIED = ColumnProperties(dictionary_enabled=False)
_APPEND = "perennial.append"


@dataclass(frozen=True)
class Appended:
    """What an append did: the table's version after it, and whether it wrote (False: the key was there)."""

    version: int
    written: bool


class Store:
    """The tables of every model under one root.

    Args:
        root: A folder or an object-store URL.
        options: What the object store needs, as `deltalake` takes it; by default what the environment says.
        before_first: Called before a table is made.
    """

    def __init__(
        self, root: str, options: Mapping[str, str] | None = None, before_first: Callable[[], None] = lambda: None
    ) -> None:
        self.root = root.rstrip("/")
        self._options = storage_options(self.root) if options is None else dict(options)
        self._before_first = before_first

    def location(self, model: str, table: str) -> str:
        if table not in LAYOUT:
            raise NotFoundError(f"there is no table {table!r}", f"Known tables: {', '.join(LAYOUT)}")
        return f"{self.root}/{model}/{table}"

    def append(
        self, model: str, table: str, rows: pa.Table | pd.DataFrame, *, key: str | None = None, sequence: int = 1
    ) -> Appended:
        """Add rows in one commit; with a key, only if no commit of that key reached `sequence` (compare-and-set).

        Raises:
            DataError: A column is missing, or its type differs from the table's.
            ConflictError: Other writers won every one of many attempts.
            StorageError: The storage is full, refuses, or does not answer; nothing was appended.
        """
        conformed = conform(table, rows)
        return self._append(
            model, table, conformed.schema, _writing(conformed), lambda delta: _fit(delta, conformed), key, sequence
        )

    def append_parts(
        self, model: str, table: str, parts: Callable[[], Iterator[pa.Table | pd.DataFrame]], *, key: str | None = None
    ) -> Appended | None:
        """As `append`, one commit, of rows that are never held whole; None where there is no part.

        Args:
            parts: Gives the parts anew each time it is called: an append that met another one begins again. It may
                read no table: that is not possible while one is written.

        Raises:
            DataError: A part lacks a column, differs in type, or could not be given; nothing was appended.
            ConflictError, StorageError: As `append`.
        """
        begun = parts()
        first = next(begun, None)
        if first is None:
            return None
        conformed = conform(table, first)
        schema, writing = conformed.schema, _writing(conformed)
        del conformed
        attempts = chain([chain([first], begun)], iter(parts, None))

        refused: list[DataError] = []  # the writer tells of it in words of its own, with our traceback in them

        def batches(fitted: pa.Schema) -> Iterator[pa.RecordBatch]:
            try:
                for part in next(attempts):
                    yield from _cast(conform(table, part), fitted).to_batches(_CHUNK_ROWS)
            except DataError as error:
                refused.append(error)
                raise

        def reader(delta: DeltaTable) -> pa.RecordBatchReader:
            fitted = _fit(delta, schema.empty_table()).schema
            return pa.RecordBatchReader.from_batches(fitted, batches(fitted))

        try:
            return self._append(model, table, schema, writing, reader, key, 1)
        except Exception:
            if refused:
                raise refused[0] from None
            raise

    def replace(
        self, model: str, table: str, rows: pa.Table | pd.DataFrame, *, version: int, key: str
    ) -> Appended:  # fmt: skip
        """Let these rows stand for all that the table had at a version, in one commit, once for each key.

        What others appended since stays beside them, and that version stays readable.

        Raises:
            ConflictError: Somebody else replaced or merged what was read.
        """
        conformed = conform(table, rows)
        if (done := self.committed(model, table, key)) is not None:
            return Appended(done, False)
        if self.version(model, table) is None:
            raise NotFoundError(f"there is no table {model}/{table} to replace", "Append to it")
        with self._told(f"replace {model}/{table}"):
            delta = self._open(model, table, version)
            assert delta is not None
            properties = CommitProperties(app_transactions=[Transaction(key, 1)])
            try:
                write_deltalake(
                    delta, _fit(delta, conformed), mode="overwrite", schema_mode="merge", commit_properties=properties
                )
            except CommitFailedError as error:
                raise ConflictError(
                    f"the table {model}/{table} was changed in between: {error}", "Try again"
                ) from error
            return Appended(int(delta.version()), True)

    def _append(
        self, model: str, table: str, schema: pa.Schema, writing: WriterProperties, rows: Callable[[DeltaTable], Any],
        key: str | None, sequence: int,
    ) -> Appended:  # fmt: skip
        nonce = uuid.uuid4().hex
        transactions = [Transaction(key, sequence)] if key else None
        properties = CommitProperties(custom_metadata={_APPEND: nonce}, app_transactions=transactions)
        for attempt in range(_ATTEMPTS):
            with self._told(f"append to {model}/{table}"):
                try:
                    delta = self._open_or_create(model, table, schema)
                    if key and (delta.transaction_version(key) or 0) >= sequence:
                        # After a lost answer it may have been this very append.
                        return Appended(
                            int(delta.version()),
                            attempt > 0 and self._was_committed(model, table, int(delta.version()), nonce),
                        )
                    return _commit(delta, rows(delta), properties, writing)
                except CommitFailedError:
                    continue  # somebody else committed in between: look again
        raise ConflictError(f"the table {model}/{table} is being written by too many at once", "Try again")

    def read(
        self,
        model: str,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows of a table, or of an earlier version of it; an absent table reads as empty.

        Args:
            columns: The columns wanted; all by default.
            where: A filter that is pushed down to files and row groups.
            version: The version to read at; the newest by default.
        """
        delta = self._open(model, table, version)
        if delta is None:
            empty = LAYOUT[table].empty_table()
            return empty.select([name for name in columns if name in empty.column_names]) if columns else empty
        with self._told(f"read {model}/{table}"):
            dataset = delta.to_pyarrow_dataset()
            wanted = [name for name in columns if name in dataset.schema.names] if columns is not None else None
            return dataset.to_table(columns=wanted, filter=where)

    def frame(self, model: str, table: str, **reading: Any) -> pd.DataFrame:
        """`read` as a DataFrame: times in UTC microseconds, text as pandas `str`."""
        frame: pd.DataFrame = self.read(model, table, **reading).to_pandas()
        return frame

    def count(self, model: str, table: str, *, where: pc.Expression | None = None, version: int | None = None) -> int:
        """How many rows `read` would give."""
        delta = self._open(model, table, version)
        return 0 if delta is None else int(delta.to_pyarrow_dataset().count_rows(filter=where))

    def version(self, model: str, table: str) -> int | None:
        """The table's newest version; None where it does not exist yet."""
        delta = self._open(model, table, None)
        return None if delta is None else int(delta.version())

    def committed(self, model: str, table: str, key: str) -> int | None:
        """The greatest sequence that a key was committed with; None if never."""
        delta = self._open(model, table, None)
        return None if delta is None else delta.transaction_version(key)

    def compact(self, model: str, table: str, *, least_files: int = 2) -> bool:
        """Merge small files into large ones, where there are so many; readers and earlier versions are untouched.

        Returns:
            Whether it was done; another writer at work is a reason to leave it for the next time.
        """
        delta = self._open(model, table, None)
        if delta is None or len(delta.file_uris()) < least_files:
            return False
        with self._told(f"compact {model}/{table}"):
            try:
                delta.optimize.compact()
            except CommitFailedError:
                return False
            delta.create_checkpoint()
        return True

    def vacuum(
        self, model: str, table: str, *, keep_versions: Sequence[int] = (), quiet_hours: int, dry_run: bool
    ) -> list[str]:
        """Remove the files that neither the newest version needs nor one to be kept; their names within the table.

        Args:
            keep_versions: Earlier versions that must stay readable; one that can't be read any more is left out.
            quiet_hours: A file that was written, or replaced, so short a time ago stays: somebody may be reading it.
            dry_run: Only name them.
        """
        delta = self._open(model, table, None)
        if delta is None:
            return []
        kept = [version for version in sorted(set(keep_versions)) if self._is_there(model, table, version)]
        with self._told(f"vacuum {model}/{table}"):
            found: list[str] = delta.vacuum(
                quiet_hours, dry_run=dry_run, enforce_retention_duration=False, full=True, keep_versions=kept or None
            )
        return found

    def remove(self, model: str, table: str, where: str) -> int:
        """Remove rows by an SQL predicate in one commit; how many. Another writer in between puts it off: 0.

        The files stay until `vacuum`.
        """
        delta = self._open(model, table, None)
        if delta is None:
            return 0
        with self._told(f"remove rows of {model}/{table}"):
            try:
                return int(delta.delete(where)["num_deleted_rows"] or 0)
            except CommitFailedError:
                return 0

    def forget_log(self, model: str, table: str) -> None:
        """Remove the log of commits older than the table's own retention (30 days): they can't be read any more."""
        delta = self._open(model, table, None)
        if delta is not None:
            with self._told(f"clean the log of {model}/{table}"):
                delta.create_checkpoint()
                delta.cleanup_metadata()

    def _is_there(self, model: str, table: str, version: int) -> bool:
        try:
            return self._open(model, table, version) is not None
        except NotFoundError:
            return False

    def _was_committed(self, model: str, table: str, newest: int, nonce: str) -> bool:
        """Whether one of the last commits is the append of this nonce."""
        objects = Objects(self.root)
        for version in range(newest, max(-1, newest - 2 * _ATTEMPTS), -1):
            content = objects.get(f"{model}/{table}/_delta_log/{version:020d}.json")
            if content is not None and nonce.encode() in content:
                return True
        return False

    def _open(self, model: str, table: str, version: int | None) -> DeltaTable | None:
        try:
            return DeltaTable(self.location(model, table), version=version, storage_options=self._options or None)
        except DeltaError as error:
            newest = self.version(model, table) if version is not None else None
            if version is not None and (newest is None or not 0 <= version <= newest):
                raise NotFoundError(
                    f"table {model}/{table} has no version {version}", "Read a version that exists"
                ) from None
            if isinstance(error, TableNotFoundError):
                return None
            raise self._meaning(error, f"read {model}/{table}") from error
        except OSError as error:
            raise storage_error(self.root, error, f"read {model}/{table}") from error

    def _open_or_create(self, model: str, table: str, schema: pa.Schema) -> DeltaTable:
        found = self._open(model, table, None)
        if found is not None:
            return found
        self._before_first()
        return DeltaTable.create(
            self.location(model, table), schema=schema, mode="ignore", storage_options=self._options or None
        )

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Failures of the storage as what they mean."""
        try:
            yield
        except CommitFailedError:
            raise
        except DeltaError as error:
            raise self._meaning(error, doing) from error
        except OSError as error:
            raise storage_error(self.root, error, doing) from error

    def _meaning(self, error: DeltaError, doing: str) -> Exception:
        text = str(error)
        signs = ("os error", "No space left", "Generic S3", "Error performing", "LocalFileSystem")
        return storage_error(self.root, error, doing) if any(sign in text for sign in signs) else error


def _commit(delta: DeltaTable, rows: Any, properties: CommitProperties, writing: WriterProperties) -> Appended:
    write_deltalake(
        delta, rows, mode="append", schema_mode="merge", commit_properties=properties, writer_properties=writing,
        target_file_size=_FILE_BYTES,
    )  # fmt: skip
    return Appended(int(delta.version()), True)


def _writing(rows: pa.Table) -> WriterProperties:
    """How the files of such rows are written. Properties of our own switch the writer's own compression off.

    A dictionary of ids or measurements outgrows its page in every row group, is thrown away, and was most of the work.
    """
    sample = rows.slice(0, _CHUNK_ROWS)
    varied = {name: _VARIED for name in sample.column_names if _is_varied(sample.column(name))}
    # The writer holds a row group until it is full: its own default is a million rows.
    return WriterProperties(
        max_row_group_size=_GROUP_ROWS, compression="SNAPPY", column_properties=varied if varied else None
    )


def _is_varied(column: pa.ChunkedArray) -> bool:
    """Whether nearly every cell is another one."""
    kind, present = column.type, len(column) - column.null_count
    if not (pa.types.is_string(kind) or pa.types.is_primitive(kind)):
        return False
    return bool(pc.count_distinct(column, mode="only_valid").as_py() > _VARIED_SHARE * present)


def _cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """A part in the types of the whole: a column may be empty in one part and not in another."""
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            raise DataError(f"a part of one delivery lacks column {field.name}", "Give all parts the same columns")
        try:
            columns.append(cast_exactly(rows.column(field.name), field.type))
        except ValueError as error:
            problem = f"the parts of one delivery differ in type: column {field.name}: {error}"
            raise DataError(problem, "Give each column one type") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _fit(delta: DeltaTable, rows: pa.Table) -> pa.Table:
    """The rows in the table's own types, where that loses nothing."""
    for field in delta.to_pyarrow_dataset().schema:
        position = rows.schema.get_field_index(field.name)
        if position < 0 or rows.schema.field(position).type == field.type:
            continue
        try:
            rows = rows.set_column(position, field, cast_exactly(rows.column(position), field.type))
        except ValueError as error:
            problem = f"column {field.name} holds {rows.schema.field(position).type}, the table {field.type}: {error}"
            remedy = "Give the type that the column had so far, or start the model anew under another name"
            raise DataError(problem, remedy) from error
    return rows


def between(column: str, start: datetime | None, end: datetime) -> pc.Expression:
    """The filter start ≤ column < end, open below where there is no start."""
    upper = pc.field(column) < pa.scalar(end, type=TIME)
    return upper if start is None else (pc.field(column) >= pa.scalar(start, type=TIME)) & upper


def among(column: str, values: Any) -> pc.Expression:
    """Whether a text column's cell is one of the values: any sequence of texts, also none at all or nothing but null.

    Arrow's own `isin` takes the type from the values, and has none to take from no value.
    """
    found = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return pc.field(column).isin(found.cast(pa.string()))


def read_table(location: str) -> pa.Table:
    """Somebody else's Delta table, whole.

    Raises:
        NotFoundError: There is none.
        StorageError: Its storage does not answer.
    """
    try:
        delta = DeltaTable(location, storage_options=storage_options(location) or None)
        return delta.to_pyarrow_dataset().to_table()
    except TableNotFoundError:
        raise NotFoundError(f"there is no Delta table at {location}", "Correct the path") from None
    except OSError as error:
        raise storage_error(location, error, "read the table") from error
