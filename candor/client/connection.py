"""How clients reach a gateway: TLS, key, deadline, retries."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from candor.contracts import headers
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.files.reading import MIB, read_file
from candor.rpc import status

OPTIONS = [
    # Holds 64 explanations of a large image with their tensors.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    ("grpc.max_metadata_size", 64 * 1024),  # error details travel as metadata
    # The default back-off grows to two minutes, far longer than a restart takes.
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),  # otherwise they end after two
]
# The library closes a connection by the last one, which is a minute by default.
_PING_OPTIONS = (
    "grpc.keepalive_time_ms",
    "grpc.keepalive_timeout_ms",
    "grpc.http2.ping_timeout_ms",
)
KEY_VARIABLE = "CANDOR_KEY"
# By a part of gRPC's text, the most telling first.
_CONNECTION_ERRORS = {
    "http1": "expected gRPC at its address, got HTTP/1; the port of REST is another one",
    "SSL": "TLS could not be agreed on; CANDOR_CA names the authorities to trust",
    "andshak": "TLS could not be agreed on; CANDOR_CA names the authorities to trust",
    "Failed parsing HTTP/2": "expected gRPC at its address, got another protocol, or TLS",
    "lookup": "expected a host that is known, got another one",
    "Connection refused": "cannot be reached, nothing listens at its address",
    "No such file": "cannot be reached, there is no such socket",
    "unreachable": "cannot be reached, there is no way to its address",
    "Deadline Exceeded": "expected its response within the time, got none",
    "http2 header with status": "expected its response, got one of a proxy",
}
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

_MAX_FILE_BYTES = 16 * MIB  # of a bundle of authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files.

    Attributes:
        ca: certificate authorities to trust; None for those of the system.
        cert, key: certificate and key of this client, for mutual TLS.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(*map(_pem, (self.ca, self.key, self.cert)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What every call of one client has in common.

    Attributes:
        timeout_seconds: the deadline of a call, all its attempts and pauses together.
        tenant: shares the workers fairly with others; a gateway with keys uses the key's tenant.
        key: bearer key or token; if empty, that of the variable CANDOR_KEY.
        tls: None means plain text.
        max_attempts: calls made for one response while the gateway says that a retry may help.
        keepalive_seconds: silence during a call after which the client pings, so that balancers
            keep the connection, and how long it waits for the response before it takes the
            gateway for lost; the gateway's CANDOR_GRPC_MIN_PING_SECONDS is the least it allows.
    """

    timeout_seconds: float = 600.0
    tenant: str = ""
    key: str = ""
    tls: Tls | None = None
    max_attempts: int = 3
    keepalive_seconds: float = 30.0

    def channel_options(self) -> list[tuple[str, int]]:
        milliseconds = round(1000 * self.keepalive_seconds)
        return [*OPTIONS, *((name, milliseconds) for name in _PING_OPTIONS)]

    def metadata(self, request_id: str | None) -> tuple[tuple[str, str], ...]:
        key = self.key or os.environ.get(KEY_VARIABLE, "")
        sent = (
            (headers.REQUEST_ID, request_id),
            (headers.TENANT, self.tenant),
            (headers.AUTHORIZATION, f"Bearer {key}" if key else ""),
        )
        return tuple((name, _printable(name, value)) for name, value in sent if value)

    def deadline(self) -> float:
        return time.monotonic() + self.timeout_seconds

    def pause_before(self, attempt: int, error: ServiceError, deadline: float) -> float:
        """Seconds until attempt number ``attempt`` (from 2) may be made.

        The delay that the gateway names (RetryInfo), or a growing one while it is unreachable.

        Raises:
            ServiceError: ``error``, if a retry cannot help, comes too late or exceeds the limit.
        """
        is_away = error.code is ErrorCode.MODEL_NOT_READY
        if attempt > self.max_attempts or (error.retry_seconds is None and not is_away):
            raise error
        usual = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 2))
        wanted = usual if error.retry_seconds is None else error.retry_seconds
        # Up to a quarter more, so that clients rejected together do not retry together.
        pause = wanted * random.uniform(1.0, 1.25)
        if time.monotonic() + pause >= deadline:
            raise error
        return pause


def _pem(path: Path | None) -> bytes | None:
    """Raises: ValueError, OSError: no PEM; gRPC would only fail to connect later."""
    content = None if path is None else read_file(path, _MAX_FILE_BYTES)
    if content is not None and b"-----BEGIN " not in content:
        raise ValueError(f"{path}: expected PEM, got {len(content)} bytes of something else")
    return content


def _printable(name: str, value: str) -> str:
    """Raises: ServiceError: INVALID_INPUT: gRPC cannot carry it; the value may be a secret."""
    if value.isascii() and value.isprintable():
        return value
    raise invalid_input(
        [FieldViolation(name, "expected printable ASCII characters, got others among them")]
    )


def service_error(err: Any) -> ServiceError:
    """The error that a failed gRPC call reports."""
    details = dict(err.trailing_metadata() or ()).get(status.DETAILS_KEY)
    said = err.details() or ""
    return status.from_rpc_status(err.code(), said if details else _unreached(said), details)


def _unreached(said: str) -> str:
    """What the text of a library means where the service itself has not answered."""
    means = (meaning for part, meaning in _CONNECTION_ERRORS.items() if part in said)
    return f"service: {next(means, 'expected its response, got the end of the connection')}"
