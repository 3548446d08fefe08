"""Tests of how Prefect's senders are ended: its own classes, a real server, and one that is gone."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from perennial.operate.asking import ask
from perennial.operate.prefect.senders import send_what_is_queued
from perennial.operate.servers import free_port, use_prefect
from perennial.settings import Settings


@pytest.mark.slow
def test_what_is_queued_is_waited_for_while_a_busy_server_takes_it(prefect_url: str) -> None:
    import prefect.logging.handlers  # noqa: F401  # what is not loaded has nothing queued
    from prefect._internal.concurrency.services import QueueService

    sent: list[str] = []

    class Slow(QueueService[str]):
        async def _handle(self, item: str) -> None:
            await asyncio.sleep(3)  # longer than one look
            sent.append(item)

    Slow.instance().send("last words")
    send_what_is_queued(prefect_url)
    assert sent == ["last words"]


@pytest.mark.slow
def test_a_server_that_is_gone_is_not_waited_for_nor_talked_to_again(
    prefect_url: str, prefect_settings: Settings
) -> None:
    """Prefect's client of events went on talking to the first server; the next one's events were lost with it."""
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    mark = f"perennial.test.{time.time_ns()}"
    with use_prefect(prefect_settings, f"http://127.0.0.1:{free_port()}/api"):
        for number in range(20):
            emit_event(event=f"{mark}.lost.{number}", resource={"prefect.resource.id": "perennial.test"})
        worker = EventsWorker.instance()
    assert worker._done_event.is_set(), "it is still trying, and the process would wait for it at its end"
    with use_prefect(prefect_settings, prefect_url):
        emit_event(event=mark, resource={"prefect.resource.id": "perennial.test"})
    wanted = {"filter": {"event": {"name": [mark]}}}
    deadline = time.monotonic() + 30
    while not json.loads(ask(f"{prefect_url}/events/filter", wanted).text)["events"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_within_a_running_loop_all_is_sent_too(prefect_url: str, prefect_settings: Settings) -> None:
    """As a notebook's: Prefect gave a promise there, which nobody kept."""
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    async def cell() -> None:
        with use_prefect(prefect_settings, prefect_url):
            emit_event(event="perennial.test.cell", resource={"prefect.resource.id": "perennial.test"})
            worker = EventsWorker.instance()
        assert worker._queue.empty()
        assert worker._done_event.is_set()

    asyncio.run(cell())
