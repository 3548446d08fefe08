"""The little of HTTP that the API needs, on bare ASGI: reading a body within bounds, answering, security headers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from perennial.serving.protocol.codec import encode_json
from perennial.serving.protocol.problems import Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
JSON = "application/json"
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_CODINGS = ("identity", "gzip", "x-gzip", "deflate")
_SECURITY_CACHED = tuple(pair for pair in SECURITY_HEADERS if pair[0] != b"cache-control")


class Disconnected(Exception):
    """The client has gone before its request was whole."""


@dataclass
class Answer:
    """A response."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(encode_json(value), status, headers or {})


def header(scope: Scope, name: bytes) -> str | None:
    """A request header, latin-1; None where it is absent."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The whole body.

    Raises:
        Problem: 413 where it is larger than allowed, whether it says so or not, unpacked or packed; 415 where it is
            packed otherwise than by gzip or deflate; 400 where it can't be unpacked.
        Disconnected: The client has gone.
    """
    coding = (header(scope, b"content-encoding") or "identity").strip().lower()
    if coding not in _CODINGS:
        told = f"content encoding {coding[:40]!r} is not understood"
        raise Problem(415, told, {"accept-encoding": "gzip, deflate"}, rule="identity, gzip or deflate")
    body = await _read(scope, receive, most_bytes)
    return body if coding == "identity" else await asyncio.to_thread(_unpack, body, coding, most_bytes)


def _unpack(body: bytes, coding: str, most_bytes: int) -> bytes:
    # Deflate is zlib's format, and without its header as some write it; gzip is told by its own.
    raw = coding == "deflate" and not (body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | (0 if coding == "deflate" else 16))
    try:
        found = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise Problem(
            400, f"the body can't be unpacked by {coding}: {error}", rule="what Content-Encoding says"
        ) from None
    if len(found) > most_bytes:
        raise _too_large(most_bytes)
    if not unpacker.eof or unpacker.unused_data:
        what = "goes on after its end" if unpacker.eof else "ends too soon"
        raise Problem(400, f"the body, packed by {coding}, {what}", rule="one whole packed body")
    return found


async def _read(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    said = header(scope, b"content-length")
    if said is not None and said.isdigit() and int(said[:18]) > most_bytes:
        raise _too_large(most_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise _too_large(most_bytes)
    return b"".join(parts)


async def send_answer(
    send: Send, answer: Answer, extra: Iterable[tuple[bytes, bytes]] = (), *, head: bool = False
) -> None:
    """Send a response with the security headers; without its body where only the head was asked for."""
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        *(SECURITY_HEADERS if "cache-control" not in answer.headers else _SECURITY_CACHED),
        *extra,
    ]
    for name, value in answer.headers.items():
        headers.append((name.encode("latin-1"), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


def problem_answer(problem: Problem) -> Answer:
    return json_answer(problem.body(), problem.status, dict(problem.headers))


def _too_large(most_bytes: int) -> Problem:
    # The rest of the body is not read: the connection can't be used again.
    headers = {"connection": "close"}
    return Problem(413, f"the body is larger than {most_bytes:,} bytes", headers, rule=f"at most {most_bytes} bytes")
