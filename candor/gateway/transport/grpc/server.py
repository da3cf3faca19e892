"""The gRPC server: port, TLS, health and reflection."""

import asyncio

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from candor.contracts import limits
from candor.contracts.addresses import endpoint
from candor.gateway.access.rules import Access
from candor.gateway.access.tls import Certificates
from candor.gateway.config.settings import Settings
from candor.gateway.sockets import listening_host
from candor.gateway.transport.grpc.connections import shut_connections, stop_listening
from candor.gateway.transport.grpc.interceptors import AuthorizationInterceptor
from candor.gateway.transport.grpc.open_inference import SERVICE_NAME as OPEN_INFERENCE_NAME
from candor.gateway.transport.grpc.open_inference import OpenInferenceServicer
from candor.gateway.transport.grpc.servicers import (
    EXPLANATION_JOBS_NAME,
    REPORTS_NAME,
    SERVICE_NAME,
    CandorServicer,
    ExplanationJobServicer,
    ReportServicer,
)
from candor.gateway.transport.parts import Parts
from candor.rpc.pb.candor.v1 import (
    candor_pb2_grpc,
    explanation_jobs_pb2_grpc,
    reports_pb2_grpc,
)
from candor.rpc.pb.openinference import inference_pb2_grpc

_HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_DRAINING_PAUSE_SECONDS = 0.05
_PING_STRIKES = 2  # pings that come too soon before the connection is closed
_CLOSING_SECONDS = 30.0  # beyond the longest call, before an old connection is cut


class GrpcServer:
    """A gRPC server with our services, health and, if the settings say so, reflection.

    Health starts as NOT_SERVING; `set_serving` changes it for "" and for the services.

    Args:
        certificates: None means plain text.
    Attributes:
        port: where it listens.
    """

    def __init__(self, parts: Parts, certificates: Certificates | None) -> None:
        settings = parts.settings
        rules = {_HEALTH_NAME: Access.PUBLIC, reflection.SERVICE_NAME: Access.ANY_KEY}
        authorization = AuthorizationInterceptor(parts.authorizer, parts.request_log, rules)
        self._server = aio.server(interceptors=[authorization], options=_options(settings))
        self._open_calls = parts.request_log.open_calls
        self._draining: asyncio.Task[None] | None = None
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services = _add_services(self._server, parts)
        if settings.reflection:
            names = (*self._services, _HEALTH_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        address = endpoint(listening_host(settings.host), settings.grpc_port)
        if certificates is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, certificates.grpc_credentials())

    async def start(self) -> None:
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, is_serving: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        state = kind.SERVING if is_serving else kind.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, state)

    async def drain(self) -> None:
        """NOT_SERVING for good, no new connection, and each one ends with its last call."""
        await self._health.enter_graceful_shutdown()
        if self._draining is None:
            stop_listening(self.port)
            self._draining = asyncio.create_task(self._shut_idle_connections())

    async def stop(self) -> None:
        """Ends every connection, then the server; call it after `drain`, once no call is open."""
        if self._draining is not None:
            self._draining.cancel()
        shut_connections(self.port)
        await self._server.stop(None)

    async def _shut_idle_connections(self) -> None:
        while True:
            await asyncio.sleep(_DRAINING_PAUSE_SECONDS)
            shut_connections(self.port, kept=self._open_calls.client_ports())


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Of the library, with the settings for long calls, quiet clients and balancers."""
    seconds = {
        "grpc.http2.min_ping_interval_without_data_ms": settings.grpc_min_ping_seconds,
        "grpc.keepalive_time_ms": settings.grpc_keepalive_seconds,
        "grpc.keepalive_timeout_ms": settings.grpc_keepalive_timeout_seconds,
        # The library closes a connection by this one, which is a minute by default.
        "grpc.http2.ping_timeout_ms": settings.grpc_keepalive_timeout_seconds,
    }
    if settings.grpc_connection_seconds is not None:
        seconds["grpc.max_connection_age_ms"] = settings.grpc_connection_seconds
        seconds["grpc.max_connection_age_grace_ms"] = settings.request_seconds + _CLOSING_SECONDS
    return [
        ("grpc.max_receive_message_length", limits.MAX_BODY_BYTES),
        ("grpc.so_reuseport", 0),  # two gateways on one port are a mistake, not load balancing
        ("grpc.keepalive_permit_without_calls", 1),  # clients may keep an idle connection open
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
        (
            "grpc.http2.max_pings_without_data",
            0,
        ),  # otherwise our pings end after two in a long call
        *((name, round(1000 * value)) for name, value in seconds.items()),
    ]


def _add_services(server: aio.Server, parts: Parts) -> list[str]:
    """Adds our services; returns their names."""
    request_log = parts.request_log
    candor_pb2_grpc.add_CandorServiceServicer_to_server(
        CandorServicer(parts.service, request_log, parts.settings.heartbeat_seconds), server
    )
    open_inference = OpenInferenceServicer(
        parts.open_inference, request_log, parts.is_ready, parts.settings.build_version
    )
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server)
    if parts.reports is None or parts.explanation_jobs is None:
        return [SERVICE_NAME, OPEN_INFERENCE_NAME]
    reports_pb2_grpc.add_ReportServiceServicer_to_server(
        ReportServicer(parts.reports, request_log), server
    )
    explanation_jobs_pb2_grpc.add_ExplanationJobServiceServicer_to_server(
        ExplanationJobServicer(parts.explanation_jobs, request_log), server
    )
    return [SERVICE_NAME, OPEN_INFERENCE_NAME, REPORTS_NAME, EXPLANATION_JOBS_NAME]
