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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import PerennialError
from perennial.serving.log.entries import TIME, Entry, prediction_table
from perennial.serving.log.spool import Segments, read_segment, segment_key
from perennial.state.files import exclusive
from perennial.state.store import Store, among

LOG = logging.getLogger("perennial.serving")
_SAME_ID_HOURS = 24
_SHIP_WAIT_SECONDS = 60.0
SHADOW = "shadow"
_ENTRIES = msgspec.json.Decoder(Entry)
_TOLD_IDS = 5


@dataclass
class Repeats:
    """Rows of ids that were logged before, and are not logged again.

    Attributes:
        same: As many had the inputs of the row that counts: a request that was sent again.
        others: As many had other inputs: two rows by one name, of which the log has the first.
        ids: Some of the latter.
    """

    same: int = 0
    others: int = 0
    ids: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.same + self.others


class Shipper:
    """Ships sealed segments, and those of dead processes: round by round, or in a thread of its own.

    Args:
        spool: This process's, or that of all.
        store: The tables.
        locks: The folder of locks between processes.
        ship_seconds, ship_rows: When a segment is sealed.
        compact_commits: After so many commits of this process a table's small files are merged.
        on_shipped: Called with model and rows.
        on_repeated: Called with model and what was left out as a repeat: rows with the same inputs, rows with others.
        tick: Called about once a second.
        also: Further work of each round, such as labels; its errors are logged.
    """

    def __init__(
        self, spool: Segments, store: Store, locks: Path, *, ship_seconds: float, ship_rows: int, compact_commits: int,
        on_shipped: Callable[[str, int], None] = lambda *_: None, also: Callable[[], object] = lambda: None,
        tick: Callable[[], None] = lambda: None, on_repeated: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._spool, self._store, self._locks = spool, store, locks
        self._ship_seconds, self._ship_rows, self._compact_commits = ship_seconds, ship_rows, compact_commits
        self._on_shipped, self._on_repeated, self._also, self._tick = on_shipped, on_repeated, also, tick
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
        key, left_out = segment_key(path), 0
        for table_of, part in ((model, answered), (f"{model}/{SHADOW}", shadowed)):
            if not part:
                continue
            table, repeats = self._once(table_of, part, key)
            if len(table) and self._store.append(table_of, "predictions", table, key=key).written:
                self._merge_small_files(table_of)
            left_out += repeats.rows
            if repeats.rows and table_of == model:
                self._tell(model, repeats)
        return sum(len(entry.ids) for entry in entries) - left_out

    def _once(self, model: str, entries: Sequence[Entry], key: str) -> tuple[pa.Table, Repeats]:
        """The rows whose id was not logged before, of an id that a client gives twice the first; and the others."""
        table, repeats = prediction_table(entries), Repeats()
        own = [name for entry in entries if entry.own_ids for name in entry.ids]
        if not own or self._store.committed(model, "predictions", key) is not None:
            return table, repeats
        since = datetime.now(UTC) - timedelta(hours=_SAME_ID_HOURS)
        where = (pc.field("predicted_at") >= pa.scalar(since, type=TIME)) & among("id", own)
        found = self._store.read(model, "predictions", columns=["id", "inputs"], where=where)
        told = found["inputs"].to_pylist() if "inputs" in found.column_names else [None] * len(found)
        logged = dict(zip(found["id"].to_pylist(), told, strict=True))
        kept = []
        pairs = zip(table["id"].to_pylist(), table["inputs"].to_pylist(), strict=True)
        for index, (name, inputs) in enumerate(pairs):
            if name not in logged:
                logged[name] = inputs
                kept.append(index)
            elif logged[name] == inputs:
                repeats.same += 1
            else:
                repeats.others += 1
                repeats.ids = [*repeats.ids, name][:_TOLD_IDS]
        return table.take(pa.array(kept, type=pa.int64())), repeats

    def _tell(self, model: str, repeats: Repeats) -> None:
        if repeats.others:
            facts = {"model": model, "rows": repeats.others, "ids": repeats.ids}
            LOG.warning(
                "rows with other inputs came by an id that is logged already: they are not logged",
                extra={"facts": facts},
            )
        self._on_repeated(model, repeats.same, repeats.others)

    def _merge_small_files(self, model: str) -> None:
        self._commits[model] = self._commits.get(model, 0) + 1
        if self._commits[model] % self._compact_commits == 0:
            try:
                self._store.compact(model, "predictions")
            except Exception as error:  # noqa: BLE001 - another process may have merged the same files: next time
                LOG.warning("compaction failed", extra={"facts": {"model": model, "reason": str(error)[:200]}})


def _give_back_memory() -> None:
    """Return what a commit needed to the system, where the C library can: a worker otherwise keeps its peak."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
