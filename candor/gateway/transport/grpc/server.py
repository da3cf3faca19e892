"""The gRPC door: convert, await the service, convert back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from pydantic import BaseModel

from candor.contracts import limits
from candor.contracts.errors import ServiceError
from candor.gateway.access.authorizer import Authorizer
from candor.gateway.access.request_context import RequestContext, request_context_of
from candor.gateway.access.tls import Certificates
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.grpc.call import REQUEST_ID_KEY, abort, seconds_left, text_metadata
from candor.gateway.transport.grpc.interceptors import AuthorizationInterceptor
from candor.gateway.transport.grpc.open_inference import SERVICE_NAME as OPEN_INFERENCE_NAME
from candor.gateway.transport.grpc.open_inference import OpenInferenceServicer
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2, candor_pb2_grpc, reports_pb2, reports_pb2_grpc
from candor.rpc.pb.openinference import inference_pb2_grpc

SERVICE_NAME = candor_pb2.DESCRIPTOR.services_by_name["CandorService"].full_name
REPORTS_NAME = reports_pb2.DESCRIPTOR.services_by_name["ReportService"].full_name
_HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_CHUNK_BYTES = 256 * 1024  # of a file; messages stay far below the 4 MB clients accept
Verb = Callable[[dict[str, Any], RequestContext], Awaitable[BaseModel]]
Context: TypeAlias = aio.ServicerContext


class _Observed:
    """Answers calls, each watched."""

    def __init__(self, observer: RequestLog) -> None:
        self._request_log = observer

    async def _answer(
        self, verb: str, serve: Verb, request: Message, response: Message, context: Context
    ) -> Message:
        metadata = text_metadata(context.invocation_metadata())
        request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
        try:
            call = request_log.Call(verb, request_id, getattr(request, "model", ""))
            with self._request_log.watch(call, metadata):
                request_context = request_context_of(request_id, metadata, seconds_left(context))
                answer = await serve(convert.given_fields(request), request_context)
                call.note(answer)
                convert.to_message(answer.model_dump(), response)
        except ServiceError as err:
            await abort(context, err, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return response


class CandorServicer(_Observed, candor_pb2_grpc.CandorServiceServicer):
    """The public contract over one `CandorService`."""

    def __init__(self, service: CandorService, observer: RequestLog) -> None:
        super().__init__(observer)
        self._service = service

    async def Predict(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "predict", self._service.predict, request, candor_pb2.PredictResponse(), context
        )

    async def Explain(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "explain", self._service.explain, request, candor_pb2.ExplainResponse(), context
        )

    async def ExplainStream(
        self, request: Message, context: Context
    ) -> AsyncIterator[candor_pb2.ExplainStreamResponse]:
        metadata = text_metadata(context.invocation_metadata())
        request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
        try:
            call = request_log.Call("explain_stream", request_id, getattr(request, "model", ""))
            with self._request_log.watch(call, metadata):
                request_context = request_context_of(request_id, metadata, seconds_left(context))
                payload = convert.given_fields(request)
                async with aclosing(
                    self._service.explain_stream(payload, request_context)
                ) as events:
                    async for event in events:
                        if event.result is not None:
                            call.note(event.result)
                        message = candor_pb2.ExplainStreamResponse()
                        yield convert.to_message(event.model_dump(), message)
        except ServiceError as err:
            await abort(context, err, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))

    async def Probe(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "probe", self._service.probe, request, candor_pb2.ProbeResponse(), context
        )

    async def Compare(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "compare", self._service.compare, request, candor_pb2.CompareResponse(), context
        )

    async def ListModels(self, request: Message, context: Context) -> Message:
        async def list_models(
            payload: dict[str, Any], request_context: RequestContext
        ) -> BaseModel:
            return self._service.list_models()

        return await self._answer(
            "list_models", list_models, request, candor_pb2.ListModelsResponse(), context
        )

    async def GetModel(self, request: Message, context: Context) -> Message:
        async def get_model(payload: dict[str, Any], request_context: RequestContext) -> BaseModel:
            return self._service.get_model(payload.get("model", ""))

        return await self._answer(
            "get_model", get_model, request, candor_pb2.GetModelResponse(), context
        )


class ReportServicer(_Observed, reports_pb2_grpc.ReportServiceServicer):
    """The public contract of report jobs over one `ReportDesk`."""

    def __init__(self, search_pool: ReportService, observer: RequestLog) -> None:
        super().__init__(observer)
        self._search_pool = search_pool

    async def CreateReport(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "create_report", self._search_pool.create, request, reports_pb2.Report(), context
        )

    async def GetReport(self, request: Message, context: Context) -> Message:
        async def get(payload: dict[str, Any], request_context: RequestContext) -> BaseModel:
            return await self._search_pool.get(payload.get("name", ""), request_context)

        return await self._answer("get_report", get, request, reports_pb2.Report(), context)

    async def ListReports(self, request: Message, context: Context) -> Message:
        return await self._answer(
            "list_reports",
            self._search_pool.list,
            request,
            reports_pb2.ListReportsResponse(),
            context,
        )

    async def CancelReport(self, request: Message, context: Context) -> Message:
        async def cancel(payload: dict[str, Any], request_context: RequestContext) -> BaseModel:
            return await self._search_pool.cancel(payload.get("name", ""), request_context)

        return await self._answer("cancel_report", cancel, request, reports_pb2.Report(), context)

    async def DownloadReport(
        self, request: reports_pb2.DownloadReportRequest, context: Context
    ) -> AsyncIterator[reports_pb2.DownloadReportResponse]:
        metadata = text_metadata(context.invocation_metadata())
        request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
        try:
            with self._request_log.watch(request_log.Call("download_report", request_id), metadata):
                request_context = request_context_of(request_id, metadata, None)
                file, path = await self._search_pool.file(
                    request.name, request.file, request_context
                )
                message = reports_pb2.DownloadReportResponse()
                yield convert.to_message({"file": file.model_dump()}, message)
                with path.open("rb") as stream:
                    while chunk := await asyncio.to_thread(stream.read, _CHUNK_BYTES):
                        yield reports_pb2.DownloadReportResponse(chunk=chunk)
        except ServiceError as err:
            await abort(context, err, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))


class GrpcServer:
    """A gRPC server with the service, health and, where wanted, reflection.

    Health starts as NOT_SERVING; `set_serving` changes it for "" and for the services.

    Args:
        guard: asked about every call.
        open_inference: the standard's service beside ours.
        certificates: None speaks plain text.
        reports: the jobs of a store, None where there is no store.
        reflects: whether it tells its methods.
    """

    def __init__(
        self,
        service: CandorService,
        observer: RequestLog,
        address: str,
        authorizer: Authorizer,
        *,
        open_inference: OpenInferenceServicer,
        certificates: Certificates | None = None,
        reports: ReportService | None = None,
        reflects: bool = True,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", limits.MAX_BODY_BYTES),
            ("grpc.so_reuseport", 0),  # two gateways on one port are a mistake, not load balancing
        ]
        self._server = aio.server(
            interceptors=[AuthorizationInterceptor(authorizer, observer)], options=options
        )
        self._health = health.HealthServicer()
        servicer = CandorServicer(service, observer)
        candor_pb2_grpc.add_CandorServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, self._server)
        self._services = [SERVICE_NAME, OPEN_INFERENCE_NAME]
        if reports is not None:
            reporter = ReportServicer(reports, observer)
            reports_pb2_grpc.add_ReportServiceServicer_to_server(reporter, self._server)
            self._services.append(REPORTS_NAME)
        if reflects:
            names = (*self._services, _HEALTH_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
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

    async def announce_drain(self) -> None:
        """NOT_SERVING for good: later calls of `set_serving` change nothing."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        await self._server.stop(grace_seconds)
