"""Tests of what a connection bounds before any request is whole: on a real server, with raw sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import uvicorn

from perennial.serving.processes.server import _bind
from perennial.serving.web.connection import Connection

pytestmark = pytest.mark.process
PATIENCE_SECONDS, MOST = 0.4, 20
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """An application that takes its time where it is told to, and answers before it has the body where told so."""
    import asyncio

    if scope["path"] == "/slow":
        await asyncio.sleep(3 * PATIENCE_SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listener = _bind("127.0.0.1", 0)
    kind = Connection.within(PATIENCE_SECONDS, MOST)
    server = uvicorn.Server(uvicorn.Config(answer, http=kind, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    listener.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_headers_without_end_are_refused(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 50 * 2**20:
                sent += connection.send(b"a" * 16384)
        assert sent < 2**23
    with connect(port) as connection:
        connection.sendall(b"GET /" + b"a" * 40_000)
        time.sleep(0.05)
        connection.sendall(b"a" * 40_000)
        head, _, body = all_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error_code"] == "REQUEST_TOO_LARGE"


@pytest.mark.parametrize("before", [b"", ASK])
def test_headers_that_drip_are_told_and_let_go(port: int, before: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(before)
        if before:
            assert connection.recv(1000).endswith(b"ok")
        started = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nX-A: b")
        time.sleep(PATIENCE_SECONDS / 2)
        connection.sendall(b"b")
        found = all_of(connection)
    assert found.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert PATIENCE_SECONDS / 2 < time.monotonic() - started < 5


def test_silence_and_the_rest_of_an_answered_request_are_not_waited_for(port: int) -> None:
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    for sent, wanted in ((b"", b""), (b"\r\n", b""), (body, b"ok")):
        with connect(port) as connection:
            connection.sendall(sent)
            if wanted:
                assert connection.recv(1000).endswith(wanted)
                connection.sendall(b"drip")
            started = time.monotonic()
            assert all_of(connection) == b""
            assert time.monotonic() - started < 5


def test_who_asks_properly_is_waited_for(port: int) -> None:
    with connect(port) as connection:
        for path in (b"/slow", b"/", b"/slow"):
            connection.sendall(ASK.replace(b"/ ", path + b" ", 1))
            assert connection.recv(1000).endswith(b"ok")
            time.sleep(1.5 * PATIENCE_SECONDS)  # silence between requests is uvicorn's keep-alive's
        connection.sendall(ASK.replace(b"\r\n\r\n", b"\r\nX-A: " + b"a" * 30_000 + b"\r\n\r\n"))
        assert connection.recv(1000).endswith(b"ok")


def test_too_many_connections_are_told_when_to_come_back(port: int) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(MOST)]
        time.sleep(0.05)
        with connect(port) as another:
            found = all_of(another)
        assert found.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in found
        held[0].sendall(ASK)
        assert held[0].recv(1000).endswith(b"ok")
    time.sleep(0.1)
    with connect(port) as later:
        later.sendall(ASK)
        assert later.recv(1000).endswith(b"ok")


def test_an_answer_that_nobody_takes_is_not_held_for_ever() -> None:
    listener = _bind("127.0.0.1", 0)
    with listener, connect(listener.getsockname()[1]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 75_000
