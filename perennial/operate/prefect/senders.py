"""Prefect's senders of logs and events in this process: let to their end, or ended with their server. Starts nothing.

They live on as long as the process, talk to the server that they began with, and try for minutes to reach one that is
gone; when the process ends, it waits for them. Prefect has no public word for any of it: what this module leans on is
named in its test.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from perennial.errors import ServiceError
from perennial.operate.asking import HEALTH_SECONDS, AwayError, ask

_SENDERS = (("prefect.logging.handlers", "APILogWorker"), ("prefect.events.worker", "EventsWorker"))


def send_what_is_queued(url: str, seconds: float = 60.0) -> None:
    """Let this process's Prefect client send its last logs and events while there is somebody to receive them.

    It returns as soon as all is sent: what is cut off here is lost. A busy machine's server takes its time; where none
    listens any more, nobody waits, now or when the process ends.

    Args:
        url: The server's /api address.
        seconds: How long it may take.
    """
    with ThreadPoolExecutor(1) as pool:  # within a running loop, as a notebook's, Prefect would only promise to do it
        sending, tasks = pool.submit(_take_nothing_new).result()
    deadline = time.monotonic() + seconds
    while sending and time.monotonic() < deadline:
        sending = wait(sending, timeout=1.0).not_done
        if sending and _is_gone(url):
            for task in tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
            wait(sending, timeout=10.0)
            return


def _take_nothing_new() -> tuple[set[Future[Any]], list[Any]]:
    """Have the senders end after what they have; the ends of those that still have something, and all their tasks."""
    open_ends: set[Future[Any]] = set()
    tasks = []
    for module, name in _SENDERS:
        if module in sys.modules:
            sender = getattr(sys.modules[module], name)
            tasks += [instance._task for instance in list(sender._instances.values()) if instance._task is not None]
            open_ends |= sender.drain_all(timeout=0, at_exit=False)[1]
    return open_ends, tasks


def _is_gone(url: str) -> bool:
    """Whether nobody listens at the address: a server that only takes its time is there."""
    try:
        ask(f"{url}/health", seconds=HEALTH_SECONDS)
    except AwayError as error:
        return not error.busy
    except ServiceError:
        return False
    return False
