"""A worker's half of shipping: its spools' segments sealed in time, and how the shipping goes. It ships nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from perennial.serving.log.spool import Spool

LOG = logging.getLogger("perennial.serving")
_SILENT_SECONDS = 60.0
_LOOK_SECONDS = 1.0


class Sealer:
    """A worker's half: a thread that seals its segments in time and knows how the shipping goes.

    Args:
        spools: The worker's own.
        status: Of the shipping process.
        tick: Called about once a second.
    """

    def __init__(
        self, spools: Sequence[Spool], status: Path, *, ship_seconds: float, ship_rows: int,
        tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._spools, self._status, self._tick = spools, status, tick
        self._ship_seconds, self._ship_rows = ship_seconds, ship_rows
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perennial-sealer", daemon=True)
        self._started_at = time.time()
        self.failing = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(min(_LOOK_SECONDS, self._ship_seconds)):
            try:
                for spool in self._spools:
                    spool.seal(self._ship_rows, self._ship_seconds)
                    spool.measure()
                self.failing = self._heard()
                self._tick()
            except Exception:
                LOG.exception("sealing failed; trying again")

    def _heard(self) -> str:
        """What the shipping process says is wrong; that it is silent, where it is."""
        try:
            said = json.loads(self._status.read_text(encoding="utf-8"))
            at, failing = float(said["at"]), str(said["failing"])
        except (OSError, ValueError, KeyError):
            at, failing = 0.0, ""
        silent = time.time() - max(at, self._started_at)
        if silent > _SILENT_SECONDS + self._ship_seconds:
            return f"the shipping process has been silent for {silent:.0f} s"
        return failing if at >= self._started_at - _SILENT_SECONDS else ""
