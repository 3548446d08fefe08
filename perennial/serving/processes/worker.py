"""One process that answers, on the socket that its watcher holds; `draining` says how it ends. It ships nothing."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from perennial.serving.processes.draining import close_door, linger
from perennial.serving.processes.logs import log_as_json
from perennial.serving.processes.server import BACKLOG, KEEP_ALIVE_SECONDS, NOT_STARTED, READY_TEXT, STOP_SIGNAL
from perennial.serving.service import Service
from perennial.serving.settings import (
    METRICS_VARIABLE,
    PARENT_VARIABLE,
    SOCKET_VARIABLE,
    Tokens,
    load_serving_settings,
)
from perennial.serving.web.app import Api
from perennial.serving.web.connection import Connection
from perennial.serving.web.cors import with_origins
from perennial.settings import load_settings
from perennial.surroundings import end_uncollected
from perennial.workspace import open_workspace

LOG = logging.getLogger("perennial.serving")
_MOST_FILES, _OWN_FILES = 65_536, 128


class Server(uvicorn.Server):
    """uvicorn's, which says when it is ready, and stops as `draining` says.

    Attributes:
        all_stop: Whether the whole server stops; else other workers go on accepting from the same socket.
    """

    def __init__(self, config: uvicorn.Config, service: Service, listener: socket.socket) -> None:
        super().__init__(config)
        self._service, self._listener = service, listener
        self.all_stop = False

    def stop_with_all(self, *_: object) -> None:
        """The watcher's word, or its death."""
        self.all_stop = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            gc.collect()
            gc.freeze()  # what was loaded is there to stay: no collection need look at it again
            LOG.info(READY_TEXT, extra={"facts": {"pid": os.getpid(), "models": sorted(self._service.host.served)}})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.draining = True
        kind: Any = self.config.http_protocol_class
        if not self.all_stop:
            for server in self.servers:
                server.close()
        await linger(lambda: kind.arrivals, self._service.settings.linger_seconds)
        if self.all_stop:
            await close_door(self._listener, self.servers, self._connection)
        self._listener.close()
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        kind: Any = self.config.http_protocol_class
        made: Connection = kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made


def configured(service: Service, most_connections: int) -> uvicorn.Config:
    """All that a client sees of the API on the wire, as the service's settings say."""
    settings = service.settings
    return uvicorn.Config(
        with_origins(Api(service, Tokens(settings.tokens)), settings.origins),
        log_config=None, access_log=False, lifespan="on", server_header=False, date_header=False,
        timeout_graceful_shutdown=int(settings.drain_seconds), timeout_keep_alive=KEEP_ALIVE_SECONDS, loop="uvloop",
        http=Connection.within(settings.deadline_seconds, most_connections),
        ws="none", backlog=BACKLOG, proxy_headers=False,
    )  # fmt: skip


def work() -> None:
    """Serve until the watcher says so or is gone; a SIGTERM ends this worker alone."""
    # A loading version must not keep a request waiting for Python's lock: 5 ms by default.
    sys.setswitchinterval(0.0001)
    serving = load_serving_settings()
    log_as_json(serving.log_level)
    service = Service(open_workspace(checked=True), serving, Path(os.environ[METRICS_VARIABLE]), ships=False)
    config = configured(service, _most_connections())
    inherited = int(os.environ[SOCKET_VARIABLE])
    server = Server(config, service, socket.socket(fileno=inherited))
    parent = int(os.environ[PARENT_VARIABLE])

    def follow_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        server.stop_with_all()

    signal.signal(STOP_SIGNAL, server.stop_with_all)
    threading.Thread(target=follow_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=os.dup(inherited))])
    if not server.started:
        raise SystemExit(NOT_STARTED)


def _most_connections() -> int:
    """As many as this process may have open files, without those that it needs itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(_OWN_FILES, most - _OWN_FILES)


if __name__ == "__main__":
    end_uncollected()
    load_settings()
    work()
