"""From a method and a path to a handler. Knows no handler's work, no token and no header."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from perennial.serving.protocol.problems import Problem
from perennial.serving.web.http import Answer, Receive, Scope


@dataclass
class Call:
    """One request on its way through a handler."""

    scope: Scope
    receive: Receive
    model: str | None
    version: str | None
    arrived_ns: int


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """What a path leads to.

    Attributes:
        pattern: Segments; {model} and {version} match any.
        scopes: Which tokens may; None is open to all.
        protocol: What it counts as in the metrics.
    """

    method: str
    pattern: tuple[str, ...]
    handler: Handler
    scopes: tuple[str, ...] | None
    protocol: str


class Router:
    """The table of routes, with the paths that were asked for remembered.

    Args:
        routes: The first that matches counts.
        is_known: Whether a model is served: only such paths are remembered, strangers' could be endless.
    """

    def __init__(self, routes: Sequence[Route], is_known: Callable[[str], bool]) -> None:
        self._routes, self._is_known = routes, is_known
        self._exact: dict[tuple[str, bytes], tuple[Route, str | None]] = {}

    def find(self, method: str, path: bytes) -> tuple[Route, str | None, str | None]:
        """The route, and the model and version that the path names; it is as it was sent, percents and all.

        Raises:
            Problem: 404 or 405.
        """
        if (hit := self._exact.get((method, path))) is not None:
            return hit[0], hit[1], None
        # Split first: a slash that was sent as %2F belongs to a name.
        segments = tuple(unquote(part) for part in path.decode("latin-1").strip("/").split("/"))
        allowed = []
        for route in self._routes:
            values = _match(route.pattern, segments)
            if values is None:
                continue
            if route.method == method:
                model = values.get("model")
                if "version" not in values and (model is None or self._is_known(model)):
                    self._exact[method, path] = (route, model)
                return route, model, values.get("version")
            allowed.append(route.method)
        if allowed:
            both = sorted({*allowed, *(["HEAD"] if "GET" in allowed else [])})
            raise Problem(
                405, f"{method[:20]} is not understood here", {"allow": ", ".join(both)}, rule=", ".join(both)
            )
        raise Problem(404, f"there is nothing at {path[:200].decode('latin-1')!r}", rule="see /docs")


def _match(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    values = {}
    for wanted, found in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            values[wanted[1:-1]] = found
        elif wanted != found:
            return None
    return values
