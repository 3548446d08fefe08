"""Tests of computing several requests' rows at once: nobody waits for others, nobody pays for others' faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from perennial.serving.protocol.problems import Problem
from perennial.serving.scoring.batching import Batcher, Coalescer


class Model:
    """Doubles its rows' numbers, refuses negative ones, and can be held up; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.go = threading.Event()
        self.go.set()

    def score(self, rows: Sequence[list[float]]) -> np.ndarray:
        self.batches.append([row[0] for row in rows])
        assert self.go.wait(10)
        if any(row[0] < 0 for row in rows):
            raise Problem(422, "negative")
        return np.array([2 * row[0] for row in rows])


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def test_what_comes_while_a_batch_is_computed_is_the_next_batch() -> None:
    model, batcher = Model(), Batcher()

    async def work() -> None:
        model.go.clear()
        first = asyncio.create_task(batcher.score("k", model.score, [[1.0]]))
        while not model.batches:
            await asyncio.sleep(0.001)
        assert model.batches == [[1.0]]  # an idle server computes a single request at once
        others = [asyncio.create_task(batcher.score("k", model.score, [[n], [n + 0.5]])) for n in (2.0, 3.0, 4.0)]
        await asyncio.sleep(0.01)
        assert batcher.queued_rows == 6
        model.go.set()
        found = await asyncio.gather(first, *others)
        assert [item.tolist() for item in found] == [[2.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]

    run(work)
    assert model.batches == [[1.0], [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]]
    assert batcher.queued_rows == 0
    batcher.close()


@pytest.mark.parametrize("kind", ["batcher", "coalescer"])
def test_one_requests_fault_is_not_the_others(kind: str) -> None:
    model = Model()
    batcher, coalescer = Batcher(), Coalescer()
    score = batcher.score if kind == "batcher" else coalescer.score

    async def work() -> None:
        parts = [[[1.0]], [[-1.0]], [[3.0]]]
        tasks = [asyncio.create_task(score("k", model.score, part)) for part in parts]
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, Problem)
        assert (good.tolist(), other.tolist()) == ([2.0], [6.0])  # type: ignore[union-attr]

    run(work)
    batcher.close()


def test_who_has_gone_is_not_computed() -> None:
    model, batcher = Model(), Batcher()

    async def work() -> None:
        model.go.clear()
        first = asyncio.create_task(batcher.score("k", model.score, [[1.0]]))
        while not model.batches:
            await asyncio.sleep(0.001)
        gone = asyncio.create_task(batcher.score("k", model.score, [[2.0]]))
        stays = asyncio.create_task(batcher.score("k", model.score, [[3.0]]))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, stays)

    run(work)
    assert model.batches == [[1.0], [3.0]]
    batcher.close()


def test_the_fast_path_takes_one_turn_of_the_loop_together_within_its_bound() -> None:
    model, coalescer = Model(), Coalescer(most_rows=4)

    async def work() -> None:
        tasks = [asyncio.create_task(coalescer.score("k", model.score, [[n], [n]])) for n in (1.0, 2.0, 3.0)]
        found = await asyncio.gather(*tasks)
        assert [item.tolist() for item in found] == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]
        await coalescer.score("k", model.score, [[9.0]])

    run(work)
    assert model.batches == [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0], [9.0]]
