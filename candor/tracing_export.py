"""Spans sent to an OTLP collector: what of tracing needs the SDK, which takes time to import."""

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def exporting_provider(service: str, endpoint: str | None) -> TracerProvider:
    """A provider whose spans go to a collector in batches.

    Args:
        service: "service.name" of every span.
        endpoint: `http://host:4317`; None: as the standard variables of OpenTelemetry say.
    """
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider
