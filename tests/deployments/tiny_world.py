"""Six flows that do nothing, definitions of no data, and a receiver of HTTP requests: what registering is tried on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from deployments.specification import FLOWS
from perennial.definition import ModelDefinition

TINY = '''
import os
import time
from datetime import datetime
from pathlib import Path

from prefect import flow


@flow
def retrain(
    model: str, as_of: datetime | None = None, decision_id: str | None = None, force: bool = False
) -> None:
    """Waits when it is forced, for tests of stopping."""
    if force:
        Path(os.environ["TINY_FOLDER"], f"{model}.pid").write_text(str(os.getpid()))
        time.sleep(600)


@flow
def recalibrate(model: str, as_of: datetime | None = None, decision_id: str | None = None) -> None:
    pass


@flow
def monitor(model: str, as_of: datetime | None = None) -> None:
    pass


@flow
def ingest(model: str, files: list[str] | None = None, as_of: datetime | None = None) -> None:
    pass


@flow
def score(model: str, input: str | None = None, output: str | None = None, as_of: datetime | None = None) -> None:
    pass


@flow
def backtest(model: str) -> None:
    pass


@flow
def approve(model: str, by: str, reason: str) -> None:
    pass


@flow
def quarantine(model: str) -> None:
    pass


@flow
def prune(model: str, as_of: datetime | None = None, dry_run: bool = False) -> None:
    pass


@flow
def review(model: str, as_of: datetime | None = None) -> None:
    pass


@flow
def watch(model: str, as_of: datetime | None = None) -> None:
    pass
'''
MODULE = "perennial_tiny_flows"
ALL_FLOWS = {name: f"{MODULE}:{name}" for name in FLOWS}
TINY_FLOWS = {name: target for name, target in ALL_FLOWS.items() if name != "review"}  # which is not asked for


def eventually(true: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.6)
    return found


def definition(name: str, **sections: Any) -> ModelDefinition:
    raw = {
        "name": name,
        "task": "regression",
        "description": "Rows of nothing.",
        "data": {"source": {"csv": "rows.csv"}, "id": "id", "time": "time", "target": "y"},
        "features": {"numeric": ["a"]},
    }
    return ModelDefinition.model_validate({**raw, **sections})


def by_name(*definitions: ModelDefinition) -> dict[str, ModelDefinition]:
    return {item.name: item for item in definitions}


@dataclass
class Receiver:
    """What came in at an address of this machine."""

    address: str
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.requests]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
