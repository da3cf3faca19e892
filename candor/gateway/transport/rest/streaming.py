"""Server-sent events: one JSON message per event, comments during silence."""

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from candor.contracts import api
from candor.contracts.errors import ServiceError
from candor.contracts.json_text import json_text
from candor.rpc import status

MEDIA_TYPE = "text/event-stream"
_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies must pass every event on at once
]
_HEARTBEAT = b": still here\n\n"


class StreamedResponse(Response):
    """A response that a function writes."""

    media_type = MEDIA_TYPE

    def __init__(self, write: Callable[[Send], Awaitable[None]]) -> None:
        super().__init__()
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._write(send)


class EventStream:
    """A body that begins with its first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_open = False

    async def write(self, chunk: bytes) -> None:
        if not self.is_open:
            self.is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def encode_event(event: api.ExplainStreamResponse | None) -> bytes:
    """``progress`` or ``result`` with its message as data; a comment for None."""
    if event is None:
        return _HEARTBEAT
    if event.result is not None:
        return _encoded("result", event.result)
    assert event.progress is not None
    return _encoded("progress", event.progress)


def encode_error(error: ServiceError, request_id: str) -> bytes:
    """``error`` with the error body of any other response."""
    return _named("error", json_text(status.to_json_body(error, request_id)))


def _encoded(name: str, message: BaseModel) -> bytes:
    return _named(name, message.model_dump_json())


def _named(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
