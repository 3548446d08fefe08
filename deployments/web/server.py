"""Serves the page until it is told to stop. What it shows and who may act is in app."""

from __future__ import annotations

import pyarrow as pa
import uvicorn

from deployments.web.app import make_app
from deployments.web.settings import People, WebSettings, check_exposure
from perennial.operate.servers import require_free_port
from perennial.settings import Settings
from perennial.workspace import open_workspace

_STOP_SECONDS, _THREADS = 3, 2


def serve(host: str, port: int, settings: Settings, web: WebSettings) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        DefinitionError: Others could reach it, and there are no tokens.
        ServiceError: The port is taken.
    """
    check_exposure(host, People(web.tokens))
    # Small tables are read often: what Arrow keeps of them beyond that is the page's memory for good.
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(_THREADS)
    require_free_port(host, port, "PERENNIAL_WEB_PORT")
    app = make_app(open_workspace(settings), web, host=host)
    uvicorn.run(
        app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=_STOP_SECONDS,
        proxy_headers=False,
    )  # fmt: skip
