"""One connection: uvicorn's, with bounds on their number, on a request's head and on the time it may take to come.

A body's bounds are the application's: by then it knows what is asked for.
"""

from __future__ import annotations

import asyncio
from array import array
from contextlib import suppress
from fcntl import ioctl
from http import HTTPStatus
from termios import FIONREAD
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perennial.serving.protocol.codec import encode_json
from perennial.serving.protocol.problems import Problem
from perennial.serving.web.http import (
    JSON,
    SECURITY_HEADERS,
    Receive,
    Scope,
    Send,
    problem_answer,
    send_answer,
)

_MOST_HEAD_BYTES = 64 * 1024


def _too_large() -> Problem:
    rule = f"at most {_MOST_HEAD_BYTES} bytes"
    return Problem(431, "the request's address and headers are too large", {"connection": "close"}, rule=rule)


def _refusing(problem: Problem) -> Any:
    """An application that answers this, whatever is asked."""

    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, problem_answer(problem))

    return refuse


class Connection(HttpToolsProtocol):
    """As uvicorn makes one for each client.

    Attributes:
        arrivals: How many connections were made and requests begun, of all connections of the class.
    """

    patience_seconds = 30.0
    most = 512
    arrivals = 0
    _owed: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0

    @classmethod
    def within(cls, patience_seconds: float, most: int) -> type[Connection]:
        """A class of at most so many connections at a time, each of which waits for so long."""
        return type(cls.__name__, (cls,), {"patience_seconds": patience_seconds, "most": most})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        type(self).arrivals += 1
        if len(self.connections) > self.most:
            told = f"{self.most} connections are open already"
            self._refuse(Problem(503, told, {"retry-after": "1"}, rule="try again later"))
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._refuse(_too_large())
                return
        # While a request is in work the application waits, with a deadline of its own; else nobody would.
        if self._owed is None and (self._in_head or self.cycle is None or self.cycle.response_complete):
            self._wait()

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        type(self).arrivals += 1
        self._wait_no_more()
        if (problem := self._wrong_head()) is not None:
            self.app = _refusing(problem)
        super().on_headers_complete()

    def _wrong_head(self) -> Problem | None:
        """What is wrong with a head that is whole; that it may have come at once is no reason to let it be larger."""
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            hosts += name == b"host"
        if size > _MOST_HEAD_BYTES:
            return _too_large()
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            told = f"a request of HTTP/1.1 has one Host header, this one has {hosts}"
            return Problem(400, told, {"connection": "close"}, rule="Host: NAME")
        return None

    def shutdown(self) -> None:
        """Close at a stop, unless something was sent on it: that is answered first, and then it is closed."""
        if not (self._in_head or self._unread()):
            super().shutdown()

    def _unread(self) -> bool:
        """Whether the system holds bytes of the client that were not read yet."""
        left = array("i", [0])
        with suppress(OSError, ValueError):
            ioctl(self.transport.get_extra_info("socket").fileno(), FIONREAD, left)
        return left[0] > 0

    def _wait(self) -> None:
        self._owed = self.loop.call_later(self.patience_seconds, self._too_slow)

    def _wait_no_more(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None

    def _too_slow(self) -> None:
        self._owed = None
        if self._in_head:
            self._refuse(Problem(408, f"the request's headers took longer than {self.patience_seconds:g} s"))
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        body = encode_json(problem.body())
        headers: dict[str, Any] = {"content-type": JSON, "content-length": len(body), "connection": "close"}
        headers |= problem.headers
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode() + b"".join(b"\r\n%s: %s" % pair for pair in SECURITY_HEADERS)
        self.transport.write(head + b"\r\n\r\n" + body)
        self.transport.close()
