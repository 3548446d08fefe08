"""Tests of stops and restarts under load: every request that was sent is answered, whoever ends when."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from serving_world import serving, worker_pids

from perennial.workspace import Workspace

GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}
PATH = "/models/colours/invocations"
BODY = b'{"instances":[{"a":1.0,"b":2.0,"empty":null,"colour":"red","code":"7"}]}'
HEAD = b"POST /models/colours/invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


class Load:
    """Requests from several threads without a pause: half of them on kept connections, half on a new one each.

    `lost` is what was sent and not answered; a connection that was refused was sent nothing, and is asked for again.
    """

    def __init__(self, client: Any, threads: int = 6) -> None:
        self._base, self._stop = client.base_url, threading.Event()
        self.answers: Counter[int] = Counter()
        self.refused = 0
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kept: bool) -> None:
        headers = {} if kept else {"connection": "close"}
        with httpx.Client(base_url=self._base, timeout=30, headers=headers) as own:
            while not self._stop.is_set():
                try:
                    answer = own.post(PATH, json={"instances": [GOOD]})
                except httpx.ConnectError:
                    self.refused += 1
                    time.sleep(0.02)
                    continue
                except httpx.TransportError as error:
                    self.lost.append(f"{'kept' if kept else 'new'}: {error!r}")
                    continue
                self.answers[answer.status_code] += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_restarts_under_load_lose_no_request(workspace: Workspace, workers: int) -> None:
    options: dict[str, Any] = {"workers": workers, "PERENNIAL_SERVING_LINGER_SECONDS": "1"}
    with ExitStack() as stack:
        client = stack.enter_context(serving(workspace, **options))
        load = stack.enter_context(Load(client))
        time.sleep(1)
        for _ in range(2):
            client.process.send_signal(signal.SIGTERM)
            assert client.process.wait(30) == 0
            refused, answered = load.refused, load.answers[200]
            assert answered > 20
            wait_for(lambda refused=refused: load.refused > refused)  # closed, not silent
            client = stack.enter_context(serving(workspace, port=client.port, **options))
            wait_for(lambda answered=answered: load.answers[200] > answered + 20)
    assert load.lost == []
    assert set(load.answers) == {200}


def test_one_worker_that_is_told_to_end_loses_no_request_and_another_comes(workspace: Workspace) -> None:
    with serving(workspace, workers=2, PERENNIAL_SERVING_LINGER_SECONDS="1") as client:
        wait_for(lambda: len(worker_pids(client.process)) == 2)
        with Load(client) as load:
            time.sleep(1)
            ended = worker_pids(client.process)[0]
            os.kill(ended, signal.SIGTERM)
            wait_for(lambda: ended not in (now := worker_pids(client.process)) and len(now) == 2, 30)
            time.sleep(0.5)
        assert load.lost == []
        assert load.refused == 0
        assert set(load.answers) == {200}


def test_what_was_sent_before_a_stop_is_answered_and_idle_connections_are_closed(workspace: Workspace) -> None:
    with serving(workspace) as client, ExitStack() as stack:
        idle, asks, in_head, in_body, silent = (
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=10)) for _ in range(5)
        )
        for connection in (idle, asks):
            connection.sendall(REQUEST)
            assert b"connection: close" not in answer_of(connection)
        in_head.sendall(REQUEST[:40])
        in_body.sendall(REQUEST[:-10])
        time.sleep(0.1)
        client.process.send_signal(signal.SIGTERM)
        found = b""
        while b"\r\nconnection: close" not in found:
            asks.sendall(REQUEST)
            found = answer_of(asks)
            assert found.startswith(b"HTTP/1.1 200 ")
        assert asks.recv(1) == b""
        assert idle.recv(1) == b""
        assert silent.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", client.port), timeout=10)
        in_head.sendall(REQUEST[40:])
        in_body.sendall(REQUEST[-10:])
        assert_told_to_close(in_head)
        assert_told_to_close(in_body)
        assert client.process.wait(10) == 0


def test_what_takes_longer_than_a_stop_may_is_told(workspace: Workspace) -> None:
    with serving(workspace, PERENNIAL_SERVING_DRAIN_SECONDS="1") as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as waits:
            waits.sendall(REQUEST[:-10])  # the rest never comes
            time.sleep(0.1)
            client.process.send_signal(signal.SIGTERM)
            found = answer_of(waits)
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1" in found
        assert client.process.wait(10) == 0


def answer_of(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found or not found.endswith(b"}"):
        part = connection.recv(65536)
        assert part, found
        found += part
    return found


def assert_told_to_close(connection: socket.socket) -> None:
    found = answer_of(connection)
    assert found.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close" in found
    assert connection.recv(1) == b""


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.05)
