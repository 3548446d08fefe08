"""Asking a registry again: that is away, or whose tag or alias another wrote at the same moment. It knows no model.

Only what may be done twice is asked again by itself. What may not (a new run, a new version) is repeated by whoever
can look whether it happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from perennial.errors import RegistryError

T = TypeVar("T")
LOG = logging.getLogger("perennial.registry")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0
_NOT_TWICE = ("create_run", "create_model_version", "create_registered_model", "create_experiment", "log_table")
_STORAGE_AWAY = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")
_HTTP_AWAY = ("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError")
_AWAY_STATUS = (429, 502, 503, 504)
# PostgreSQL: shut down by its administrator, crashed, starting up; too many connections.
_AWAY_TEXTS = ("57P01", "57P02", "57P03", "53300", "database is locked")

# SQLite and PostgreSQL: what MLflow looked for and did not find is there when it writes, or the other way round.
_AT_ONCE_TEXTS = ("unique constraint failed", "violates unique constraint", "expected to update 1 row")
_AT_ONCE_TRIES = 3


def is_away(error: BaseException) -> bool:
    """Whether a failure says that a server or database is away for a while, not that the request was wrong."""
    return any(_says_away(cause) for cause in _causes(error))


def patiently(call: Callable[[], T], seconds: float) -> T:
    """Call until it works, or fails in another way than by an absence, or the time is up."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error) or time.monotonic() + pause > deadline:
                raise
            LOG.warning("the registry is away, trying again: %s", type(error).__name__)
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


def ask(call: Callable[[], T], seconds: float) -> T:
    """`patiently`, and what an absence that lasts means to a person.

    Raises:
        RegistryError: It is still away.
    """
    try:
        return patiently(call, seconds)
    except Exception as error:
        if not is_away(error) or isinstance(error, RegistryError):
            raise
        waited = f"did not answer within {seconds:g} s" if seconds else "does not answer"
        raise RegistryError(
            f"the registry or its storage {waited} ({type(error).__name__})",
            "Start it (see `perennial doctor`), then run this again: it goes on where it was",
        ) from error


class Patient:
    """A client whose repeatable calls wait for an absent server, and give way to another writer.

    Args:
        client: MLflow's.
        seconds: For each call.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self._client, self._seconds = client, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        seconds = 0.0 if name in _NOT_TWICE else self._seconds
        tries = _AT_ONCE_TRIES if name.startswith("set_") else 1

        @wraps(found)
        def call(*arguments: Any, **more: Any) -> Any:
            return ask(lambda: _past_another(lambda: found(*arguments, **more), tries), seconds)

        return call


def _past_another(call: Callable[[], T], tries: int) -> T:
    """Call again where another writer was quicker: MLflow looks first and then writes, and by now sees the other's."""
    for _ in range(tries - 1):
        try:
            return call()
        except Exception as error:
            if not any(told in str(error).lower() for told in _AT_ONCE_TEXTS):
                raise
            LOG.info("another wrote the same at the same moment, once more: %s", type(error).__name__)
    return call()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _says_away(error: BaseException) -> bool:
    kind = type(error)
    if kind.__module__.startswith("requests") and kind.__name__ in ("ConnectionError", "Timeout", "ReadTimeout"):
        return True
    if kind.__module__.startswith("httpx") and kind.__name__ in _HTTP_AWAY:
        return True
    if getattr(getattr(error, "response", None), "status_code", None) in _AWAY_STATUS:
        return True
    if getattr(error, "connection_invalidated", False) or (isinstance(error, ConnectionError)):
        return True
    if kind.__module__.startswith("sqlalchemy") and kind.__name__ == "InterfaceError":
        return True
    if kind.__module__.startswith("botocore") and _storage_away(error):
        return True
    status = getattr(error, "get_http_status_code", None)
    if status is not None and status() in _AWAY_STATUS and "sqlite3" not in str(error):
        return True
    return any(text in str(error) for text in _AWAY_TEXTS)


def _storage_away(error: BaseException) -> bool:
    if type(error).__name__ in _STORAGE_AWAY:
        return True
    answer = getattr(error, "response", None) or {}
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in _AWAY_STATUS
