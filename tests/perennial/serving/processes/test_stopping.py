"""Tests of stops and restarts under load: every request that was sent is answered, whoever ends when."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from serving_world import serving, wait_for, worker_pids

from perennial.workspace import Workspace

GOOD: dict[str, Any] = {"a": 1.0, "b": 2.0, "empty": None, "colour": "red", "code": "7"}
PATH = "/models/colours/invocations"
BODY = b'{"instances":[{"a":1.0,"b":2.0,"empty":null,"colour":"red","code":"7"}]}'
HEAD = b"POST /models/colours/invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


class Load:
    """Requests from several threads with hardly a pause: half of them on kept connections, half on a new one each.

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
                time.sleep(0.01)


def test_ends_and_restarts_under_load_lose_no_request(workspace: Workspace) -> None:
    """One of two workers is told to end and another comes; both are restarted as one; that one is stopped."""
    linger = {"PERENNIAL_SERVING_LINGER_SECONDS": "1"}
    with ExitStack() as stack:
        client = stack.enter_context(serving(workspace, workers=2, **linger))
        wait_for(lambda: len(worker_pids(client.process)) == 2)
        load = stack.enter_context(Load(client))
        wait_for(lambda: load.answers[200] > 20)
        ended = worker_pids(client.process)[0]
        os.kill(ended, signal.SIGTERM)
        wait_for(lambda: ended not in (now := worker_pids(client.process)) and len(now) == 2)
        answered = load.answers[200]
        wait_for(lambda: load.answers[200] > answered + 20)
        assert (load.lost, load.refused, set(load.answers)) == ([], 0, {200})
        stop(client, load)
        answered = load.answers[200]
        client = stack.enter_context(serving(workspace, port=client.port, **linger))
        wait_for(lambda: load.answers[200] > answered + 20)
        stop(client, load)
    assert load.lost == []
    assert set(load.answers) == {200}


def stop(client: Any, load: Load) -> None:
    client.process.send_signal(signal.SIGTERM)
    assert client.process.wait(30) == 0
    refused = load.refused
    wait_for(lambda: load.refused > refused)  # closed, not silent


def test_a_stop_answers_what_was_sent_closes_the_idle_and_tells_what_takes_too_long(workspace: Workspace) -> None:
    # So long has the body below to come after the word to stop, and as long the one that never comes is waited for.
    with serving(workspace, PERENNIAL_SERVING_DRAIN_SECONDS="4") as client, ExitStack() as stack:
        idle, asks, in_head, in_body, waits, silent = (
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=30)) for _ in range(6)
        )
        for connection in (idle, asks):
            connection.sendall(REQUEST)
            assert b"connection: close" not in answer_of(connection)
        in_head.sendall(REQUEST[:40])
        in_body.sendall(REQUEST[:-10])
        waits.sendall(REQUEST[:-10])  # the rest never comes
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
