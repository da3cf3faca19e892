"""What runs before every gRPC method: authorization, and rejection of malformed messages."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from candor.contracts import headers
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.gateway.access.authorizer import Authorizer, Credentials
from candor.gateway.access.keys import Scope
from candor.gateway.access.request_context import named_tenant, tenant_of_key
from candor.gateway.access.rules import Rule, rule_of_method
from candor.gateway.observability.request_log import RequestLog, usable_request_id
from candor.gateway.pools import BODIES, run_if_large
from candor.gateway.transport.grpc.call import (
    Context,
    abort,
    request_id_of,
    text_metadata,
)
from candor.rpc.convert import unknown_field

_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class _Malformed:
    """In place of a request that cannot be one of its method."""

    description: str


class AuthorizationInterceptor(aio.ServerInterceptor):
    """Lets only admitted calls through.  A call's handler runs in the task of its interceptor.

    Args:
        services: rules of whole services that other libraries implement, by full name; the methods
            of our servicers carry their own.
    """

    def __init__(
        self, authorizer: Authorizer, request_log: RequestLog, services: Mapping[str, Rule]
    ) -> None:
        self._authorizer = authorizer
        self._request_log = request_log
        self._services = services

    async def intercept_service(
        self, continuation: _Continuation, details: grpc.HandlerCallDetails
    ) -> Any:
        metadata = text_metadata(details.invocation_metadata)
        wrong = headers.wrong_names(key for key, _ in details.invocation_metadata or ())
        credentials = Credentials(
            authorization=metadata.get(headers.AUTHORIZATION, ""), tenant=named_tenant(metadata)
        )
        handler = await continuation(details)
        try:
            rule = self.rule_of(details.method, handler)
            if wrong is not None:
                raise invalid_input([FieldViolation(*wrong)])
            identity = await self._authorizer.admit(rule, credentials)
        except ServiceError as err:
            request_id = usable_request_id(metadata.get(headers.REQUEST_ID))
            self._request_log.rejected(request_id, metadata, err)
            return _rejecting(handler, err, request_id)
        tenant_of_key.set(None if identity is None else identity.tenant)
        return _checking(handler, self._request_log)

    def rule_of(self, path: str, handler: Any) -> Rule:
        """The rule of the method at ``/SERVICE/METHOD``, which ``handler`` calls."""
        service = path.strip("/").rpartition("/")[0]
        method = None if handler is None else handler.unary_unary or handler.unary_stream
        return rule_of_method(method, self._services.get(service, Scope.ADMIN))


def _rejecting(real: Any, error: ServiceError, request_id: str) -> Any:
    """A handler in the shape of the real one that reads nothing and returns ``error``."""

    async def reject(_: Any, context: Context) -> None:
        await abort(context, error, request_id)

    if real is None:
        return None
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[real.request_streaming, real.response_streaming](reject)


def _checking(handler: Any, request_log: RequestLog) -> Any:
    """The handler that reports what is no message, or has unknown fields, as invalid input.

    The library would show the client our exception, and write a traceback to the log each time.  It
    would also read and write large messages on the event loop.
    """
    if handler is None or handler.request_streaming:
        return handler

    def read(data: bytes) -> Any:
        try:
            message = handler.request_deserializer(data)
        except DecodeError:
            return _Malformed("expected a message of this method, got other bytes")
        unknown = unknown_field(message)
        return _Malformed(f"expected known fields, got {unknown}") if unknown else message

    async def respond(data: bytes, context: Context) -> Any:
        request = await _read(read, data, context, request_log)
        return await handler.unary_unary(request, context)

    async def stream(data: bytes, context: Context) -> AsyncIterator[Any]:
        request = await _read(read, data, context, request_log)
        async with aclosing(handler.unary_stream(request, context)) as messages:
            async for message in messages:
                yield message

    if not handler.response_streaming:
        return handler._replace(
            request_deserializer=None, response_serializer=_bytes_of, unary_unary=respond
        )
    if inspect.isasyncgenfunction(handler.unary_stream):
        return handler._replace(
            request_deserializer=None, response_serializer=_bytes_of, unary_stream=stream
        )
    return handler


async def _read(
    read: Callable[[bytes], Any], data: bytes, context: Context, request_log: RequestLog
) -> Any:
    request = await run_if_large(BODIES, len(data), read, data)
    if not isinstance(request, _Malformed):
        return request
    error = invalid_input([FieldViolation("request", request.description)])
    request_id = request_id_of(context)
    request_log.rejected(request_id, text_metadata(context.invocation_metadata()), error)
    return await abort(context, error, request_id)


def _bytes_of(response: Any) -> bytes:
    """Those that the call's envelope made, or of the message of another library."""
    return response if isinstance(response, bytes) else bytes(response.SerializeToString())
