"""Questions to servers over plain HTTP, without any client library. What the answers mean is told elsewhere."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from perennial.errors import ServiceError
from perennial.surroundings import LOOPBACK

HEALTH_SECONDS = 2.0
ANSWER_SECONDS = 15.0


class AwayError(ServiceError):
    """Nobody answered, or not in time.

    Attributes:
        busy: Whether somebody listens there, who gave no answer in time.
    """

    busy = False


@dataclass(frozen=True)
class Answer:
    """A server's answer, and when, by our clock and by its own.

    Attributes:
        at: The server's moment, to the second; ours where it tells none.
    """

    text: str
    sent: datetime
    received: datetime
    at: datetime


def healthy(url: str, seconds: float = HEALTH_SECONDS) -> bool:
    """Whether the URL answers 2xx within the time."""
    try:
        with _opener(url).open(url, timeout=seconds) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError, urllib.error.HTTPError):
        return False


def ask(url: str, content: Any = None, seconds: float = ANSWER_SECONDS) -> Answer:
    """What the URL answers to GET, or to POST where there is content; with Prefect's password, where one is set.

    Raises:
        AwayError: Nobody answers in time.
        ServiceError: It refuses.
    """
    data = None if content is None else json.dumps(content).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})  # noqa: S310
    except ValueError as error:
        raise ServiceError(f"{url} is no address", "Correct it") from error
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    sent = datetime.now(UTC)
    try:
        with _opener(url).open(request, timeout=seconds) as answer:
            text, received = answer.read().decode(), datetime.now(UTC)
            at = parsedate_to_datetime(answer.headers["Date"]) if answer.headers["Date"] else received
            return Answer(text, sent, received, at)
    except (urllib.error.HTTPError, ValueError) as error:
        raise ServiceError(f"{url} answers {error}", "Correct its address, or its password") from error
    except OSError as error:  # refused, unknown, or too slow
        reason = getattr(error, "reason", error)
        away = AwayError(f"{url} does not answer: {reason}", "Start the server, or correct its address")
        away.busy = isinstance(reason, TimeoutError)
        raise away from error


def ask_json(url: str, content: Any = None, seconds: float = ANSWER_SECONDS) -> Any:
    """The same, read as JSON.

    Raises:
        AwayError: Nobody answers in time.
        ServiceError: It refuses, or does not answer in JSON.
    """
    text = ask(url, content, seconds).text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServiceError(f"{url} answers no JSON: {text[:100]!r}", "Correct its address") from error


def is_proxied(url: str) -> bool:
    """Whether the environment has this address asked through a proxy."""
    parts = urlsplit(url)
    named = urllib.request.getproxies()
    return not _is_own(url) and parts.scheme in named and not urllib.request.proxy_bypass(parts.netloc)


def _opener(url: str) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if _is_own(url) else []))


def _is_own(url: str) -> bool:
    """Of this machine's own servers no proxy is asked, whatever NO_PROXY says."""
    return (urlsplit(url).hostname or "") in (*LOOPBACK, os.environ.get("PERENNIAL_HOST"))
