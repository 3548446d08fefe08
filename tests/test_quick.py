"""The rule that makes a test quick is kept: no other process, no connection; and each test is one of the two."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
from alone import alone

STARTS: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "spawn": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "socket": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_quick_test_that_is_not_alone_fails(name: str) -> None:
    told = r"^one is a quick test and (starts a process|connects to) .* mark the test `process`"
    with pytest.raises(pytest.fail.Exception, match=told), alone("one"):
        STARTS[name]()


def stubborn() -> None:
    with alone("one"):
        for name in ("subprocess", "socket"):
            with suppress(BaseException):
                STARTS[name]()


def test_also_where_the_refusal_is_swallowed() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"starts a process .*; connects to"):
        stubborn()


def test_what_the_lineage_asks_is_allowed() -> None:
    with alone("one"):
        subprocess.run(["git", "--version"], capture_output=True, check=True)


def test_this_test_is_quick_and_one_with_a_server_is_not(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("quick")
    others = [item for item in request.session.items if "prefect_url" in getattr(item, "fixturenames", ())]
    assert not [item.nodeid for item in others if item.get_closest_marker("quick")]


@pytest.mark.process
def test_one_that_is_marked_may(request: pytest.FixtureRequest) -> None:
    assert not request.node.get_closest_marker("quick")
    assert STARTS["subprocess"]()
