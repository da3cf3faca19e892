"""Spans sent to an OTLP collector: what of tracing needs the SDK, which takes time to import."""

import os
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from candor.contracts.proxies import channel_options

_HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


def exporting_provider(service: str, endpoint: str) -> TracerProvider:
    """A provider whose spans go to a collector in batches.

    Args:
        service: "service.name" of every span.
        endpoint: `http://host:4317`; a user and a password in it are sent as Basic credentials,
            and never become part of an address that the exporter logs.
    """
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    address, headers = _parted(endpoint)
    exporter = OTLPSpanExporter(
        endpoint=address,
        headers=headers,
        channel_options=channel_options(address),  # type: ignore[arg-type]  # values may be numbers
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _parted(endpoint: str) -> tuple[str, dict[str, str] | None]:
    """The address alone, and the headers that its user and password become."""
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    user, is_named, place = parts.netloc.rpartition("@")
    address = f"{parts.scheme}://{place}" if parts.scheme else place
    if not is_named or any(map(os.environ.get, _HEADER_VARIABLES)):
        return address, None
    return address, {"authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"}
