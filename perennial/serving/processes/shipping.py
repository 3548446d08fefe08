"""The process that ships what all workers of a server spooled, so that none of them holds the tables' library.

Workers seal their segments (`log.sealer`); this process commits what is sealed, and what dead processes left. Between
the two lie files only: either may be killed at any moment. How it goes is in HOME/serving/shipper.json.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from perennial.errors import PerennialError
from perennial.serving.log.spool import dead_segments, measure, sealed_segments
from perennial.settings import Settings, load_settings
from perennial.state.layout import require
from perennial.surroundings import end_uncollected

LOG = logging.getLogger("perennial.serving")
_LOOK_SECONDS = 1.0


class SharedSpool:
    """All processes' segments, as `Shipper` and `LabelDesk` take them from one process's own spool."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def seal(self, least_rows: int = 1, oldest_seconds: float = 0.0) -> None:
        """Their writers seal them."""

    def sealed(self) -> list[Path]:
        return sealed_segments(self.root)

    def orphans(self) -> Iterator[Path]:
        return dead_segments(self.root)

    def measure(self) -> int:
        return measure(self.root)


def write_status(path: Path, failing: str) -> bool:
    """Say how the last round went; False where that can't be said, as on a full disk: the workers will tell."""
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(json.dumps({"at": time.time(), "failing": failing}), encoding="utf-8")
        staged.replace(path)
    except OSError:
        return False
    return True


def run(parent: int, metrics_folder: Path) -> None:
    """Ship until SIGTERM, or until the parent is gone; then once more what there is."""
    from perennial.serving.log.labels import LabelDesk
    from perennial.serving.log.shipper import Shipper
    from perennial.serving.metrics import ShippingMetrics
    from perennial.serving.settings import load_serving_settings
    from perennial.workspace import open_workspace

    settings, serving, metrics = load_settings(), load_serving_settings(), ShippingMetrics()
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") == str(metrics_folder)
    home, store = settings.home_path, open_workspace(settings, checked=True).store
    predictions, labels = SharedSpool(home / "serving" / "spool"), SharedSpool(home / "serving" / "labels")
    desk = LabelDesk(
        labels, predictions, store, home / "locks", serving.unknown_label_hours,
        on_expired=lambda model, count: metrics.expired_labels.labels(model).inc(count),
    )  # fmt: skip
    status, looked_at = home / "serving" / "shipper.json", 0.0

    def shipped(model: str, rows: int) -> None:
        metrics.shipped.labels(model).inc(rows)
        write_status(status, "")  # a long round is no silence

    shipper = Shipper(
        predictions, store, home / "locks", ship_seconds=serving.ship_seconds, ship_rows=serving.ship_rows,
        compact_commits=serving.compact_commits, also=desk.ship, on_shipped=shipped,
        on_repeated=metrics.repeat,
    )  # fmt: skip
    stop, told, wrong = threading.Event(), True, "the tables' layout is not known yet"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while True:
        ended = stop.wait(min(_LOOK_SECONDS, serving.ship_seconds)) or os.getppid() != parent
        # What a killed process left unsealed is only found by looking.
        idle = time.monotonic() - looked_at < serving.ship_seconds
        if ended or not idle or predictions.sealed() or labels.sealed() or desk.due:
            looked_at = time.monotonic()
            wrong = wrong and _wrong_layout(settings)
            if not wrong:
                shipper.round()
        before, told = told, write_status(status, wrong or shipper.failing or desk.failing)
        if before and not told:
            LOG.error("the shipping's state can't be written", extra={"facts": {"file": str(status)}})
        if ended:
            return


def _wrong_layout(settings: Settings) -> str:
    """Why nothing may be written to the tables now; empty where it may."""
    try:
        require(settings)
    except PerennialError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    from perennial.serving.processes.logs import log_as_json
    from perennial.serving.settings import METRICS_VARIABLE, PARENT_VARIABLE, load_serving_settings

    end_uncollected()
    log_as_json(load_serving_settings().log_level)
    run(int(os.environ[PARENT_VARIABLE]), Path(os.environ[METRICS_VARIABLE]))
