"""HTTP/1.1 with a time limit for the headers of a request.

Uvicorn waits for the first headers as long as a connection is open; enough slow connections would
leave none for other clients.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from candor.contracts.errors import FieldViolation, invalid_input
from candor.contracts.headers import REQUEST_ID
from candor.contracts.json_text import json_text
from candor.gateway.observability.request_log import usable_request_id
from candor.rpc.status import to_json_body


class HeaderTimeLimit(H11Protocol):
    """Closes a connection whose headers are not complete after ``header_seconds``."""

    header_seconds: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._close_if_idle)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_400_response(self, msg: str) -> None:
        """The error body of every other path, and not the text of a library."""
        description = "expected a request of HTTP/1.1, got something else"
        error = invalid_input([FieldViolation("request", description)])
        request_id = usable_request_id(None)
        body = json_text(to_json_body(error, request_id)).encode()
        headers = [
            ("connection", "close"),
            ("content-length", str(len(body))),
            ("content-type", "application/json"),
            (REQUEST_ID, request_id),
        ]
        start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _close_if_idle(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def protocol_with(header_seconds: float) -> type[HeaderTimeLimit]:
    """The protocol with this limit; uvicorn makes one object of the class per connection."""
    return type("HeaderTimeLimit", (HeaderTimeLimit,), {"header_seconds": header_seconds})
