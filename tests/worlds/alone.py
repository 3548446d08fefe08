"""What keeps the quick tests quick: while one runs, this process starts no other and calls no server. No tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from threading import current_thread, main_thread
from typing import Any

import pytest

_STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn")
# What libraries and a version's lineage ask about the machine and the checkout, once a process.
_ASKED = ("uname", "file", "git", "lscpu")
_REMEDY = "Do it without, or mark the test `process`: `make test-quick` then leaves it out"
# The tests that must stay alone, the innermost last, each with what it did nevertheless.
_watched: list[tuple[str, list[str]]] = []


@contextmanager
def alone(test: str) -> Iterator[None]:
    """Within it, processes and connections are refused.

    Raises:
        pytest.fail.Exception: There was one, even where somebody has swallowed the refusal.
    """
    _listen()
    met: list[str] = []
    _watched.append((test, met))
    try:
        yield
    finally:
        _watched.pop()
    if met:
        pytest.fail(f"{test} is a quick test and {'; '.join(met)}. {_REMEDY}")


def _meet(what: str) -> None:
    """Refuse it, as pytest's own exception, which no `except Exception` swallows."""
    if _watched:
        test, met = _watched[-1]
        met.append(what)
        pytest.fail(f"{test} is a quick test and {what}. {_REMEDY}")


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS and not (arguments and arguments[0] in _ASKED):
        _meet(f"starts a process ({event} {arguments[0] if arguments else ''})")
    # A client of an earlier test's server may have threads that go on.
    elif event == "socket.connect" and current_thread() is main_thread():
        _meet(f"connects to {arguments[1]}")


@cache
def _listen() -> None:
    """From now on, as long as this process lives: Python takes no audit hook back."""
    sys.addaudithook(_hear)
    start = BaseProcess.start

    def heard(process: BaseProcess) -> None:  # multiprocessing's own way to start one raises no event
        _meet(f"starts a process ({process.name})")
        start(process)

    BaseProcess.start = heard  # type: ignore[method-assign]
