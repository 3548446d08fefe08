"""What keeps strangers out, whatever a page shows: headers, where a form is from, how often one may ask. No roles."""

from __future__ import annotations

import re
import time
from collections import defaultdict, deque
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A report is a library's own page, with scripts and styles in it: it is shown as a stranger, without any rights here.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "img-src data: blob:; font-src data:"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")


class Hardened:
    """Gives every answer the headers, those that it does not have of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                # Our own files are asked for again by their tag, pages are never kept.
                kept = {"cache-control": "no-cache"} if scope["path"].startswith("/static/") else {}
                extra = [(name.encode(), value.encode()) for name, value in (HEADERS | kept).items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in given)]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Pace:
    """How often an address may do something.

    Args:
        most: A minute.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: dict[str, deque[float]] = defaultdict(deque)

    def keep(self, request: Request) -> None:
        """Count this request.

        Raises:
            HTTPException: 429, where its address has asked too often.
        """
        now, asked = time.monotonic(), self._asked[request.client.host if request.client else ""]
        while asked and now - asked[0] > 60:
            asked.popleft()
        if len(asked) >= self._most:
            raise HTTPException(429, "too many at once: wait a minute")
        asked.append(now)
        for address in [item for item, times in self._asked.items() if times and now - times[-1] > 60]:
            del self._asked[address]


def safe_path(value: str | None) -> str:
    """A path of this very server, whatever a form or an address says."""
    if value and re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", value) and "\\" not in value:
        return value
    return "/"


def from_elsewhere(request: Request) -> bool:
    """Whether a browser says that another site's page sent this."""
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")
