"""The page at /docs: Swagger UI from the installed package, which needs no network. The document is `openapi`'s."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from perennial.serving.protocol.problems import Problem

_PACKAGE = "flask_swagger_ui"  # only its files are read: it is never imported
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Perennial</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null
});
"""
_TYPES: Mapping[str, str] = {
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
FILES = tuple(_TYPES)
# Nothing from anywhere else, nothing inline, and only this server is asked.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers."""
    return _PAGE, {"content-security-policy": POLICY}


def page_file(name: str) -> tuple[bytes, str]:
    """One of FILES: its content and type.

    Raises:
        Problem: 503 where the package with Swagger UI is not installed.
    """
    if name == "start.js":
        return _START, _TYPES[name]
    try:
        return (_folder() / name).read_bytes(), _TYPES[name]
    except OSError as error:
        raise Problem(
            503, f"the page's file {name} can't be read: {error.strerror}", rule="pip install flask-swagger-ui"
        ) from None


@cache
def _folder() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Problem(503, "Swagger UI is not installed here", rule="pip install flask-swagger-ui; /openapi.json works")
    return Path(found.submodule_search_locations[0]) / "dist"
