"""Spans of one request across gateway and workers.

Off unless an endpoint is named; the SDK is imported only then.
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


@dataclass(frozen=True, slots=True)
class Tracing:
    """What makes spans, and how its last ones get out before the process ends."""

    tracer: Tracer
    close: Callable[[], None]


NO_TRACING = Tracing(NoOpTracer(), lambda: None)


def start_tracing(service: str, endpoint: str) -> Tracing:
    """Spans to an OTLP collector over gRPC, or to nobody.

    Args:
        service: who we are, "candor-gateway" or "candor-worker".
        endpoint: `http://host:4317`; empty: as the standard variables of OpenTelemetry say, which
            decide all else too (sampler, headers, delays), and nobody where they name none.
    """
    if not (endpoint or any(map(os.environ.get, _STANDARD_VARIABLES))):
        return NO_TRACING
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint or None)))
    return Tracing(provider.get_tracer("candor"), provider.shutdown)


def received(carrier: Mapping[str, str]) -> Context:
    """Where a request comes from, as its headers or metadata say, keys in lower case."""
    return _FORMAT.extract(carrier, Context())


def to_send() -> dict[str, str]:
    """Headers that say where we are; empty without a span."""
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
    """The current span of work done for several at once: below the first, linked to the others."""
    spans = {span.span_id: span for span in map(_span_of, parents) if span.is_valid}
    first = _span_of(parents[0]).span_id
    links = [Link(span) for number, span in spans.items() if number != first]
    with tracer.start_as_current_span(
        name, context=parents[0], links=links, attributes=attributes
    ) as span:
        yield span


def _span_of(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()
