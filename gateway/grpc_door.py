"""The gRPC door: convert, await the service, convert back.  Imports contracts and gateway parts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from pydantic import BaseModel

from candor.contracts import limits
from candor.contracts.errors import ServiceError
from gateway import convert, observe, status
from gateway.caller import Caller, caller_of
from gateway.pb.candor.v1 import candor_pb2, candor_pb2_grpc
from gateway.service import CandorService

SERVICE_NAME = candor_pb2.DESCRIPTOR.services_by_name["CandorService"].full_name
REQUEST_ID_KEY = "x-request-id"
_HEALTH_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_NO_DEADLINE_SECONDS = 1e8  # what the library reports without one is years away
Verb = Callable[[dict[str, Any], Caller], Awaitable[BaseModel]]
Context: TypeAlias = aio.ServicerContext


class CandorServicer(candor_pb2_grpc.CandorServiceServicer):
    """The public contract over one `CandorService`."""

    def __init__(self, service: CandorService) -> None:
        self._service = service

    async def Predict(self, request: Message, context: Context) -> Message:
        return await _answer(
            "predict", self._service.predict, request, candor_pb2.PredictResponse(), context
        )

    async def Explain(self, request: Message, context: Context) -> Message:
        return await _answer(
            "explain", self._service.explain, request, candor_pb2.ExplainResponse(), context
        )

    async def ExplainStream(
        self, request: Message, context: Context
    ) -> AsyncIterator[candor_pb2.ExplainStreamResponse]:
        metadata = _metadata(context)
        request_id = observe.request_id(metadata.get(REQUEST_ID_KEY))
        try:
            call = observe.Call("explain_stream", request_id, getattr(request, "model", ""))
            with observe.observed(call):
                caller = caller_of(request_id, metadata, _seconds_left(context))
                payload = convert.given_fields(request)
                async with aclosing(self._service.explain_stream(payload, caller)) as events:
                    async for event in events:
                        if event.result is not None:
                            call.note(event.result)
                        message = candor_pb2.ExplainStreamResponse()
                        yield convert.to_message(event.model_dump(), message)
        except ServiceError as err:
            await _abort(context, err, request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))

    async def Probe(self, request: Message, context: Context) -> Message:
        return await _answer(
            "probe", self._service.probe, request, candor_pb2.ProbeResponse(), context
        )

    async def Compare(self, request: Message, context: Context) -> Message:
        return await _answer(
            "compare", self._service.compare, request, candor_pb2.CompareResponse(), context
        )

    async def ListModels(self, request: Message, context: Context) -> Message:
        async def list_models(payload: dict[str, Any], caller: Caller) -> BaseModel:
            return self._service.list_models()

        return await _answer(
            "list_models", list_models, request, candor_pb2.ListModelsResponse(), context
        )

    async def GetModel(self, request: Message, context: Context) -> Message:
        async def get_model(payload: dict[str, Any], caller: Caller) -> BaseModel:
            return self._service.get_model(payload.get("model", ""))

        return await _answer(
            "get_model", get_model, request, candor_pb2.GetModelResponse(), context
        )


async def _answer(
    verb: str, serve: Verb, request: Message, response: Message, context: Context
) -> Message:
    metadata = _metadata(context)
    request_id = observe.request_id(metadata.get(REQUEST_ID_KEY))
    try:
        call = observe.Call(verb, request_id, getattr(request, "model", ""))
        with observe.observed(call):
            caller = caller_of(request_id, metadata, _seconds_left(context))
            answer = await serve(convert.given_fields(request), caller)
            call.note(answer)
            convert.to_message(answer.model_dump(), response)
    except ServiceError as err:
        await _abort(context, err, request_id)
    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
    return response


def _metadata(context: Context) -> dict[str, str]:
    """The first text value of every key."""
    pairs = reversed(tuple(context.invocation_metadata() or ()))
    return {key: value for key, value in pairs if isinstance(value, str)}


def _seconds_left(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_SECONDS else left


async def _abort(context: Context, error: ServiceError, request_id: str) -> NoReturn:
    details = status.to_rpc_status(error, request_id).SerializeToString()
    trailing = ((REQUEST_ID_KEY, request_id), (status.DETAILS_KEY, details))
    await context.abort(status.GRPC_CODES[error.code], status.short_message(error), trailing)
    raise AssertionError("abort always raises")


class GrpcDoor:
    """A gRPC server with the service, health and reflection.

    Health starts as NOT_SERVING; `set_serving` changes it for "" and for the service.
    """

    def __init__(self, service: CandorService, address: str) -> None:
        options = [
            ("grpc.max_receive_message_length", limits.MAX_BODY_BYTES),
            ("grpc.so_reuseport", 0),  # two gateways on one port are a mistake, not load balancing
        ]
        self._server = aio.server(options=options)
        self._health = health.HealthServicer()
        candor_pb2_grpc.add_CandorServiceServicer_to_server(CandorServicer(service), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, _HEALTH_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._server.add_insecure_port(address)

    async def start(self) -> None:
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, is_serving: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        state = kind.SERVING if is_serving else kind.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, state)

    async def announce_drain(self) -> None:
        """NOT_SERVING for good: later calls of `set_serving` change nothing."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        await self._server.stop(grace_seconds)
