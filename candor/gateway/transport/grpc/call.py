"""The envelope of every gRPC call: request id, log line, deadline, encoding, errors.

A servicer's method gets the request and its context and returns, or yields, responses; `unary` and
`streaming` turn it into what the library calls.
"""

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote

from google.protobuf.message import Message
from grpc import aio
from pydantic import BaseModel

from candor.contracts import api, headers
from candor.contracts.errors import ServiceError
from candor.gateway.access.request_context import (
    RequestContext,
    client_address,
    request_context_of,
)
from candor.gateway.access.rules import Rule, requires
from candor.gateway.observability.request_log import LogEntry, RequestLog, usable_request_id
from candor.gateway.pools import ANSWERS
from candor.rpc import convert, status

# They wait for no large one.
_SMALL_RESPONSES = (api.PredictResponse, api.ModelDetails, api.ModelList, Mapping)
_NO_DEADLINE_SECONDS = 1e8  # the library reports a missing deadline as one years away

Context: TypeAlias = aio.ServicerContext[Any, Any]
Response: TypeAlias = BaseModel | Mapping[str, Any] | Message
UnaryMethod: TypeAlias = Callable[[Any, Any, RequestContext], Awaitable[Response]]
StreamingMethod: TypeAlias = Callable[[Any, Any, RequestContext], AsyncGenerator[Response, None]]


class Servicer:
    """Base of the servicers whose methods are `unary` or `streaming`."""

    def __init__(self, request_log: RequestLog) -> None:
        self.request_log = request_log


def unary(
    verb: str, rule: Rule, message: type[Message], *, model_field: str = "model"
) -> Callable[[UnaryMethod], Callable[[Any, Any, Context], Awaitable[bytes]]]:
    """Declares a method that returns one response.

    Args:
        verb: the name in log and metrics.
        rule: who may call the method.
        message: the response type; a model or mapping that the method returns is converted to it.
        model_field: the request's field with the name of the model, if it has one.
    """

    def declare(method: UnaryMethod) -> Callable[[Any, Any, Context], Awaitable[bytes]]:
        @functools.wraps(method)
        async def call(servicer: Servicer, request: Any, context: Context) -> bytes:
            entry = _entry(verb, request, model_field, context)
            async with _envelope(servicer.request_log, entry, context) as request_context:
                response = await method(servicer, request, request_context)
                return await _encoded(response, message, entry)

        return requires(rule)(call)

    return declare


def streaming(
    verb: str, rule: Rule, message: type[Message], *, model_field: str = "model"
) -> Callable[[StreamingMethod], Callable[[Any, Any, Context], AsyncIterator[bytes]]]:
    """Declares a method that yields responses; the arguments are those of `unary`."""

    def declare(method: StreamingMethod) -> Callable[[Any, Any, Context], AsyncIterator[bytes]]:
        @functools.wraps(method)
        async def call(servicer: Servicer, request: Any, context: Context) -> AsyncIterator[bytes]:
            entry = _entry(verb, request, model_field, context)
            async with (
                _envelope(servicer.request_log, entry, context) as request_context,
                aclosing(method(servicer, request, request_context)) as responses,
            ):
                async for response in responses:
                    yield await _encoded(response, message, entry)

        return requires(rule)(call)

    return declare


@asynccontextmanager
async def _envelope(
    request_log: RequestLog, entry: LogEntry, context: Context
) -> AsyncIterator[RequestContext]:
    metadata = text_metadata(context.invocation_metadata())
    client_address.set(_peer_address(context.peer()))
    # The stubs of the library expect a class of theirs, the library any function.
    when_sent: Any = request_log.open_calls.sending(_client_port(context.peer()))
    context.add_done_callback(when_sent)
    try:
        with request_log.watch(entry, metadata):
            yield request_context_of(entry.request_id, metadata, _seconds_left(context))
    except ServiceError as err:
        await abort(context, err, entry.request_id)
    context.set_trailing_metadata(((headers.REQUEST_ID, entry.request_id),))


def _entry(verb: str, request: Any, model_field: str, context: Context) -> LogEntry:
    return LogEntry(verb, request_id_of(context), getattr(request, model_field, ""))


async def _encoded(response: Response, message: type[Message], entry: LogEntry) -> bytes:
    if isinstance(response, BaseModel):
        entry.note(response)
    if isinstance(response, _SMALL_RESPONSES):
        return _written(response, message)
    # In a thread: explanations with tensors make tens of megabytes.
    return await ANSWERS.run(_written, response, message)


def _written(response: Response, message: type[Message]) -> bytes:
    if isinstance(response, BaseModel):
        response = response.model_dump()
    if not isinstance(response, Message):
        response = convert.to_message(response, message())
    return bytes(response.SerializeToString())


def request_id_of(context: Context) -> str:
    """The id that the client sent, or a new one."""
    metadata = text_metadata(context.invocation_metadata())
    return usable_request_id(metadata.get(headers.REQUEST_ID))


def text_metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """The first text value of every key."""
    first_last = reversed(tuple(pairs or ()))
    return {key: value for key, value in first_last if isinstance(value, str)}


def _peer_address(peer: str) -> str:
    """The address of gRPC's ``ipv4:1.2.3.4:80`` or ``ipv6:%5B::1%5D:80``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _client_port(peer: str) -> int:
    port = peer.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


def _seconds_left(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_SECONDS else left


async def abort(context: Context, error: ServiceError, request_id: str) -> NoReturn:
    """Ends the call with the status, the details and the request id of ``error``."""
    details = status.to_rpc_status(error, request_id).SerializeToString()
    trailing = (
        (headers.REQUEST_ID, request_id),
        (status.DETAILS_KEY, details),
        *status.pushback(error),
    )
    await context.abort(status.GRPC_CODES[error.code], status.short_message(error), trailing)
    raise AssertionError("abort always raises")
