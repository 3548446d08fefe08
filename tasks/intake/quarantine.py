"""The quarantine: refused rows with their reasons, and what became of them. It judges no row and lets none in.

A refused row is an entry, named by its content without the truth, which may come later. Nothing is ever deleted: an
entry is closed by a line in `quarantine_states` (released, known, superseded, discarded), and is open again when the
same row is refused later than that. A discarded row stays discarded, however often it is delivered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from perennial.model.canonical import Unspellable, spelled
from perennial.state.store import Store, among
from perennial.state.tables import LAYOUT
from tasks.rows.normal_form import moments_where_readable, row_ids

OPEN, RELEASED, KNOWN, SUPERSEDED, DISCARDED = "open", "released", "known", "superseded", "discarded"
BY_ROW, WITH_BATCH = "row", "batch"
# The source that receipts of released rows name.
RELEASES = "quarantine"


@dataclass(frozen=True)
class RefusedRows:
    """Rows of one delivery for the quarantine: as they came, where they stood, and why."""

    frame: pd.DataFrame
    positions: np.ndarray
    reasons: Sequence[str]
    rules: Sequence[tuple[str, ...]]
    scopes: Sequence[str]


def entry_lines(
    refused: RefusedRows, definition: ModelDefinition, *, batch_id: str, source: str, at: datetime
) -> pd.DataFrame:
    """The rows as the table `quarantine` has them."""
    lines = row_lines(refused.frame, definition)
    return pd.DataFrame(
        {
            "batch_id": batch_id,
            "position": refused.positions.astype(np.int64),
            "id": _ids_where_there(refused.frame, definition),
            "quarantined_at": pd.Timestamp(at),
            "reasons": list(refused.reasons),
            "row": lines,
            "entry": [entry_name(line, definition.data.target) for line in lines],
            "scope": list(refused.scopes),
            "rules": [json.dumps(rules, ensure_ascii=False) for rules in refused.rules],
            "time": _times_where_there(refused.frame, definition),
            "source": source,
        }
    )


def without_known(there: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """The lines that tell something new: not of rows that are in quarantine by themselves for the same reason, or
    discarded. Those of a refused batch stay together.

    Args:
        there: The entries so far.
    """
    there = there[there["state"].isin([OPEN, DISCARDED]) & there["entry"].isin(lines["entry"])].set_index("entry")
    if not len(there):
        return lines
    named = lines["entry"]
    same = named.map(there["rules"]).eq(lines["rules"]) & named.map(there["scope"]).eq(BY_ROW)
    same &= lines["scope"].eq(BY_ROW)
    told = same | named.map(there["state"]).eq(DISCARDED)
    # Of the batch itself nothing is left out: its own append, repeated after a kill, must be the same.
    return lines[~(told & named.map(there["batch_id"]).ne(lines["batch_id"])).to_numpy(dtype=np.bool_)]


def entries(store: Store, definition: ModelDefinition, *, with_rows: bool = False) -> pd.DataFrame:
    """Every entry: its newest refusal, how often it was refused, its state and who gave it.

    Args:
        with_rows: Whether the rows themselves are wanted, in the column `row`.

    Returns:
        The table's columns, and refusals (int), first_at, state, closed_at, by, why: sorted by first_at, then id.
    """
    model = definition.name
    lines = _lines(store, definition, with_rows=with_rows)
    events = store.frame(model, "quarantine_states").sort_values("at", kind="stable")
    lines = lines.sort_values(["quarantined_at", "position"], kind="stable")
    newest = lines.drop_duplicates("entry", keep="last").set_index("entry")
    newest["refusals"] = lines["entry"].value_counts()
    newest["first_at"] = lines.groupby("entry")["quarantined_at"].min()
    last = events.drop_duplicates("entry", keep="last").set_index("entry")
    joined = newest.join(last[["state", "at", "by", "reason"]].rename(columns={"at": "closed_at", "reason": "why"}))
    again = joined["closed_at"].isna() | (joined["closed_at"] < joined["quarantined_at"])
    joined["state"] = joined["state"].mask(again, OPEN)
    for name in ("closed_at", "by", "why"):
        joined[name] = joined[name].mask(again)
    return joined.reset_index().sort_values(["first_at", "id", "entry"], kind="stable", ignore_index=True)


def with_rows(store: Store, definition: ModelDefinition, found: pd.DataFrame) -> pd.DataFrame:
    """Some of the `entries`, with their rows in the column `row`; no other rows are read.

    Lines of before entries had names are read whole: there a row's name is made of it.
    """
    model = definition.name
    named = "entry" in store.read(model, "quarantine", columns=["entry"]).column_names
    if named:
        columns = ["entry", "quarantined_at", "position", "row"]
        lines = store.frame(model, "quarantine", columns=columns, where=among("entry", found["entry"]))
        lines = lines.sort_values(["quarantined_at", "position"], kind="stable").drop_duplicates("entry", keep="last")
        rows = found["entry"].map(lines.set_index("entry")["row"])
        if rows.notna().all():
            return found.assign(row=rows)
    whole = entries(store, definition, with_rows=True)
    return found.assign(row=found["entry"].map(whole.set_index("entry")["row"]))


def close(
    store: Store, model: str, names: Sequence[str], state: str, *, at: datetime, by: str, reason: str,
    batch_id: str | None = None, key: str | None = None,
) -> None:  # fmt: skip
    """Close entries; what was refused again since is told by the time."""
    if not len(names):
        return
    rows = pd.DataFrame(
        {
            "entry": list(names), "state": state, "at": pd.Timestamp(at), "by": by, "reason": reason,
            "batch_id": pd.Series(batch_id, range(len(names)), dtype="str"),
        }
    )  # fmt: skip
    store.append(model, "quarantine_states", rows, key=key)


def supersede(
    store: Store, definition: ModelDefinition, came: pd.DataFrame, *, batch_id: str, source: str, at: datetime,
    only: str | None = None,
) -> int:  # fmt: skip
    """Close open entries whose id and time have come in now, mended; how many.

    Args:
        came: `_id` and `_time` of the rows that came in.
        only: Close what was refused by this rule alone: of rows that were there, and whose truth has come in.
    """
    model = definition.name
    if store.version(model, "quarantine") is None or not len(came):
        return 0
    ids = store.frame(model, "quarantine", columns=["id"], where=among("id", came["_id"]))["id"]
    if not len(ids):
        return 0
    found = entries(store, definition)
    found = found[(found["state"] == OPEN) & (found["batch_id"] != batch_id)]
    if only is not None:
        found = found[(found["scope"] == BY_ROW) & (found["rules"] == json.dumps([only], ensure_ascii=False))]
    times = came.drop_duplicates("_id").set_index("_id")["_time"]
    mended = found["id"].isin(times.index) & (found["time"].isna() | (found["id"].map(times) == found["time"]))
    names = found.loc[mended, "entry"].tolist()
    reason, key = "a row of this id and time was kept since", f"superseded:{batch_id}"
    if only is not None:
        reason, key = "a truth of this id came in since", f"superseded:truths:{batch_id}"
    close(store, model, names, SUPERSEDED, at=at, by=source, reason=reason, batch_id=batch_id, key=key)
    return len(names)


def held_back(store: Store, definition: ModelDefinition, frame: pd.DataFrame) -> np.ndarray:
    """Which rows, just as they are, were refused by themselves or discarded: shape (n,). Mended ones are not."""
    if not len(frame) or store.version(definition.name, "quarantine") is None:
        return np.zeros(len(frame), dtype=np.bool_)
    there = entries(store, definition)
    there = there[(there["state"] == DISCARDED) | ((there["state"] == OPEN) & (there["scope"] == BY_ROW))]
    ids = row_ids(frame, definition, complete=False) if len(there) else pd.Series(dtype="str")
    known, names = set(there["id"].dropna()), set(there["entry"])
    suspects = np.array([pd.isna(name) or name in known for name in ids], dtype=np.bool_) if len(there) else None
    if suspects is None or not suspects.any():
        return np.zeros(len(frame), dtype=np.bool_)
    target = definition.data.target
    lines = row_lines(frame[suspects], definition)
    suspects[suspects] = [entry_name(line, target) in names for line in lines]
    return suspects


def row_lines(frame: pd.DataFrame, definition: ModelDefinition) -> list[str]:
    """Each row as JSON that loses nothing: floats to the last bit, categories in their spelling, bytes in base64."""
    named = {*definition.data.id_columns, *definition.features.categorical} - {definition.data.time}
    columns = {
        str(name): [_cell(value, as_name=name in named) for value in _values(frame[name])] for name in frame.columns
    }
    names = list(columns)
    return [
        json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False)
        for cells in zip(*columns.values(), strict=True)
    ]


def rows_of(lines: Sequence[str], definition: ModelDefinition) -> pd.DataFrame:
    """The rows again, as a source would give them."""
    records = [json.loads(line) for line in lines]
    names = dict.fromkeys(name for record in records for name in record)
    images = set(definition.features.image)
    columns = {
        name: pd.Series([_image(record.get(name)) if name in images else record.get(name) for record in records],
                        dtype=object)
        for name in names
    }  # fmt: skip
    return pd.DataFrame(columns, index=pd.RangeIndex(len(records)))


def entry_name(line: str, target: str) -> str:
    """16 hex digits of the row's content, the truth left out."""
    content = {key: value for key, value in json.loads(line).items() if key != target}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RuleCount:
    """Open entries that one rule refused.

    Attributes:
        scope: `row`, or `batch` where a whole delivery was refused.
        oldest, newest: When the first and the last of them were refused.
    """

    rule: str
    scope: str
    rows: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True)
class Overview:
    """The quarantine at a glance: open rows by rule, and how many are closed in what way."""

    open: int
    rules: tuple[RuleCount, ...]
    closed: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        rules = [{**vars(item), "oldest": item.oldest.isoformat(), "newest": item.newest.isoformat()}
                 for item in self.rules]  # fmt: skip
        return {"open": self.open, "rules": rules, "closed": self.closed}


def overview(store: Store, definition: ModelDefinition) -> Overview:
    """What lies in quarantine, by rule; a row that breaks two counts under both."""
    found = entries(store, definition)
    lying = found[found["state"] == OPEN]
    spread = lying.assign(rule=[json.loads(rules) for rules in lying["rules"]]).explode("rule")
    rules = [
        RuleCount(str(rule), str(scope), len(rows), rows["first_at"].min(), rows["quarantined_at"].max())
        for (rule, scope), rows in spread.groupby(["rule", "scope"])
    ]
    closed = found.loc[found["state"] != OPEN, "state"].value_counts().to_dict()
    ordered = sorted(rules, key=lambda item: (-item.rows, item.rule))
    return Overview(len(lying), tuple(ordered), {str(state): int(count) for state, count in closed.items()})


def overview_markdown(model: str, found: Overview, at: datetime) -> str:
    """The overview as a page: rules with their counts and ages."""
    lines = [
        f"# {model}: {found.open:,} rows in quarantine",
        "",
        "| rows | refused | since | why |",
        "|---|---|---|---|",
    ]
    for item in found.rules:
        rule = " ".join(item.rule.replace("|", "\\|").replace("<", "&lt;").split())
        how = "by row" if item.scope == BY_ROW else "with its batch"
        lines.append(f"| {item.rows:,} | {how} | {age_text(at - item.oldest)} | {rule} |")
    closed = ", ".join(f"{count:,} {state}" for state, count in sorted(found.closed.items()))
    return "\n".join([*lines, "", f"Closed: {closed or 'none'}.", ""])


def age_text(age: timedelta) -> str:
    """An age as people say it: `3 d`, `5 h`, `12 min`."""
    for seconds, unit in ((86400, "d"), (3600, "h")):
        if age.total_seconds() >= seconds:
            return f"{int(age.total_seconds() // seconds)} {unit}"
    return f"{max(0, int(age.total_seconds() // 60))} min"


_NAMED = ("entry", "scope", "rules", "time", "source")


def _lines(store: Store, definition: ModelDefinition, *, with_rows: bool) -> pd.DataFrame:
    model, columns = definition.name, [name for name in LAYOUT["quarantine"].names if name != "row"]
    lines = store.frame(model, "quarantine", columns=None if with_rows else columns)
    if "entry" not in lines.columns or lines["entry"].isna().any():
        return _with_names(lines if with_rows else store.frame(model, "quarantine"), store, definition)
    return lines


def _with_names(lines: pd.DataFrame, store: Store, definition: ModelDefinition) -> pd.DataFrame:
    """Lines that were written before entries had names: the batch's receipt says how they were refused."""
    missing = [name for name in _NAMED if name not in lines.columns]
    lines = lines.assign(**{name: pd.Series(None, lines.index, dtype="str") for name in missing})
    lines["time"] = pd.to_datetime(lines["time"], utc=True).dt.as_unit("us")
    old = lines["entry"].isna()
    receipts = store.frame(definition.name, "receipts", columns=["batch_id", "verdict", "source"])
    accepted = set(receipts.loc[receipts["verdict"] == "accepted", "batch_id"])
    sources = receipts.drop_duplicates("batch_id").set_index("batch_id")["source"]
    batches, target = lines.loc[old, "batch_id"], definition.data.target
    lines.loc[old, "entry"] = [entry_name(line, target) for line in lines.loc[old, "row"]]
    lines.loc[old, "scope"] = [BY_ROW if name in accepted else WITH_BATCH for name in batches]
    lines.loc[old, "rules"] = [json.dumps([text], ensure_ascii=False) for text in lines.loc[old, "reasons"]]
    lines.loc[old, "source"] = batches.map(sources)
    return lines


def _values(column: pd.Series[Any]) -> Iterator[Any]:
    if column.dtype == np.float32:
        return iter(column.to_numpy())
    return iter(column.astype(object))


def _cell(value: Any, *, as_name: bool = False) -> Any:
    """A cell as JSON has it. Infinity, which it has not, is a text that no number is read from."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): _cell(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_cell(item) for item in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if as_name:
        try:
            return spelled(value)
        except Unspellable:
            pass
    value = value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, bool | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _image(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) and set(value) == {"base64"} else value


def _ids_where_there(frame: pd.DataFrame, definition: ModelDefinition) -> Any:
    """Ids of rows that may lack them, or be refused for them."""
    try:
        return row_ids(frame, definition, complete=False).to_numpy()
    except (DataError, KeyError):
        return pd.Series(None, range(len(frame)), dtype="str").to_numpy()


def _times_where_there(frame: pd.DataFrame, definition: ModelDefinition) -> Any:
    try:
        return moments_where_readable(frame[definition.data.time]).to_numpy()
    except (DataError, KeyError):
        return pd.Series(pd.NaT, range(len(frame)), dtype="datetime64[us, UTC]").to_numpy()
