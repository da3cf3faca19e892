"""The settings of the gateway, from the environment with the prefix `CANDOR_`.

Lists are JSON: ``CANDOR_MODELS='["cifar10-robust"]'``.
"""

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from candor.contracts.addresses import (
    bare_host,
    checked_target,
    endpoint,
    is_loopback,
    port_of,
)
from candor.contracts.names import (
    checked_model_name,
    checked_served_name,
    tenant_name,
)
from candor.contracts.proxies import is_local
from candor.contracts.secrets import Secret
from candor.gateway.access.quotas import Quota
from candor.gateway.config.environment import (
    PREFIX,
    StrictEnvironment,
    checked_number,
    misspelt,
)
from candor.gateway.config.problems import problems_of
from candor.gateway.service.routing import Route, Routes
from candor.gateway.sockets import loopback


def _checked_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as err:
        raise ValueError(f"expected an address or a network, got {text[:60]!r}") from err


Tenant = Annotated[str, AfterValidator(tenant_name)]
ModelName = Annotated[str, AfterValidator(checked_model_name)]
ServedName = Annotated[str, AfterValidator(checked_served_name)]
ProxyNetwork = Annotated[str, AfterValidator(_checked_network)]
Host = Annotated[str, AfterValidator(bare_host)]
Target = Annotated[str, AfterValidator(checked_target)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0.0, le=86400.0)]
_PORTS = ("grpc_port", "rest_port", "metrics_port", "health_port")
# Only asymmetric ones: with HS256 among them, a public key could pass for a shared secret.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class BadSettings(ValueError):
    """The settings cannot be used; the message names each bad one and what was expected."""


def read_settings() -> "Settings":
    """The settings of the environment.

    Raises:
        BadSettings: one is missing or wrong, or several contradict each other.
    """
    wrong_names = misspelt(os.environ, Settings.model_fields)
    if wrong_names:  # its value would not be used, and the service be less guarded than wanted
        raise BadSettings("; ".join(wrong_names))
    try:
        return Settings()  # type: ignore[call-arg]  # fields come from the environment
    except (ValidationError, SettingsError) as err:
        # Without the cause: it quotes what was given, passwords too.
        raise BadSettings(problems_of(err)) from None


class Settings(BaseSettings):
    """Every setting of the gateway with its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    host: Host = Field(default_factory=loopback)
    """Address on which gRPC and REST listen, IPv4 or IPv6; ``::`` is every address of both.  The
    default is this machine's loopback, 127.0.0.1, or ::1 where it has IPv6 alone."""
    grpc_port: Port = 8500
    """Port of gRPC; 0 takes any free port."""
    rest_port: Port = 8501
    """Port of REST; 0 takes any free port."""
    metrics_port: Port | None = None
    """Port of /metrics for Prometheus, plain HTTP; 0 takes any free port, none means no metrics."""
    metric_tenants: tuple[Tenant, ...] = ()
    """Tenants whose compute seconds the metrics count apart; the others count as `other`."""
    build_version: str = "source"
    """Version of this gateway in the metrics; a container image sets its own."""
    torchserve_address: Target = Field(default_factory=lambda: endpoint(loopback(), 7070))
    """HOST:PORT of TorchServe's gRPC inference API, an IPv6 host in brackets; on loopback, as it
    has no access control.  The default is port 7070 of this machine's loopback."""
    models: Annotated[tuple[ServedName, ...], Field(min_length=1)]
    """Models to serve, ``NAME`` or, for a model with several versions, ``NAME@VERSION`` each; the
    first one is the default.  The first of several versions is the primary, unless a route names
    one."""
    routes: dict[ModelName, Route] = Field(default_factory=dict)
    """For each model the version that is the primary, the canary and the shadow, as JSON."""

    max_batch: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most searches that one call to a worker advances; fewer if steps take long."""
    search_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Search workers of a model behind TorchServe, which must have the same number; so many chunks
    are computed at once."""
    short_steps: Annotated[int, Field(ge=0)] = 40
    """A search of at most so many steps counts as short and waits for no batch of long ones."""
    max_waiting: Annotated[int, Field(ge=1)] = 512
    """Searches of one model that may wait for a place in the batch; more are rejected."""
    objective_seconds: Seconds = 30.0
    """How long an explanation, a probe or a comparison may take that is admitted.  Where the
    searches before it would take more than half of this, or of the time to its deadline, it is
    rejected at once, with the time after which to retry.  Background requests have only their
    deadline."""
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests of all kinds in progress at once; more are rejected."""
    chunk_seconds: Seconds = 0.1
    """How long a chunk with the first steps of a search should take; without new searches chunks
    grow to four times this, which is the longest wait of a new search before it joins."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Memory for finished searches of all models, least recently used evicted first; 0: none."""
    progress_seconds: Seconds = 0.25
    """Pause between two messages about a streamed pair, except for its first result."""
    heartbeat_seconds: Seconds = 10.0
    """Silence after which a stream sends a sign of life: over REST a comment, over gRPC the latest
    progress once more."""
    keep_alive_seconds: Seconds = 75.0
    """How long an idle connection of REST stays open; longer than balancers keep theirs, which is
    60 seconds usually, so that none sends a request on a connection that is about to be closed."""
    grpc_min_ping_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = 1.0
    """Shortest pause that clients of gRPC keep between two keepalive pings; a client that pings
    more often loses its connection ("Too many pings").  Clients may ping without calls, too."""
    grpc_keepalive_seconds: Annotated[float, Field(ge=1.0, le=86400.0)] = 30.0
    """Silence after which the gateway pings a gRPC client, so that balancers keep the connection
    and a client that is gone is noticed."""
    grpc_keepalive_timeout_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = 20.0
    """How long a gRPC client may take to answer such a ping before its calls are cancelled."""
    grpc_connection_seconds: Annotated[float, Field(ge=1.0, le=86400.0)] | None = None
    """Age at which a gRPC client is asked to connect anew, so that a balancer spreads clients over
    new gateways; calls in flight go on for ``request_seconds`` and 30 s more.  None: never."""

    worker_call_seconds: Seconds = 30.0
    """Longest wait for one response of a worker, which counts as dead after it."""
    worker_retry_seconds: Seconds = 60.0
    """How long searches outlive a dead worker before they fail."""
    predict_retry_seconds: Seconds = 10.0
    """How long a prediction outlives a dead worker; a restart takes about 3 seconds."""
    request_seconds: Seconds = 600.0
    """Longest duration of a whole request."""
    answer_seconds: Seconds = 0.2
    """Searches end this long before a deadline, to encode and send the response."""
    body_seconds: Seconds = 30.0
    """Longest time in which a REST client may send its body."""
    body_bytes: Annotated[int, Field(ge=16 * 1024 * 1024)] = 512 * 1024 * 1024
    """Bytes of the bodies of all REST requests that may be held at once."""
    ready_seconds: Seconds = 10.0
    """Pause between two checks of readiness, each a real prediction and a real search step."""
    drain_seconds: Seconds = 30.0
    """How long requests in flight may finish after SIGTERM."""

    otlp_endpoint: Secret = Secret()
    """Address of the OpenTelemetry collector, ``http://host:4317``; empty: that of the standard
    ``OTEL_`` variables, or no traces.  Workers read the same variable."""

    store_url: Secret = Secret()
    """Database of candidates, annotations and report jobs, a path or a URL; empty: no database."""
    store_seconds: Seconds = 5.0
    """Longest wait for the database or for a lock of another process; then 503."""
    shared_url: Secret = Secret()
    """Redis server, ``redis://HOST:PORT`` or ``rediss://`` for TLS, by which gateways behind one
    address share quotas and finished searches; empty: each has its own.  While it does not answer,
    each goes on alone."""
    reports_dir: Path = Path("runs/reports")
    """Folder of finished reports; `candor report-worker` writes there."""
    annotators_per_image: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many annotators judge each candidate."""
    lease_seconds: Seconds = 900.0
    """How long a candidate stays lent to an annotator who does not judge it."""

    tls_cert: str = ""
    """PEM file of the certificate and its chain; with it gRPC and REST accept only TLS."""
    tls_key: str = ""
    """PEM file of the certificate's key."""
    tls_client_ca: str = ""
    """PEM file of authorities, of which every client then needs a certificate (mutual TLS)."""
    health_port: Port | None = None
    """Port of /healthz over plain HTTP, for probes without a certificate; none: no such port."""
    keys_file: str = ""
    """File of bearer keys, see `candor keys`; read again when it changes."""
    oidc_issuer: str = ""
    """`iss` of tokens to accept; empty: no tokens."""
    oidc_audience: str = ""
    """`aud` that a token must name."""
    oidc_jwks: Secret = Secret()
    """The issuer's public keys: a file, or an https:// address."""
    oidc_algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """Signatures to accept."""
    oidc_tenant_claim: str = "tenant"
    """Claim that names the tenant; the subject where a token lacks it."""
    oidc_scope_claim: str = "scope"
    """Claim with the scopes."""
    allow_anonymous: bool = False
    """Allows listening beyond loopback without keys, tokens or client certificates."""
    quota: Quota = Quota()
    """Limits of each tenant, as JSON."""
    tenant_quotas: dict[Tenant, Quota] = Field(default_factory=dict)
    """Limits of single tenants by name, as JSON."""
    trusted_proxies: tuple[ProxyNetwork, ...] = ()
    """Addresses or networks of proxies, as JSON.  Only from them the gateway accepts ``Forwarded``,
    `X-Forwarded-For` and `X-Forwarded-Proto`: the client's address for the request log, and whether
    it came over TLS, so that cookies are Secure and HSTS is sent."""
    header_seconds: Seconds = 10.0
    """Longest time from a REST client's connection to the end of its headers."""
    reflection: bool = True
    """gRPC lists its methods to clients (reflection); off in production."""
    docs: bool = True
    """/docs and /openapi.json; off in production."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return named["init_settings"], StrictEnvironment(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _is_plain_number(cls, value: Any, info: ValidationInfo) -> Any:
        return checked_number(cls.model_fields[info.field_name or ""].annotation, value)

    @property
    def has_keys(self) -> bool:
        return bool(self.keys_file or self.oidc_issuer)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = [*self._incomplete(), *self._unprotected(), *self._equal_ports()]
        if problems:
            raise ValueError("; ".join(problems))
        self.make_routes()
        return self

    def make_routes(self) -> Routes:
        """Raises: ValueError: ``models`` and ``routes`` contradict each other or themselves."""
        return Routes(self.models, self.routes)

    def _incomplete(self) -> Iterator[str]:
        if bool(self.tls_cert) != bool(self.tls_key):
            yield "tls_cert, tls_key: expected both or none, got one"
        if self.tls_client_ca and not self.tls_cert:
            yield "tls_client_ca: needs tls_cert and tls_key"
        if self.oidc_issuer and not (self.oidc_audience and self.oidc_jwks):
            yield "oidc_issuer: needs oidc_audience and oidc_jwks"
        yield from self._bad_worker()
        yield from self._bad_key_source()
        yield from self._bad_collector()
        yield from self._bad_shared_url()

    def _bad_worker(self) -> Iterator[str]:
        port = port_of(self.torchserve_address)
        if port is None and not self.torchserve_address.startswith("unix"):
            yield f"torchserve_address: expected HOST:PORT, got {self.torchserve_address!r}"
        if port and is_local(self.torchserve_address):
            yield from (
                f"{name}, torchserve_address: expected two ports, got {port} twice"
                for name in _PORTS
                if getattr(self, name) == port
            )

    def _bad_key_source(self) -> Iterator[str]:
        location = self.oidc_jwks.reveal()
        if "://" not in location:
            return
        try:
            address = urlsplit(location)
            is_usable = "@" not in address.netloc and address.port != 0
            is_safe = address.scheme == "https" or is_loopback(address.hostname or "")
        except ValueError:
            is_usable = is_safe = False
        if not is_usable or not is_safe:
            yield (
                "oidc_jwks: expected a file, https://HOST/PATH without user and password, or http "
                f"on loopback, got {self.oidc_jwks}"
            )

    def _bad_collector(self) -> Iterator[str]:
        endpoint = self.otlp_endpoint.reveal()
        try:
            address = urlsplit(endpoint)
            is_usable = address.scheme in ("http", "https") and bool(address.hostname)
            is_usable = is_usable and address.port != 0
        except ValueError:
            is_usable = False
        if endpoint and not is_usable:
            yield f"otlp_endpoint: expected http://HOST:PORT, got {self.otlp_endpoint}"

    def _bad_shared_url(self) -> Iterator[str]:
        try:
            address = urlsplit(self.shared_url.reveal())
            is_usable = address.scheme in ("redis", "rediss") and bool(address.hostname)
            is_usable = is_usable and address.port != 0
        except ValueError:
            is_usable = False
        if self.shared_url and not is_usable:
            yield f"shared_url: expected redis://HOST:PORT or rediss://, got {self.shared_url}"

    def _equal_ports(self) -> Iterator[str]:
        taken: dict[int, str] = {}
        for name in _PORTS:
            port = getattr(self, name)
            if port and port in taken:
                yield f"{taken[port]}, {name}: expected two ports, got {port} twice"
            elif port:
                taken[port] = name

    def _unprotected(self) -> Iterator[str]:
        is_protected = self.has_keys or self.tls_client_ca or self.allow_anonymous
        if not is_protected and not is_loopback(self.host):
            yield (
                f"host: expected a loopback address, got {self.host!r} without keys_file, "
                "oidc_issuer or tls_client_ca; set allow_anonymous=true if a proxy authenticates "
                "the clients"
            )
