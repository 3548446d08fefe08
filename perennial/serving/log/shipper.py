"""From the spool to the tables: whole segments in one keyed commit each, ids once, small files merged. A thread.

The champion's and the canary's answers go to MODEL's table `predictions`, the shadow's scores to a table of the same
layout beneath it (MODEL/shadow): they are judged apart and never taken for what was answered.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import PerennialError
from perennial.serving.log.spool import Segments, read_segment, segment_key
from perennial.state.locks import exclusive
from perennial.state.store import Store

if TYPE_CHECKING:
    from perennial.serving.protocol.codec import Request
    from perennial.serving.protocol.schema import Row
    from perennial.serving.versions.model import LoadedModel

LOG = logging.getLogger("perennial.serving")
_TIME = pa.timestamp("us", tz="UTC")
_SAME_ID_HOURS = 24
_SHIP_WAIT_SECONDS = 60.0
SHADOW = "shadow"
_COLUMNS = (
    "id", "time", "score", "version", "predicted_at", "origin", "raw_score", "role", "group", "propensity",
    "latency_ms", "inputs",
)  # fmt: skip


class Entry(msgspec.Struct, array_like=True):
    """One scored request as the spool holds it; the rows' parts are lists of one length.

    Attributes:
        role: champion, canary or shadow.
        times: Event times in microseconds; None where the request's own time counts.
        groups: control, treated, or None where there is no control group.
        own_ids: Whether the ids are the client's, which may come twice.
        scores: Numbers, or of many classes lists of one for each.
        raw_scores: Before a recalibration's map; None where they are the scores.
        columns: The names of the cells in `rows`, without those that are redacted.
    """

    role: str
    version: int
    at_us: int
    latency_us: int
    own_ids: bool
    ids: list[str]
    scores: list[Any]
    times: list[int | None] | None
    groups: list[str] | None
    control_share: float
    columns: list[str]
    rows: list[list[Any]]
    raw_scores: list[Any] | None = None


_ENTRIES = msgspec.json.Decoder(Entry)
_encode = msgspec.json.Encoder().encode


def entry_of(
    model: LoadedModel, role: str, version: int, latency_us: int, request: Request, rows: list[Row],
    ids: list[str], scores: tuple[list[Any], list[Any]], groups: list[str] | None, chosen: Sequence[int],
) -> Entry:  # fmt: skip
    """What is written down of the chosen rows of a request: without images and what is redacted."""
    serving, schema = model.definition.serving, model.schema
    whole = len(chosen) == len(ids)
    hidden = {name for name, kind in zip(schema.columns, schema.kinds, strict=True) if kind == "image"}
    hidden |= set(serving.redact)
    columns = list(schema.columns)
    logged: list[Row] = rows if whole else [rows[index] for index in chosen]
    if hidden:
        kept = [index for index, name in enumerate(columns) if name not in hidden]
        columns = [columns[index] for index in kept]
        logged = [[row[index] for index in kept] for row in logged]

    def pick(values: list[Any]) -> list[Any]:
        return values if whole else [values[index] for index in chosen]

    return Entry(
        role=role, version=version, at_us=time.time_ns() // 1000, latency_us=latency_us,
        own_ids=request.ids is not None, ids=pick(ids), scores=pick(scores[1]),
        times=None if request.times is None else pick(request.times),
        groups=None if groups is None else pick(groups), control_share=serving.control_group,
        columns=columns, rows=logged, raw_scores=None if scores[0] is scores[1] else pick(scores[0]),
    )  # fmt: skip


def prediction_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows of the table `predictions`, with our columns beside the layout's."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for entry in entries:
        count = len(entry.ids)
        columns["id"] += entry.ids
        columns["time"] += [entry.at_us if time_us is None else time_us for time_us in entry.times or _none(count)]
        columns["score"] += entry.scores
        columns["raw_score"] += entry.raw_scores or entry.scores
        columns["version"] += [entry.version] * count
        columns["predicted_at"] += [entry.at_us] * count
        columns["origin"] += ["api"] * count
        columns["role"] += [entry.role] * count
        columns["group"] += entry.groups or _none(count)
        columns["propensity"] += [_propensity(group, entry.control_share) for group in columns["group"][-count:]]
        columns["latency_ms"] += [entry.latency_us / 1000] * count
        columns["inputs"] += [_inputs(entry.columns, row) for row in entry.rows]
    many = any(isinstance(entry.scores[0], list) for entry in entries if entry.scores)
    score = pa.list_(pa.float64()) if many else pa.float64()
    kinds = {"id": pa.string(), "time": _TIME, "version": pa.int64(), "predicted_at": _TIME}
    kinds |= dict.fromkeys(("score", "raw_score"), score)
    kinds |= {name: pa.float64() for name in ("propensity", "latency_ms")}
    return pa.table({name: pa.array(cells, type=kinds.get(name, pa.string())) for name, cells in columns.items()})


class Shipper:
    """Ships sealed segments, and those of dead processes: round by round, or in a thread of its own.

    Args:
        spool: This process's, or that of all.
        store: The tables.
        locks: The folder of locks between processes.
        ship_seconds, ship_rows: When a segment is sealed.
        compact_commits: After so many commits of this process a table's small files are merged.
        on_shipped: Called with model and rows.
        tick: Called about once a second.
        also: Further work of each round, such as labels; its errors are logged.
    """

    def __init__(
        self, spool: Segments, store: Store, locks: Path, *, ship_seconds: float, ship_rows: int, compact_commits: int,
        on_shipped: Callable[[str, int], None] = lambda *_: None, also: Callable[[], object] = lambda: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._spool, self._store, self._locks = spool, store, locks
        self._ship_seconds, self._ship_rows, self._compact_commits = ship_seconds, ship_rows, compact_commits
        self._on_shipped, self._also, self._tick = on_shipped, also, tick
        self._commits: dict[str, int] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.failing = ""
        self.torn_lines = 0
        self.last_shipped_at = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="perennial-shipper", daemon=True)
        self._thread.start()

    def stop(self, patience_seconds: float = 10.0) -> None:
        """Ship what there is and end; what can't be shipped in time stays in the spool for the next process."""
        self._stop.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=patience_seconds)

    def ship(self) -> int:
        """Ship everything sealed, own and orphaned; the number of rows.

        A segment that fails stays; the first failure is in `failing`.
        """
        shipped, failure = 0, ""
        for path in self._spool.sealed():
            done, problem = self._try(path)
            shipped, failure = shipped + done, failure or problem
        for path in self._spool.orphans():
            done, problem = self._try(path)
            shipped, failure = shipped + done, failure or problem
        if failure and not self.failing:
            LOG.error("the prediction log can't be shipped", extra={"facts": {"reason": failure}})
        self.failing = failure
        if shipped:
            self.last_shipped_at = time.time()
        self._spool.measure()
        return shipped

    def _run(self) -> None:
        at = time.monotonic()
        while not self._stop.is_set():
            self._wake.wait(min(1.0, self._ship_seconds))
            self._tick()
            self._spool.seal(self._ship_rows, self._ship_seconds)
            if time.monotonic() - at >= self._ship_seconds or self._spool.sealed():
                at = time.monotonic()
                self.round()
        self._spool.seal()
        self.round()

    def round(self) -> None:
        """Ship, and do what else is to be done; a failure is logged, and the next round tries again."""
        try:
            self.ship()
            self._also()
            _give_back_memory()
        except Exception:
            LOG.exception("shipping failed; trying again")

    def _try(self, path: Path) -> tuple[int, str]:
        model = path.parent.name
        try:
            with exclusive(self._locks, f"ship-{model}", wait_seconds=_SHIP_WAIT_SECONDS, busy=f"{model} is shipped"):
                if not path.exists():
                    return 0, ""
                rows = self._ship_segment(model, path)
                path.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 - any storage fails in its own way; the segment stays
            return 0, str(error) if isinstance(error, PerennialError) else f"{type(error).__name__}: {error}"[:300]
        self._on_shipped(model, rows)
        return rows, ""

    def _ship_segment(self, model: str, path: Path) -> int:
        entries, torn = read_segment(path, _ENTRIES)
        self.torn_lines += torn
        answered = [entry for entry in entries if entry.role != SHADOW]
        shadowed = [entry for entry in entries if entry.role == SHADOW]
        key = segment_key(path)
        for table_of, part in ((model, answered), (f"{model}/{SHADOW}", shadowed)):
            if not part:
                continue
            table = self._once(table_of, part, key)
            if len(table) and self._store.append(table_of, "predictions", table, key=key).written:
                self._merge_small_files(table_of)
        return sum(len(entry.ids) for entry in entries)

    def _once(self, model: str, entries: Sequence[Entry], key: str) -> pa.Table:
        """The rows whose id was not logged before: of an id that a client gives twice, the first counts."""
        table = prediction_table(entries)
        if not any(entry.own_ids for entry in entries) or self._store.committed(model, "predictions", key) is not None:
            return table
        since = datetime.now(UTC) - timedelta(hours=_SAME_ID_HOURS)
        where = pc.field("predicted_at") >= pa.scalar(since, type=_TIME)
        logged = set(self._store.read(model, "predictions", columns=["id"], where=where)["id"].to_pylist())
        kept = []
        for index, name in enumerate(table["id"].to_pylist()):
            if name not in logged:
                logged.add(name)
                kept.append(index)
        return table.take(pa.array(kept, type=pa.int64()))

    def _merge_small_files(self, model: str) -> None:
        self._commits[model] = self._commits.get(model, 0) + 1
        if self._commits[model] % self._compact_commits == 0:
            try:
                self._store.compact(model, "predictions")
            except Exception as error:  # noqa: BLE001 - another process may have merged the same files: next time
                LOG.warning("compaction failed", extra={"facts": {"model": model, "reason": str(error)[:200]}})


def _propensity(group: str | None, share: float) -> float | None:
    return None if group is None else share if group == "control" else 1.0 - share


def _inputs(columns: Sequence[str], row: Sequence[Any]) -> str:
    return _encode(dict(zip(columns, row, strict=True))).decode()


def _give_back_memory() -> None:
    """Return what a commit needed to the system, where the C library can: a worker otherwise keeps its peak."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _none(count: int) -> list[Any]:
    return [None] * count
