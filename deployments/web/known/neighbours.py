"""Prefect and MLflow, asked in rounds: what both said last, and since when one is away. Neither is imported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from deployments.web.known.mlflow import MlflowServer
from deployments.web.known.prefect import PrefectServer, Run
from perennial.errors import ServiceError
from perennial.settings import Settings

_SECONDS = 5.0
ROUND_SECONDS = 2.0


@dataclass
class Neighbours:
    """What is known of both; what was known before one went away stays.

    Args:
        clock: The moment of now.
    """

    settings: Settings
    clock: Callable[[], datetime] = field(kw_only=True)
    runs: dict[str, list[Run]] = field(default_factory=dict, init=False)
    paused: set[tuple[str, str]] = field(default_factory=set, init=False)
    waiting: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False)
    away: dict[str, tuple[datetime, str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # Addresses of this installation: a proxy of the environment has no business with them.
        self._http = httpx.Client(timeout=_SECONDS, trust_env=False)
        self.prefect = PrefectServer(self.settings, self._http)
        self.mlflow = MlflowServer(self.settings, self._http)
        self._next = 0.0

    def close(self) -> None:
        self._http.close()

    def look(self, models: Sequence[str]) -> bool:
        """Ask both, unless that was just done; whether anything is new."""
        if time.monotonic() < self._next:
            return False
        before = (self.runs, self.paused, self.waiting, set(self.away))
        self._ask("Prefect", lambda: self._look_at_prefect(models))
        self._ask("MLflow", self._look_at_mlflow)
        self._next = time.monotonic() + ROUND_SECONDS
        return before != (self.runs, self.paused, self.waiting, set(self.away))

    def look_again(self) -> None:
        """Let the next round ask: something was started or answered."""
        self._next = 0.0

    def _look_at_prefect(self, models: Sequence[str]) -> None:
        self.runs, self.paused = self.prefect.look(models, self.clock())

    def _look_at_mlflow(self) -> None:
        self.waiting = self.mlflow.waiting()

    def _ask(self, who: str, call: Callable[[], None]) -> None:
        try:
            call()
        except ServiceError as error:
            self.away.setdefault(who, (self.clock(), str(error)))
        else:
            self.away.pop(who, None)
