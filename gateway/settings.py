"""What an operator may set, from the environment with the prefix `CANDOR_`.  Imports nothing ours.

Lists are JSON: ``CANDOR_MODELS='["cifar10-robust"]'``.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0.0, le=86400.0)]


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
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the models served; the first is the default."""

    max_batch: Annotated[int, Field(ge=1, le=1024)] = 32
    """Searches advanced by one call to a worker at most; fewer where steps take long."""
    search_workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Search workers a model has behind TorchServe, its `minWorkers`; as many chunks travel."""
    short_steps: Annotated[int, Field(ge=0)] = 40
    """A search of at most so many steps counts as short: it waits for no batch of long ones."""
    max_waiting: Annotated[int, Field(ge=1)] = 512
    """Searches of one model that may wait for a place in the batch; more are turned away."""
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests worked on at once, of all kinds; more are turned away."""
    chunk_seconds: Seconds = 0.1
    """How long one chunk of a search should take: the wait of a newcomer before it joins."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Memory for finished searches of all models, the least recently used go first; 0: none."""
    progress_seconds: Seconds = 0.25
    """Pause between two looks at a streamed search; each may send one message a pair."""
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
    ready_seconds: Seconds = 10.0
    """Pause between two checks of readiness, each a real prediction and a real search step."""
    drain_seconds: Seconds = 30.0
    """How long requests in flight may finish after SIGTERM."""

    otlp_endpoint: str = ""
    """Where OpenTelemetry's collector listens, `http://host:4317`; empty: as the standard `OTEL_`
    variables say, or no traces.  Workers read the same variable."""

    store_url: str = ""
    """Database of candidates, annotations and report jobs, a path or a URL; empty: none of them."""
    reports_dir: Path = Path("runs/reports")
    """Folder of finished reports; `candor report-worker` writes there."""
    annotators_per_image: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many annotators are given each candidate."""
    lease_seconds: Seconds = 900.0
    """How long a candidate stays with an annotator who does not answer."""
