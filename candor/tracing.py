"""Spans of one request across gateway and workers.

Tracing is off unless an endpoint is named, and the SDK is imported only then.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, Span, SpanContext, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

TRACE_KEY = "traceparent"  # W3C; in headers, in metadata and in TorchServe's input map
ENDPOINT_VARIABLE = "CANDOR_OTLP_ENDPOINT"
_STANDARD_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FORMAT = TraceContextTextMapPropagator()


class TracingError(ValueError):
    """Spans cannot be sent as the settings say; the message shows no secret."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer, and ``close``, which sends its last spans before the process ends."""

    tracer: Tracer
    close: Callable[[], None]


NO_TRACING = Tracing(NoOpTracer(), lambda: None)


def start_tracing(service: str, endpoint: str) -> Tracing:
    """Send spans to an OTLP collector over gRPC, or make none where no collector is named.

    Args:
        service: name of this process, "candor-gateway" or "candor-worker".
        endpoint: `http://host:4317`; empty: the collector that the standard variables of
            OpenTelemetry name, if any.  These variables decide everything else too: sampler,
            headers, delays.
    Raises:
        TracingError: the endpoint or one of these variables cannot be used.
    """
    endpoint = endpoint or next(filter(None, map(os.environ.get, _STANDARD_VARIABLES)), "")
    if not endpoint:
        return NO_TRACING
    # Imported where spans are sent: the SDK takes time to import.
    from candor.tracing_export import exporting_provider

    try:
        provider = exporting_provider(service, endpoint)
    except ValueError as err:
        raise TracingError(f"tracing: {err}") from err
    return Tracing(provider.get_tracer("candor"), provider.shutdown)


def received(carrier: Mapping[str, str]) -> Context:
    """The trace context of a request, from its headers or metadata with keys in lower case."""
    return _FORMAT.extract(carrier, Context())


def to_send() -> dict[str, str]:
    """Headers with the current trace context; empty without a span."""
    carrier: dict[str, str] = {}
    _FORMAT.inject(carrier)
    return carrier


@contextmanager
def shared_span(
    tracer: Tracer,
    name: str,
    parents: Sequence[Context],
    attributes: Mapping[str, AttributeValue],
) -> Iterator[Span]:
    """The current span of work for several requests: a child of the first, linked to the others.

    Args:
        name, attributes: of the span.
        parents: one or more contexts; several of one span count once.
    """
    spans = {span.span_id: span for span in map(_span_of, parents) if span.is_valid}
    first = _span_of(parents[0]).span_id
    links = [Link(span) for number, span in spans.items() if number != first]
    with tracer.start_as_current_span(
        name, context=parents[0], links=links, attributes=attributes
    ) as span:
        yield span


def _span_of(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()
