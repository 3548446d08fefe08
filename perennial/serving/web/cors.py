"""Browsers' pages of other origins, where a setting lets them ask: Starlette's middleware around the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_ASKED = (
    "authorization", "content-encoding", "content-type", "inference-header-content-length", "traceparent",
    "x-request-id",
)  # fmt: skip
_TOLD = ("inference-header-content-length", "retry-after", "traceparent", "x-model-version", "x-request-id")


def with_origins(api: Any, origins: Sequence[str]) -> Any:
    """The API for pages of these origins; the API itself where there are none."""
    if not origins:
        return api
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        api, allow_origins=origins, allow_methods=("GET", "HEAD", "POST"), allow_headers=_ASKED, expose_headers=_TOLD
    )
