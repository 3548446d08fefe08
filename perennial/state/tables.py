"""What the tables hold: their columns and types, and rows brought into them. Nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import DataError

TIME = pa.timestamp("us", tz="UTC")
_SCORES = pa.list_(pa.float64())

# Our columns beside a model's features, which never start with an underscore.
ROW_BATCH, ROW_ID, ROW_TIME, ROW_INGESTED_AT, ROW_TRUTH = "_batch_id", "_id", "_time", "_ingested_at", "_truth"

LAYOUT: Mapping[str, pa.Schema] = {
    # The rows of ingested batches; the features' columns, under their own names, are added by the first batch.
    "batches": pa.schema([(ROW_BATCH, pa.string()), (ROW_ID, pa.string()), (ROW_TIME, TIME), (ROW_INGESTED_AT, TIME)]),
    # One row a batch: what came, what was kept.
    "receipts": pa.schema(
        [
            ("batch_id", pa.string()),
            ("ingested_at", TIME),
            ("source", pa.string()),
            ("verdict", pa.string()),
            ("rows", pa.int64()),
            ("kept", pa.int64()),
            ("quarantined", pa.int64()),
            ("duplicates", pa.int64()),
            ("labels", pa.int64()),
            ("time_from", TIME),
            ("time_until", TIME),
            ("report", pa.string()),
        ]
    ),
    # Rows that were refused, whole as JSON, with their reasons; `batch_id` leads to the receipt, `entry` names the
    # row's content, `scope` says whether it was refused by itself (row) or with its delivery (batch).
    "quarantine": pa.schema(
        [
            ("batch_id", pa.string()),
            ("position", pa.int64()),
            ("id", pa.string()),
            ("quarantined_at", TIME),
            ("reasons", pa.string()),
            ("row", pa.string()),
            ("entry", pa.string()),
            ("scope", pa.string()),
            ("rules", pa.string()),
            ("time", TIME),
            ("source", pa.string()),
        ]
    ),
    # What became of quarantined rows; an entry is open until it has a line that is newer than its refusal.
    "quarantine_states": pa.schema(
        [
            ("entry", pa.string()),
            ("state", pa.string()),
            ("at", TIME),
            ("by", pa.string()),
            ("reason", pa.string()),
            ("batch_id", pa.string()),
        ]
    ),
    # What the codes mean in `labels`: the row of the greatest number; with the shares where the classes were learnt. Of
    # more than two all are in `names`, and the first and last of them here.
    "classes": pa.schema(
        [
            ("number", pa.int64()),
            ("target", pa.string()),
            ("negative", pa.string()),
            ("positive", pa.string()),
            ("shares", pa.string()),
            ("learnt_at", TIME),
            ("batch_id", pa.string()),
        ]
    ),
    # Late truth; the newest row of an id that was known at a moment is the truth at that moment. A missing truth takes
    # back what was said before; with a `word` beside it, it was said in a word that is no class any more.
    "labels": pa.schema([("id", pa.string()), ("truth", pa.float64()), ("labelled_at", TIME), ("author", pa.string())]),
    # Of more than two classes `score` is a list: the probability of each, in the order of the version's classes.
    "predictions": pa.schema(
        [
            ("id", pa.string()),
            ("time", TIME),
            ("score", pa.float64()),
            ("version", pa.int64()),
            ("predicted_at", TIME),
            ("origin", pa.string()),
        ]
    ),
    # Decisions, their claims and their outcomes, in the order in which they happened.
    "decisions": pa.schema(
        [
            ("kind", pa.string()),
            ("decision_id", pa.string()),
            ("as_of", TIME),
            ("recorded_at", TIME),
            ("by", pa.string()),
            ("body", pa.string()),
        ]
    ),
    # What each column of each check's window looked like: a row a column. `unseen` values lie outside the training's
    # range, or it does not have them; `quantiles` are those at 5, 25, 50, 75 and 95 %; `top` has the most frequent
    # values as JSON; `points` and `hashes` are what windows are merged by (tasks.measures.statistics).
    "column_statistics": pa.schema(
        [
            ("decision_id", pa.string()),
            ("start", TIME),
            ("end", TIME),
            ("version", pa.int64()),
            ("column", pa.string()),
            ("kind", pa.string()),
            ("rows", pa.int64()),
            ("missing", pa.int64()),
            ("unseen", pa.int64()),
            ("finite", pa.int64()),
            ("mean", pa.float64()),
            ("deviation", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("quantiles", pa.list_(pa.float64())),
            ("distinct", pa.int64()),
            ("top", pa.string()),
            ("points", pa.list_(pa.float64())),
            ("hashes", pa.binary()),
        ]
    ),
    # The same as checks kept it before there was that table: a row a window, its columns as JSON; read, not written.
    "statistics": pa.schema(
        [("block", TIME), ("profile_key", pa.string()), ("recorded_at", TIME), ("profile", pa.string())]
    ),
    # What people look at of a check's newest mature window: the mean loss of what was answered (`live`), of what the
    # first champion would have answered (`first`), of a slice, of the control group. It decides nothing.
    "figures": pa.schema(
        [
            ("decision_id", pa.string()),
            ("as_of", TIME),
            ("start", TIME),
            ("end", TIME),
            ("kind", pa.string()),
            ("part", pa.string()),
            ("version", pa.int64()),
            ("loss", pa.string()),
            ("rows", pa.int64()),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
        ]
    ),
    # What people were told of a model and stands still, as JSON; the newest line counts.
    "alerts": pa.schema([("at", TIME), ("source", pa.string()), ("decision_id", pa.string()), ("body", pa.string())]),
    # What a model stands on that is not ours, each version of it as JSON: the source's columns, an API's document.
    "watched": pa.schema([("at", TIME), ("subject", pa.string()), ("digest", pa.string()), ("body", pa.string())]),
    # The manifests that serving follows, for machines that share no folder; the newest of the greatest sequence counts.
    "live": pa.schema([("published_at", TIME), ("sequence", pa.int64()), ("manifest", pa.string())]),
    # What was put up for people (`offer`) and what they said (`answer`), in the order in which it happened. Truths are
    # in the user's words. Of an offer: why, the chance that the row had to be put up (`propensity`) and to be drawn at
    # random (`share`), whether it was drawn, from how many people an answer is wanted (0: of each), for gold its truth;
    # `time` is the row's own; `predicted` the class that was answered, and of more than two `score` is
    # its probability.
    "reviews": pa.schema(
        [
            ("kind", pa.string()),
            ("id", pa.string()),
            ("at", TIME),
            ("time", TIME),
            ("reason", pa.string()),
            ("propensity", pa.float64()),
            ("share", pa.float64()),
            ("drawn", pa.bool_()),
            ("wanted", pa.int64()),
            ("expires_at", TIME),
            ("predicted", pa.string()),
            ("score", pa.float64()),
            ("version", pa.int64()),
            ("author", pa.string()),
            ("says", pa.string()),
            ("truth", pa.string()),
            ("seconds", pa.float64()),
            ("note", pa.string()),
        ]
    ),
    # Who became champion, when and why; `sequence` counts from 1 without gaps.
    "history": pa.schema(
        [
            ("sequence", pa.int64()),
            ("version", pa.int64()),
            ("previous", pa.int64()),
            ("action", pa.string()),
            ("at", TIME),
            ("recorded_at", TIME),
            ("by", pa.string()),
            ("reason", pa.string()),
            ("decision_id", pa.string()),
        ]
    ),
}


def conform(table: str, rows: pa.Table | pd.DataFrame) -> pa.Table:
    """The rows with the layout's columns first and of its types, the others in the types that we store.

    Raises:
        DataError: A column is missing, or its values are of several types, or not of the layout's.
    """
    arrow = _arrow(table, rows)
    layout = LAYOUT[table]
    if missing := [name for name in layout.names if name not in arrow.column_names]:
        raise DataError(f"rows for the table {table} lack {', '.join(missing)}", "Add the columns")
    fields, columns = [], []
    for name in [*layout.names, *(name for name in arrow.column_names if name not in layout.names)]:
        column = arrow.column(name)
        kind = layout.field(name).type if name in layout.names else _plain(column.type)
        if (table, name) == ("predictions", "score") and pa.types.is_list(column.type):
            kind = _SCORES
        try:
            columns.append(cast_exactly(column, kind))
        except ValueError as error:
            raise DataError(f"column {name} of the table {table}: {error}", f"Give {kind}") from error
        fields.append(pa.field(name, kind))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def cast_exactly(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in another type, where it means there what it meant.

    Arrow's own cast takes "007" for 7, 2 for true, true for "true" where we spell it "True", a moment for a number, and
    1e300 for infinity where a column holds single precision.

    Raises:
        ValueError: There is no such cast, or it would lose something.
    """
    if column.type == kind:
        return column
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    families = {_family(column.type), _family(kind)}
    if len(families) > 1 and ("time" in families or families == {"text", "truth"}):
        raise ValueError(f"{column.type} is not to be read as {kind}")
    try:
        made = column.cast(kind)
        if len(families) > 1:
            same = pc.fill_null(pc.equal(made.cast(column.type), column), True)
        elif pa.types.is_floating(kind) and pa.types.is_floating(column.type):  # digits may go, a number may not
            same = pc.fill_null(pc.equal(pc.is_inf(made), pc.is_inf(column)), True)
        else:
            same = True  # Arrow refuses the rest by itself
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(str(error)) from error
    if same is not True and not pc.all(same).as_py():
        lost = pc.index(same, False).as_py()
        raise ValueError(f"{column[lost].as_py()!r} would be {made[lost].as_py()!r}")
    return made


def _family(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "truth"
    if pa.types.is_temporal(kind):
        return "time"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else str(kind)


def _arrow(table: str, rows: pa.Table | pd.DataFrame) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        told = " ".join(str(part) for part in reversed(error.args))
        raise DataError(f"rows for the table {table}: {told}", "Give each column one type") from error
    except (OverflowError, UnicodeEncodeError) as error:  # Python's own, which name no column
        column = next((name for name, values in rows.items() if _is_beyond_arrow(values)), "?")
        raise DataError(
            f"rows for the table {table}: column {column} holds a number beyond 64 bits or half a character: {error}",
            "Give such numbers as text, and whole characters",
        ) from error


def _is_beyond_arrow(column: pd.Series) -> bool:
    try:
        pa.Array.from_pandas(column)
    except (OverflowError, UnicodeEncodeError):
        return True
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return False  # of mixed types: another fault, told by its own words once this one is mended
    return False


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that a column is stored with: one for text, one for time, whatever pandas made of it."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return TIME
    return kind
