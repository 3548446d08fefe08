"""W3C trace context: a request's span in the trace that its client began, where OpenTelemetry is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perennial.serving.web.http import header

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,100})?")


def trace_of(scope: Any) -> str | None:
    """The request's `traceparent`, if it is one."""
    given = header(scope, b"traceparent")
    return given if given is not None and _TRACE.fullmatch(given) else None


@contextmanager
def request_span(name: str, scope: Any) -> Iterator[None]:
    """A server span around a request that carries `traceparent`; nothing without OpenTelemetry."""
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        yield
        return
    carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    parent = TraceContextTextMapPropagator().extract(carrier)
    tracer = trace.get_tracer("perennial.serving")
    with tracer.start_as_current_span(
        name, context=parent, kind=trace.SpanKind.SERVER, attributes={"http.route": scope["path"]}
    ):
        yield
