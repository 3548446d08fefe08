"""An S3-compatible server on port 8333 that takes SeaweedFS's arguments and heeds none: moto, with a health check."""

from __future__ import annotations

from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

s3 = DomainDispatcherApplication(create_backend_app)


def application(environ: dict[str, Any], start: Any) -> Any:
    """WSGI."""
    if environ["PATH_INFO"] == "/healthz":
        start("200 OK", [("Content-Length", "0")])
        return [b""]
    return s3(environ, start)


run_simple("0.0.0.0", 8333, application, threaded=True)
