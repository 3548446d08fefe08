"""The newest checks of the models that are served, for Prometheus. They come from the tables: every worker tells alike.

Tables are read off the scrape's path, at most once a minute, and again only where a table has grown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from perennial.series.checked import FIGURES, figures_of
from perennial.workspace import Workspace

_FRESH_SECONDS = 60.0
_PATIENCE_SECONDS = 3.0
_log = logging.getLogger(__name__)


class Checked:
    """A collector of what checks found.

    Args:
        workspace: The tables.
        models: Names those that are served.
        clock: The moment now.
    """

    def __init__(
        self, workspace: Workspace, models: Callable[[], Collection[str]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._workspace, self._models, self._clock = workspace, models, clock
        self._known: dict[str, tuple[int | None, Any, list[dict[str, Any]]]] = {}
        self._read_at = -_FRESH_SECONDS
        self._reading: threading.Thread | None = None
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> bytes:
        """The figures in Prometheus' text format; waits a moment for the tables, then tells what was known before."""
        with self._lock:
            if self._reading is None and time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._reading = threading.Thread(target=self._read, name="perennial-checked", daemon=True)
                self._reading.start()
            reading = self._reading
        if reading is not None:
            reading.join(_PATIENCE_SECONDS)
        return generate_latest(self._registry)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is read to say what there is."""
        for name, (text, labels) in FIGURES.items():
            yield GaugeMetricFamily(f"perennial_{name}", text, labels=labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is known, as families."""
        families = {family.name: family for family in self.describe()}
        served = self._models()
        for model, (_, entry, columns) in list(self._known.items()):
            if entry is None or model not in served:
                continue
            for figure in figures_of(model, entry, columns, self._clock()):
                families[f"perennial_{figure.name}"].add_metric(list(figure.labels), figure.value)
        yield from families.values()

    def _read(self) -> None:
        try:
            for model in list(self._models()):
                try:
                    self._read_model(model)
                except Exception as error:  # noqa: BLE001 - the tables may be away; requests are answered all the same
                    _log.warning("no figures of the checks of %s: %s: %s", model, type(error).__name__, error)
        finally:
            with self._lock:
                self._read_at, self._reading = time.monotonic(), None

    def _read_model(self, model: str) -> None:
        store = self._workspace.store
        version = store.version(model, "decisions")
        if model in self._known and self._known[model][0] == version:
            return
        entry = None if version is None else self._workspace.ledger(model).newest()
        self._known[model] = (version, entry, [] if entry is None else self._columns(model, entry))

    def _columns(self, model: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
        where = pc.field("decision_id") == entry["decision_id"]
        names = ["column", "rows", "missing", "mean", "deviation"]
        rows = self._workspace.store.read(model, "column_statistics", columns=names, where=where).to_pylist()
        return [row | {"missing_share": row["missing"] / row["rows"] if row["rows"] else None} for row in rows]
