"""The gateway process: gRPC and REST over one service in one event loop."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from typing import Any, TypeVar

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from candor.contracts.api import ModelDetails
from candor.contracts.errors import ServiceError
from candor.contracts.secrets import without_secrets
from candor.gateway.access.authorizer import Authorizer
from candor.gateway.access.keys import KeyFileError
from candor.gateway.access.quotas import Quotas
from candor.gateway.access.shared_quotas import SharedQuotas
from candor.gateway.access.tls import Certificates
from candor.gateway.config.settings import BadSettings, Settings, read_settings
from candor.gateway.observability.log_output import LogOutput
from candor.gateway.observability.metrics import Metrics, start_exposition
from candor.gateway.observability.request_log import JsonLines, RequestLog
from candor.gateway.pools import UPKEEP
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.jobs import ExplanationJobService
from candor.gateway.service.open_inference import OpenInference
from candor.gateway.service.reports import ReportService
from candor.gateway.shared import SharedMemory
from candor.gateway.sockets import bound, listening_host
from candor.gateway.transport.grpc.server import GrpcServer
from candor.gateway.transport.parts import Parts
from candor.gateway.transport.rest.app import make_app
from candor.gateway.transport.rest.health import make_health_app
from candor.gateway.transport.rest.http_protocol import protocol_with
from candor.gateway.workers.protocol import WorkerBackend
from candor.gateway.workers.torchserve import TorchServeBackend
from candor.store.annotations import Annotations
from candor.store.engine import Store, StoreError, open_store
from candor.store.flips import Flips
from candor.store.lending import Lending
from candor.tracing import NO_TRACING, Tracing, TracingError, start_tracing

_STARTING_PAUSE_SECONDS = 0.5  # between two checks of readiness before the first good one
_LAST_RESPONSES_SECONDS = 5.0  # for responses that are already computed to reach their clients
_TRACEBACK_VARIABLE = "CANDOR_TRACEBACK"
_log = logging.getLogger("gateway.main")
LendingT = TypeVar("LendingT", bound=Lending[Any])


class _QuietServer(uvicorn.Server):
    """Uvicorn that leaves signals to us: both transports have to drain together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """Both transports over one service, and the regular check of readiness.

    Attributes:
        metrics: what is counted; exposed at ``metrics_port`` if the settings name one.
        grpc_port, rest_port, metrics_port, health_port: where the servers listen, known once
            they have started.

    Raises:
        BadSettings, StoreError, KeyFileError, OSError: on construction, if ports, store, keys or
            certificates cannot be used.
    """

    def __init__(
        self, settings: Settings, backend: WorkerBackend, tracing: Tracing = NO_TRACING
    ) -> None:
        self._settings = settings
        self._is_ready = False
        primaries = settings.make_routes().primaries
        self.metrics = Metrics(settings.models, settings.metric_tenants, primaries)
        self.metrics.set_build(settings.build_version)
        self._exposition: HTTPServer | None = None
        self._store = _open_store(settings)
        self._memory = _shared_memory(settings, self.metrics)
        self._parts = self._make_parts(backend, tracing)
        self.service = self._parts.service
        self._certificates = Certificates(settings) if settings.tls_cert else None
        _check_host(settings)
        with _port_of(settings, "grpc_port"):
            bound(settings.host, settings.grpc_port).close()  # gRPC itself gives no reason
            self._grpc = GrpcServer(self._parts, self._certificates)
        self.grpc_port = self._grpc.port
        with _port_of(settings, "rest_port"):
            self._socket = _listen(settings.host, settings.rest_port)
        self.rest_port = int(self._socket.getsockname()[1])
        app = make_app(self._parts, grpc_port=self.grpc_port)
        self._rest = _http_server(app, settings, self._certificates)
        self._health = self._health_server()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens both transports at once; they report that they are not ready until models are."""
        self._start_exposition()
        await self._grpc.start()
        self._http_tasks = [asyncio.create_task(self._rest.serve(sockets=[self._socket]))]
        if self._health is not None:
            server, listener = self._health
            self._http_tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
            self.health_port = int(listener.getsockname()[1])
        self._tasks = [asyncio.create_task(self._watch())]
        if self._store is not None:
            self._tasks.append(asyncio.create_task(self._watch_jobs()))
        _log.info("gRPC on port %d, REST on port %d", self.grpc_port, self.rest_port)

    async def stop(self) -> None:
        """NOT_SERVING first, so that load balancers send no more requests; then drain and close."""
        self._set_ready(False)
        await self._grpc.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.service.drain()
        open_calls = self._parts.request_log.open_calls
        await open_calls.wait(_LAST_RESPONSES_SECONDS)
        await open_calls.end(_LAST_RESPONSES_SECONDS)
        await self._grpc.stop()
        self._rest.should_exit = True
        if self._health is not None:
            self._health[0].should_exit = True
        await asyncio.gather(*self._http_tasks)
        if self._exposition is not None:
            await UPKEEP.run(self._exposition.shutdown)
            self._exposition.server_close()
        if self._memory is not None:
            await self._quotas.close()
            await self._memory.close()
        if self._store is not None:
            self._store.close()

    def _make_parts(self, backend: WorkerBackend, tracing: Tracing) -> Parts:
        settings, store = self._settings, self._store
        self._quotas = quotas = SharedQuotas(
            Quotas(settings.quota, settings.tenant_quotas), self._memory
        )
        service = CandorService(backend, settings, self.metrics, tracing, quotas, self._memory)
        return Parts(
            settings=settings,
            service=service,
            open_inference=OpenInference(service),
            authorizer=Authorizer(settings, quotas),
            request_log=RequestLog(self.metrics, tracing),
            is_ready=lambda: self._is_ready,
            reports=None if store is None else _report_service(store, settings),
            explanation_jobs=None
            if store is None
            else _explanation_jobs(store, settings, service.get_model),
            annotations=None if store is None else _lending(Annotations, store, settings),
            flips=None if store is None else _lending(Flips, store, settings),
        )

    def _health_server(self) -> tuple[uvicorn.Server, socket.socket] | None:
        settings = self._settings
        if settings.health_port is None:
            return None
        server = _http_server(make_health_app(lambda: self._is_ready), settings)
        with _port_of(settings, "health_port"):
            return server, _listen(settings.host, settings.health_port)

    def _start_exposition(self) -> None:
        port = self._settings.metrics_port
        if port is not None:
            with _port_of(self._settings, "metrics_port"):
                host = listening_host(self._settings.host)
                self._exposition = start_exposition(self.metrics, host, port)
            self.metrics_port = int(self._exposition.server_port)
            _log.info("metrics on port %d", self.metrics_port)

    def _set_ready(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        self.metrics.set_ready(is_ready)

    async def _watch(self) -> None:
        await self.service.start()
        while True:
            if self._certificates is not None:
                await UPKEEP.run(self._certificates.refresh)
            was_ready = self._is_ready
            self._set_ready(await self._check())
            if was_ready != self._is_ready:
                _log.info("ready" if self._is_ready else "not ready")
            await self._grpc.set_serving(self._is_ready)
            is_first = not was_ready and not self._is_ready
            await asyncio.sleep(
                _STARTING_PAUSE_SECONDS if is_first else self._settings.ready_seconds
            )

    async def _watch_jobs(self) -> None:
        """Apart from readiness, which a store that does not answer must not hold up."""
        while True:
            await self._count_jobs()
            await asyncio.sleep(self._settings.ready_seconds)

    async def _count_jobs(self) -> None:
        try:
            for service in (self._parts.reports, self._parts.explanation_jobs):
                if service is not None:
                    self.metrics.set_jobs(service.kind_name, await service.counts())
        except (SQLAlchemyError, ServiceError) as err:  # the store may come back
            _log.error("jobs not counted: %s", " ".join(str(err).split()))

    async def _check(self) -> bool:
        try:
            return await self.service.ready()
        except Exception:  # the check must continue after any failure of a worker
            _log.exception("check of readiness failed")
            return False


def _http_server(
    app: Any, settings: Settings, certificates: Certificates | None = None
) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=protocol_with(settings.header_seconds),
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        ws="none",
        log_config=None,
        access_log=False,  # the request log has the request id and the error code too
        server_header=False,
        proxy_headers=False,  # uvicorn would trust every client on loopback
        # Otherwise later requests of a connection could inherit what an earlier one set.
        reset_contextvars=True,
        timeout_graceful_shutdown=int(_LAST_RESPONSES_SECONDS),
        ssl_context_factory=(lambda *_: certificates.context) if certificates else None,
    )
    return _QuietServer(config)


@contextlib.contextmanager
def _port_of(settings: Settings, name: str) -> Iterator[None]:
    """Raises: BadSettings: the port of that setting cannot be opened, which names it."""
    try:
        yield
    except (OSError, RuntimeError) as err:  # the latter is gRPC's, without a reason
        reason = getattr(err, "strerror", None) or "taken, or no address of this machine"
        place = f"port {getattr(settings, name)} on {settings.host}"
        raise BadSettings(f"CANDOR_{name.upper()}: {place} cannot be used: {reason}") from err


def _check_host(settings: Settings) -> None:
    """Raises: BadSettings: the host has no address."""
    try:
        listening_host(settings.host)
    except OSError as err:
        expected = "a name or an address of this machine"
        got = f"{settings.host!r}: {err.strerror}"
        raise BadSettings(f"CANDOR_HOST: expected {expected}, got {got}") from err
    except ValueError as err:
        raise BadSettings(f"CANDOR_HOST: {err}") from err


def _open_store(settings: Settings) -> Store | None:
    if not settings.store_url:
        return None
    return open_store(settings.store_url.reveal(), patience_seconds=settings.store_seconds)


def _shared_memory(settings: Settings, metrics: Metrics) -> SharedMemory | None:
    if not settings.shared_url:
        return None
    return SharedMemory(settings.shared_url, metrics.set_shared)


def _report_service(store: Store, settings: Settings) -> ReportService:
    return ReportService(store, settings.make_routes(), settings.reports_dir)


def _explanation_jobs(
    store: Store, settings: Settings, describe: Callable[[str], ModelDetails]
) -> ExplanationJobService:
    routes, folder = settings.make_routes(), settings.reports_dir
    return ExplanationJobService(store, routes, folder, describe)


def _lending(kind: type[LendingT], store: Store, settings: Settings) -> LendingT:
    return kind(
        store,
        annotators_per_image=settings.annotators_per_image,
        lease_seconds=settings.lease_seconds,
    )


def _listen(host: str, port: int) -> socket.socket:
    listener = bound(host, port)
    listener.listen()  # connections wait here until the server accepts them
    return listener


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then drains."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    backend = TorchServeBackend(settings.torchserve_address, settings.worker_call_seconds)
    tracing = start_tracing("candor-gateway", settings.otlp_endpoint.reveal())
    gateway = Gateway(settings, backend, tracing)
    await gateway.start()
    await stopped.wait()
    _log.info("draining")
    await gateway.stop()
    await backend.close()
    await UPKEEP.run(tracing.close)


def main() -> int:
    """Exit code 0 after a drain; 2, with one line that says why, where it cannot start."""
    output = LogOutput(sys.stdout)
    output.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[output])
    try:
        return _served()
    finally:
        output.close()


def _served() -> int:
    try:
        asyncio.run(serve(read_settings()))
    except (BadSettings, StoreError, KeyFileError, TracingError, OSError) as err:
        return _failed(str(err))
    except Exception as err:
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        kind = type(err).__name__
        return _failed(f"internal error ({kind}: {err}); {_TRACEBACK_VARIABLE}=1 shows where")
    return 0


def _failed(reason: str) -> int:
    print(f"candor.gateway: {without_secrets(' '.join(reason.split()))}", file=sys.stderr)
    return 2
