"""What a person sees on stderr while a command works: one moving line on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import click

# Where nobody watches, a quick command says nothing, and a long one a line each time that so much has passed.
LINE_SECONDS = 5.0


class Progress:
    """Shows what is being done; called with each new thing.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Any = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False)
        self._clock = clock
        self._started = self._told = clock()
        self._status: Any = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            from rich.progress import Progress as Bars
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._status = Bars(*columns, console=self._console, transient=True)
            self._status.start()
            self._task = self._status.add_task("starting", total=None)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, what: str) -> None:
        """Tell what is done now."""
        if self._status is not None:
            self._status.update(self._task, description=what)
            return
        now = self._clock()
        if now - self._told >= LINE_SECONDS:
            self._told = now
            click.echo(f"[{now - self._started:3.0f} s] {what}", err=True)
