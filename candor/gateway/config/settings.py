"""What an operator may set, from the environment with the prefix `CANDOR_`.

Lists are JSON: ``CANDOR_MODELS='["cifar10-robust"]'``.
"""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from candor.contracts.names import SERVED_PATTERN
from candor.gateway.access.quotas import Quota
from candor.gateway.service.routing import Route, Routes

ServedName = Annotated[str, Field(pattern=SERVED_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0.0, le=86400.0)]
# Asymmetric ones alone: with HS256 among them, a public key could pass for a shared secret.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class Settings(BaseSettings):
    """Every setting of the gateway with its default."""

    model_config = SettingsConfigDict(
        env_prefix="CANDOR_", extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address both doors listen on."""
    grpc_port: Port = 8500
    """gRPC door; 0 takes any free port."""
    rest_port: Port = 8501
    """REST door; 0 takes any free port."""
    metrics_port: Port | None = None
    """Prometheus' door at /metrics, plain HTTP; 0 takes any free port, none is closed."""
    metric_tenants: tuple[str, ...] = ()
    """Tenants whose compute seconds the metrics tell apart; the others count as `other`."""
    build_version: str = "source"
    """What the metrics call this gateway; an image says its own version."""
    torchserve_address: str = "127.0.0.1:7070"
    """host:port of TorchServe's gRPC inference API; loopback, it has no defences of its own."""
    models: Annotated[tuple[ServedName, ...], Field(min_length=1)]
    """Models served, ``NAME`` or, of one with several versions, ``NAME@VERSION`` each; the first is
    of the default model.  Of several versions the first is the primary, unless a route says so."""
    routes: dict[str, Route] = Field(default_factory=dict)
    """By model: which version is the primary, which the canary and which the shadow, as JSON."""

    max_batch: Annotated[int, Field(ge=1, le=1024)] = 32
    """Searches advanced by one call to a worker at most; fewer where steps take long."""
    search_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Search workers a model has behind TorchServe, which is told the same number; as many chunks
    are computed at once."""
    short_steps: Annotated[int, Field(ge=0)] = 40
    """A search of at most so many steps counts as short: it waits for no batch of long ones."""
    max_waiting: Annotated[int, Field(ge=1)] = 512
    """Searches of one model that may wait for a place in the batch; more are turned away."""
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests worked on at once, of all kinds; more are turned away."""
    chunk_seconds: Seconds = 0.1
    """How long a chunk that brings somebody a first result should take; while nobody new comes,
    chunks grow to four times this, which is a newcomer's longest wait before it joins."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Memory for finished searches of all models, the least recently used go first; 0: none."""
    progress_seconds: Seconds = 0.25
    """Pause between two messages about a streamed pair but for its first result."""
    heartbeat_seconds: Seconds = 10.0
    """Silence after which a stream over REST shows that it is alive."""

    worker_call_seconds: Seconds = 30.0
    """Longest wait for one answer of a worker; a hung worker counts as dead after it."""
    worker_retry_seconds: Seconds = 60.0
    """How long searches outlive a dead worker before they fail."""
    predict_retry_seconds: Seconds = 10.0
    """How long a prediction outlives a dead worker; a restart takes about 3 seconds."""
    request_seconds: Seconds = 600.0
    """Longest a request may take, all of it."""
    answer_seconds: Seconds = 0.2
    """Before a deadline the searches end so much earlier: time to encode and send the answer."""
    body_seconds: Seconds = 30.0
    """Longest a REST client may take to send its body."""
    body_bytes: Annotated[int, Field(ge=16 * 1024 * 1024)] = 512 * 1024 * 1024
    """Bodies of all REST requests that may be held at once."""
    ready_seconds: Seconds = 10.0
    """Pause between two checks of readiness, each a real prediction and a real search step."""
    drain_seconds: Seconds = 30.0
    """How long requests in flight may finish after SIGTERM."""

    otlp_endpoint: str = ""
    """Where OpenTelemetry's collector listens, ``http://host:4317``; empty: as the standard
    ``OTEL_`` variables say, or no traces.  Workers read the same variable."""

    store_url: str = ""
    """Database of candidates, annotations and report jobs, a path or a URL; empty: none of them."""
    reports_dir: Path = Path("runs/reports")
    """Folder of finished reports; `candor report-worker` writes there."""
    annotators_per_image: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many annotators are given each candidate."""
    lease_seconds: Seconds = 900.0
    """How long a candidate stays with an annotator who does not answer."""

    tls_cert: str = ""
    """PEM file of the certificate and its chain; with it both doors speak TLS alone."""
    tls_key: str = ""
    """PEM file of the certificate's key."""
    tls_client_ca: str = ""
    """PEM file of authorities; with it every client needs a certificate of theirs (mutual TLS)."""
    health_port: Port | None = None
    """/healthz alone over plain HTTP, for probes that have no certificate; none is closed."""
    keys_file: str = ""
    """File of bearer keys, see `candor keys`; read again when it changes."""
    oidc_issuer: str = ""
    """`iss` of tokens to accept; empty: no tokens."""
    oidc_audience: str = ""
    """`aud` that a token must name."""
    oidc_jwks: str = ""
    """The issuer's public keys: a file, or an https:// address."""
    oidc_algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """Signatures to accept."""
    oidc_tenant_claim: str = "tenant"
    """Claim that names the tenant; the subject where a token lacks it."""
    oidc_scope_claim: str = "scope"
    """Claim with the scopes."""
    allow_anonymous: bool = False
    """Lets the doors listen beyond loopback without keys, tokens or client certificates."""
    quota: Quota = Quota()
    """What each tenant may ask for, as JSON."""
    tenant_quotas: dict[str, Quota] = Field(default_factory=dict)
    """The same for tenants by name, as JSON."""
    header_seconds: Seconds = 10.0
    """Longest a REST client may take from connecting to the end of its headers."""
    reflection: bool = True
    """gRPC tells its methods to whoever may call it; off in production."""
    docs: bool = True
    """/docs and /openapi.json; off in production."""

    @property
    def has_keys(self) -> bool:
        return bool(self.keys_file or self.oidc_issuer)

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        problems = [*self._incomplete(), *self._unguarded()]
        if problems:
            raise ValueError("; ".join(problems))
        self.make_routes()
        return self

    def make_routes(self) -> Routes:
        """Raises: ValueError: ``models`` and ``routes`` contradict themselves or each other."""
        return Routes(self.models, self.routes)

    def _incomplete(self) -> Iterator[str]:
        if bool(self.tls_cert) != bool(self.tls_key):
            yield "tls_cert, tls_key: got one, allowed both or none"
        if self.tls_client_ca and not self.tls_cert:
            yield "tls_client_ca: needs tls_cert and tls_key"
        if self.oidc_issuer and not (self.oidc_audience and self.oidc_jwks):
            yield "oidc_issuer: needs oidc_audience and oidc_jwks"
        address = urlsplit(self.oidc_jwks)
        if (
            address.scheme
            and address.scheme != "https"
            and not _is_loopback(address.hostname or "")
        ):
            yield f"oidc_jwks: got {address.scheme}, allowed a file, https, or http on loopback"

    def _unguarded(self) -> Iterator[str]:
        is_guarded = self.has_keys or self.tls_client_ca or self.allow_anonymous
        if not is_guarded and not _is_loopback(self.host):
            yield (
                f"host: got {self.host!r} without keys_file, oidc_issuer or tls_client_ca, allowed "
                "a loopback address; allow_anonymous=true where something in front asks who calls"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
