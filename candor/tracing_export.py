"""Spans sent to an OTLP collector: what of tracing needs the SDK, which takes time to import."""

import os
import re
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from candor.contracts.proxies import channel_options
from candor.contracts.secrets import shown_url

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_TIMEOUT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


def exporting_provider(service: str, endpoint: str) -> TracerProvider:
    """A provider whose spans go to a collector in batches.

    Args:
        service: "service.name" of every span.
        endpoint: `http://host:4317`; a user and a password in it are sent as Basic credentials,
            and never become part of an address that the exporter logs.
    Raises:
        ValueError: it is no such address, or a variable of OpenTelemetry is wrong.
    """
    _check_numbers()
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
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address, a port that is no number
        is_usable = False
    if not is_usable:
        raise ValueError(f"endpoint: expected http://HOST:PORT, got {shown_url(endpoint)}")
    user, is_named, place = parts.netloc.rpartition("@")
    address = f"{parts.scheme}://{place}" if parts.scheme else place
    given = next(filter(None, map(os.environ.get, _HEADER_VARIABLES)), None)
    if given is not None:
        return address, _headers(given)
    if not is_named:
        return address, None
    return address, {"authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"}


def _headers(text: str) -> dict[str, str]:
    """``NAME=VALUE,NAME=VALUE``, percent-encoded; read here, as the library logs what it rejects.

    Raises:
        ValueError: it is something else; the text names no value.
    """
    headers = {}
    for number, one in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        name, has_value, value = one.partition("=")
        if not has_value or not _HEADER_NAME.fullmatch(name.strip()):
            place = f"{_HEADER_VARIABLES[1]}: part {number}"
            raise ValueError(f"{place}: expected NAME=VALUE, got other text")
        headers[name.strip().lower()] = unquote(value.strip())
    return headers


def _check_numbers() -> None:
    """Raises: ValueError: a time limit of the exporter is no number."""
    for variable in _TIMEOUT_VARIABLES:
        given = os.environ.get(variable, "1")
        if not _NUMBER.fullmatch(given):
            raise ValueError(f"{variable}: expected a number, got {given[:60]!r}")
