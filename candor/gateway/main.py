"""The gateway process: both doors over one service in one event loop."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from http.server import HTTPServer
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from candor.gateway.access.authorizer import Authorizer
from candor.gateway.access.keys import KeyFileError
from candor.gateway.access.quotas import Quotas
from candor.gateway.access.tls import Certificates
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics, start_exposition
from candor.gateway.observability.request_log import JsonLines, RequestLog
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.open_inference import OpenInference
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.grpc.open_inference import OpenInferenceServicer
from candor.gateway.transport.grpc.server import GrpcServer
from candor.gateway.transport.rest.annotations import add_annotations
from candor.gateway.transport.rest.endpoints import make_app
from candor.gateway.transport.rest.health import make_health_app
from candor.gateway.transport.rest.http_protocol import protocol_with
from candor.gateway.transport.rest.open_inference import add_open_inference
from candor.gateway.transport.rest.reports import add_reports
from candor.gateway.web.assets import add_assets
from candor.gateway.web.console import add_console
from candor.gateway.workers.protocol import WorkerBackend
from candor.gateway.workers.torchserve import TorchServeBackend
from candor.store.engine import Store, StoreError, open_store
from candor.store.reports import Reports
from candor.tracing import NO_TRACING, Tracing, start_tracing

_STARTING_PAUSE_SECONDS = 0.5  # between two checks of readiness before the first good one
_LAST_ANSWERS_SECONDS = 5.0  # for answers already computed to reach their callers
_log = logging.getLogger("gateway.main")


class _QuietServer(uvicorn.Server):
    """Uvicorn that leaves signals to us: both doors have to drain together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """Both doors and the watch over readiness.

    Attributes:
        metrics: what is counted; told at ``metrics_port`` where the settings name one.
        grpc_port, rest_port, metrics_port, health_port: where the doors really listen, known once
            started.

    Raises:
        KeyFileError, OSError: on making it, keys or certificates cannot be used.
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
        observer = RequestLog(self.metrics, tracing)
        self._certificates = Certificates(settings) if settings.tls_cert else None
        quotas = Quotas(settings.quota, settings.tenant_quotas)
        authorizer = Authorizer(settings, quotas)
        self.service = CandorService(backend, settings, self.metrics, tracing, quotas)
        self._store = open_store(settings.store_url) if settings.store_url else None
        self._reports = reports = _report_service(self._store, settings)
        protocol = OpenInference(self.service)
        self._grpc = self._grpc_door(observer, authorizer, protocol, reports)
        self._socket = _listen(settings.host, settings.rest_port)
        app = self._rest_app(observer, authorizer, protocol, reports)
        self._rest = _http_server(app, settings.header_seconds, self._certificates)
        self._health = self._health_door()
        self.grpc_port = self._grpc.port
        self.rest_port = int(self._socket.getsockname()[1])
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens both doors at once; until the models answer, they say so."""
        self._start_exposition()
        await self._grpc.start()
        self._http_tasks = [asyncio.create_task(self._rest.serve(sockets=[self._socket]))]
        if self._health is not None:
            server, listener = self._health
            self._http_tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
            self.health_port = int(listener.getsockname()[1])
        self._tasks = [asyncio.create_task(self._watch())]
        _log.info("gRPC on port %d, REST on port %d", self.grpc_port, self.rest_port)

    async def stop(self) -> None:
        """NOT_SERVING first, so that traffic turns away; then drain, then close."""
        self._set_ready(False)
        await self._grpc.announce_drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.service.drain()
        await self._grpc.stop(_LAST_ANSWERS_SECONDS)
        self._rest.should_exit = True
        if self._health is not None:
            self._health[0].should_exit = True
        await asyncio.gather(*self._http_tasks)
        if self._exposition is not None:
            await asyncio.to_thread(self._exposition.shutdown)
            self._exposition.server_close()
        if self._store is not None:
            self._store.close()

    def _grpc_door(
        self,
        observer: RequestLog,
        authorizer: Authorizer,
        protocol: OpenInference,
        reports: ReportService | None,
    ) -> GrpcServer:
        settings = self._settings
        return GrpcServer(
            self.service,
            observer,
            f"{settings.host}:{settings.grpc_port}",
            authorizer,
            open_inference=OpenInferenceServicer(
                protocol, observer, lambda: self._is_ready, settings.build_version
            ),
            certificates=self._certificates,
            reports=reports,
            reflects=settings.reflection,
        )

    def _rest_app(
        self,
        observer: RequestLog,
        authorizer: Authorizer,
        protocol: OpenInference,
        reports: ReportService | None,
    ) -> FastAPI:
        settings = self._settings
        app = make_app(self.service, observer, lambda: self._is_ready, settings, authorizer)
        add_open_inference(app, protocol, observer, lambda: self._is_ready, settings)
        _add_store(app, self._store, reports, observer, settings)
        add_console(
            app,
            self.service,
            grpc_port=self._grpc.port,
            has_annotations=self._store is not None,
            has_docs=settings.docs,
            needs_keys=authorizer.needs_keys,
        )
        add_assets(app)
        return app

    def _health_door(self) -> tuple[uvicorn.Server, socket.socket] | None:
        settings = self._settings
        if settings.health_port is None:
            return None
        server = _http_server(make_health_app(lambda: self._is_ready), settings.header_seconds)
        return server, _listen(settings.host, settings.health_port)

    def _start_exposition(self) -> None:
        port = self._settings.metrics_port
        if port is not None:
            self._exposition = start_exposition(self.metrics, self._settings.host, port)
            self.metrics_port = int(self._exposition.server_port)
            _log.info("metrics on port %d", self.metrics_port)

    def _set_ready(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        self.metrics.set_ready(is_ready)

    async def _watch(self) -> None:
        await self.service.start()
        while True:
            if self._certificates is not None:
                await asyncio.to_thread(self._certificates.refresh)
            was_ready = self._is_ready
            self._set_ready(await self._check())
            if was_ready != self._is_ready:
                _log.info("ready" if self._is_ready else "not ready")
            await self._grpc.set_serving(self._is_ready)
            await self._count_reports()
            is_first = not was_ready and not self._is_ready
            await asyncio.sleep(
                _STARTING_PAUSE_SECONDS if is_first else self._settings.ready_seconds
            )

    async def _count_reports(self) -> None:
        try:
            if self._reports is not None:
                self.metrics.set_jobs(await self._reports.counts())
        except SQLAlchemyError:  # the store may come back
            _log.exception("report jobs not counted")

    async def _check(self) -> bool:
        try:
            return await self.service.ready()
        except Exception:  # the watch must outlive whatever a worker answers
            _log.exception("check of readiness failed")
            return False


def _http_server(
    app: Any, header_seconds: float, certificates: Certificates | None = None
) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=protocol_with(header_seconds),
        ws="none",
        log_config=None,
        access_log=False,  # ours has the request id and the error code
        server_header=False,
        # A connection's later requests could else inherit what an earlier one set.
        reset_contextvars=True,
        timeout_graceful_shutdown=int(_LAST_ANSWERS_SECONDS),
        ssl_context_factory=(lambda *_: certificates.context) if certificates else None,
    )
    return _QuietServer(config)


def _report_service(store: Store | None, settings: Settings) -> ReportService | None:
    if store is None:
        return None
    return ReportService(Reports(store), settings.make_routes(), settings.reports_dir)


def _add_store(
    app: FastAPI,
    store: Store | None,
    reports: ReportService | None,
    observer: RequestLog,
    settings: Settings,
) -> None:
    """What needs a store joins the REST door where one is configured."""
    if store is None or reports is None:
        return
    add_annotations(
        app,
        store,
        observer,
        annotators_per_image=settings.annotators_per_image,
        lease_seconds=settings.lease_seconds,
    )
    add_reports(app, reports, observer, body_seconds=settings.body_seconds)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()  # callers wait in line for the moment until the server takes over
    return listener


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then drains."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    backend = TorchServeBackend(settings.torchserve_address, settings.worker_call_seconds)
    tracing = start_tracing("candor-gateway", settings.otlp_endpoint)
    gateway = Gateway(settings, backend, tracing)
    await gateway.start()
    await stopped.wait()
    _log.info("draining")
    await gateway.stop()
    await backend.close()
    await asyncio.to_thread(tracing.close)


def main() -> int:
    """Exit code 0 after a drain, 2 for bad settings."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        settings = Settings()  # type: ignore[call-arg]  # fields come from the environment
    except ValidationError as err:
        print(f"settings, CANDOR_ in the environment: {err}", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(settings))
    except (StoreError, KeyFileError, ssl.SSLError, FileNotFoundError, PermissionError) as err:
        print(err, file=sys.stderr)
        return 2
    return 0
