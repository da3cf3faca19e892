"""What stands before the gRPC door: keys, and bytes that are no message."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.gateway.access.authorizer import Authorizer, Credentials, rule_of_method
from candor.gateway.access.request_context import named_tenant, tenant_of_key
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.transport.grpc.call import REQUEST_ID_KEY, abort, text_metadata

_UNREADABLE = object()
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class AuthorizationInterceptor(aio.ServerInterceptor):
    """Lets through whom the guard admits.  A call's handler runs in the task of its interceptor."""

    def __init__(self, authorizer: Authorizer, observer: RequestLog) -> None:
        self._authorizer = authorizer
        self._request_log = observer

    async def intercept_service(
        self, continuation: _Continuation, details: grpc.HandlerCallDetails
    ) -> Any:
        metadata = text_metadata(details.invocation_metadata)
        credentials = Credentials(
            authorization=metadata.get("authorization", ""), tenant=named_tenant(metadata)
        )
        try:
            identity = await self._authorizer.admit(rule_of_method(details.method), credentials)
        except ServiceError as err:
            request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
            self._request_log.refused(request_id, metadata, err)
            return await _refusing(continuation, details, err, request_id)
        tenant_of_key.set(None if identity is None else identity.tenant)
        return _checking(await continuation(details), self._request_log)


async def _refusing(
    continuation: _Continuation,
    details: grpc.HandlerCallDetails,
    error: ServiceError,
    request_id: str,
) -> Any:
    """A handler in the shape of the real one that reads nothing and says ``error``."""

    async def refuse(_: Any, context: "aio.ServicerContext[Any, Any]") -> None:
        await abort(context, error, request_id)

    real = await continuation(details)
    if real is None:
        return None
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[real.request_streaming, real.response_streaming](refuse)


def _checking(handler: Any, observer: RequestLog) -> Any:
    """The handler for whom bytes that are no message are the caller's mistake.

    The library would tell the caller our exception, and the log a traceback each time.
    """
    if handler is None or handler.request_streaming:
        return handler

    def read(data: bytes) -> Any:
        try:
            return handler.request_deserializer(data)
        except DecodeError:
            return _UNREADABLE

    async def answer(request: Any, context: Any) -> Any:
        await _check(request, context, observer)
        return await handler.unary_unary(request, context)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        await _check(request, context, observer)
        async with aclosing(handler.unary_stream(request, context)) as messages:
            async for message in messages:
                yield message

    if not handler.response_streaming:
        return handler._replace(request_deserializer=read, unary_unary=answer)
    if inspect.isasyncgenfunction(handler.unary_stream):
        return handler._replace(request_deserializer=read, unary_stream=stream)
    return handler


async def _check(
    request: Any, context: "aio.ServicerContext[Any, Any]", observer: RequestLog
) -> None:
    if request is _UNREADABLE:
        error = invalid_input([FieldViolation("request", "got bytes that are no such message")])
        metadata = text_metadata(context.invocation_metadata())
        request_id = request_log.request_id(metadata.get(REQUEST_ID_KEY))
        observer.refused(request_id, metadata, error)
        await abort(context, error, request_id)
