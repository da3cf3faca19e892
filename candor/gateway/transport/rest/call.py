"""The envelope of every REST call: request id, log line, body, encoding, errors.

An endpoint hands over the work that makes its response; ordinary and streamed responses share the
same core.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import Send

from candor.contracts import api
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input
from candor.contracts.json_text import json_text
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext, request_context_of
from candor.gateway.observability.request_log import LogEntry, RequestLog
from candor.gateway.pools import ANSWERS
from candor.gateway.service import validation
from candor.gateway.transport.heartbeats import with_heartbeats
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.request_body import ClientGone, read_body, read_payload
from candor.gateway.transport.rest.streaming import (
    EventStream,
    StreamedResponse,
    encode_error,
    encode_event,
)

T = TypeVar("T")
Content: TypeAlias = BaseModel | Mapping[str, Any] | Response
Events: TypeAlias = AsyncGenerator[api.ExplainStreamResponse, None]

_CLIENT_GONE_STATUS = 499  # never sent; only middleware around the application sees it


@dataclass(frozen=True, slots=True)
class RestCall:
    """One request while it is worked on."""

    request: Request
    entry: LogEntry
    context: RequestContext
    body_seconds: float

    async def body(self) -> bytes:
        """The body as it was sent; raises as `read_body` does."""
        return await read_body(self.request, self.body_seconds)

    async def payload(self) -> Any:
        """The body as a mapping, whose model goes to the log; raises as `read_payload` does."""
        payload = await read_payload(self.request, self.body_seconds)
        self.entry.set_model(validation.requested_model(payload))
        return payload

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work, which is cancelled as soon as the client disconnects.

        Raises:
            ClientGone: the client closed the connection.
        """
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnect(self.request))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            return working.result()
        finally:
            working.cancel()
            gone.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)


class RestCalls:
    """Runs the work of endpoints inside the envelope.

    Args:
        body_seconds: the longest a client may take to send its body.
        heartbeat_seconds: the longest silence of an event stream.
    """

    def __init__(
        self, request_log: RequestLog, *, body_seconds: float, heartbeat_seconds: float
    ) -> None:
        self._request_log = request_log
        self._body_seconds = body_seconds
        self._heartbeat_seconds = heartbeat_seconds

    async def respond(
        self,
        verb: str,
        request: Request,
        work: Callable[[RestCall], Awaitable[Content]],
        *,
        model: str = "",
        has_query: bool = False,
    ) -> Response:
        """The response that ``work`` makes, or an error response.

        Args:
            has_query: whether the endpoint reads the query; another one rejects any.
        """
        try:
            with self.opened(verb, request, model) as call:
                if not has_query:
                    _check_no_query(request)
                content = await work(call)
                if isinstance(content, BaseModel):
                    call.entry.note(content)
                return await _encoded(content)
        except ServiceError as err:
            return error_response(err, request)
        except ClientGone:
            return Response(status_code=_CLIENT_GONE_STATUS)

    async def respond_to_body(
        self,
        verb: str,
        request: Request,
        serve: Callable[[Any, RequestContext], Coroutine[Any, Any, BaseModel]],
    ) -> Response:
        """`respond` with what ``serve`` makes of the body, unless the client disconnects."""

        async def work(call: RestCall) -> BaseModel:
            return await call.unless_gone(serve(await call.payload(), call.context))

        return await self.respond(verb, request, work)

    def stream(
        self, verb: str, request: Request, work: Callable[[RestCall], Awaitable[Events]]
    ) -> Response:
        """The events that ``work`` returns, as server-sent events.

        An error before the first event becomes an ordinary error response, a later one an event.
        """

        async def write(send: Send) -> None:
            stream = EventStream(send)
            try:
                with self.opened(verb, request) as call:
                    _check_no_query(request)
                    await call.unless_gone(self._pass_events(call, await work(call), stream))
            except ServiceError as err:
                if not stream.is_open:
                    await error_response(err, request)(request.scope, request.receive, send)
                    return
                await stream.write(encode_error(err, request.state.request_id))
            except ClientGone:
                return
            await stream.close()

        return StreamedResponse(write)

    @contextmanager
    def opened(self, verb: str, request: Request, model: str = "") -> Iterator[RestCall]:
        """One call in the log and in the metrics, whatever becomes of it."""
        entry = LogEntry(verb, request.state.request_id, model)
        with self._request_log.watch(entry, request.headers):
            context = request_context_of(entry.request_id, dict(request.headers), None)
            yield RestCall(request, entry, context, self._body_seconds)

    async def _pass_events(self, call: RestCall, events: Events, stream: EventStream) -> None:
        async with aclosing(with_heartbeats(events, self._heartbeat_seconds)) as passed:
            async for event in passed:
                if event is not None:
                    call.entry.note(event)
                await stream.write(await ANSWERS.run(encode_event, event))


def _check_no_query(request: Request) -> None:
    """What stands in a query would be ignored: fields belong into the body.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    names = list(request.query_params)
    if names:
        violation = FieldViolation("query", f"expected none, got {shown(names[0])}")
        raise invalid_input([violation])


async def _encoded(content: Content) -> Response:
    if isinstance(content, Response):
        return content
    if isinstance(content, api.PredictResponse):  # short, and waits for no long one
        return Response(content.model_dump_json(), media_type="application/json")
    # In a thread: explanations with tensors make tens of megabytes of base64.
    body = await ANSWERS.run(
        content.model_dump_json if isinstance(content, BaseModel) else lambda: json_text(content)
    )
    return Response(body, media_type="application/json")


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
