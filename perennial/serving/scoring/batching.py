"""Rows of several requests through the pipeline at once, where it is slow: no request waits for others to come.

While one batch is computed in a thread, what arrives gathers; when it is done, all of that is the next batch. An idle
server computes a single request at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.serving.protocol.columns import Rows, together

Floats = npt.NDArray[np.float64]
Score = Callable[[Rows], Floats]
_MOST_ROWS = 4096


class Batcher:
    """One queue of rows for each scorer, and the thread that computes them.

    Args:
        threads: How many batches are computed at a time.
    """

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="perennial-score")
        self._waiting: dict[Any, list[tuple[Rows, asyncio.Future[Floats]]]] = {}
        self._busy: set[Any] = set()
        self.queued_rows = 0

    async def score(self, key: Any, score: Score, rows: Rows) -> Floats:
        """Scores of the rows, in their order, computed together with others' rows of the same key.

        Raises:
            Problem: These very rows are refused, whatever the others' are.
        """
        future: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((rows, future))
        self.queued_rows += len(rows)
        if key not in self._busy:
            self._busy.add(key)
            self._next(key, score)
        return await future

    async def run(self, function: Callable[[], Any]) -> Any:
        """Something slow, in the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, key: Any, score: Score) -> None:
        waiting = self._waiting[key]
        taken: list[tuple[Rows, asyncio.Future[Floats]]] = []
        total = 0
        while waiting and (not taken or total + len(waiting[0][0]) <= _MOST_ROWS):
            rows, future = waiting.pop(0)
            self.queued_rows -= len(rows)
            if not future.cancelled():  # its client has waited too long
                taken.append((rows, future))
                total += len(rows)
        if not taken:
            self._busy.discard(key)
            if not waiting:
                self._waiting.pop(key, None)
            else:
                self._busy.add(key)
                self._next(key, score)
            return
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._pool, _compute, score, [rows for rows, _ in taken])

        def deliver(finished: asyncio.Future[list[Floats | Exception]]) -> None:
            results = [finished.exception()] * len(taken) if finished.exception() else finished.result()
            for (_, future), result in zip(taken, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)  # type: ignore[arg-type]
            self._next(key, score)

        done.add_done_callback(deliver)


class Coalescer:
    """The fast path for what came in one turn of the event loop, at once: nobody waits for anything to come.

    Args:
        most_rows: So many rows are computed at a time; more wait for the next turn.
    """

    def __init__(self, most_rows: int = 64) -> None:
        self._most_rows = most_rows
        self._waiting: dict[Any, tuple[Score, list[Rows], list[asyncio.Future[Floats]]]] = {}
        self._planned = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def score(self, key: Any, score: Score, rows: Rows) -> Floats:
        """Scores of the rows, in their order.

        Raises:
            Problem: These very rows are refused.
        """
        # Kept: asking for it is a system call each time.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Floats] = loop.create_future()
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = (score, [], [])
        waiting[1].append(rows)
        waiting[2].append(future)
        if not self._planned:
            self._planned = True
            loop.call_soon(self._turn)
        return await future

    def _turn(self) -> None:
        self._planned = False
        waiting, self._waiting = self._waiting, {}
        for score, parts, futures in waiting.values():
            start = 0
            while start < len(parts):
                end, rows = start + 1, len(parts[start])
                while end < len(parts) and rows + len(parts[end]) <= self._most_rows:
                    rows += len(parts[end])
                    end += 1
                for future, result in zip(futures[start:end], _compute(score, parts[start:end]), strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
                start = end


def _compute(score: Score, parts: list[Rows]) -> list[Floats | Exception]:
    """Each part's scores, or what is wrong with that part."""
    if len(parts) == 1:
        return [_one(score, parts[0])]
    try:
        scores = score(together(parts))
    except Exception:  # noqa: BLE001 - one part's fault must not be the others': each on its own
        return [_one(score, rows) for rows in parts]
    ends = np.cumsum([len(rows) for rows in parts])
    return list(np.split(scores, ends[:-1]))


def _one(score: Score, rows: Rows) -> Floats | Exception:
    try:
        return score(rows)
    except Exception as error:  # noqa: BLE001 - carried to the request that asked
        return error
