"""W3C trace context: a request's span in the trace that its client began, where OpenTelemetry is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
