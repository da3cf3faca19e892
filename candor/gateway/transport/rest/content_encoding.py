"""Bodies that clients compressed: gzip and deflate (RFC 9110, 8.4.1)."""

import zlib
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.violations import shown
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.transport.rest.errors import error_response

ACCEPTED = "gzip, deflate"
_PIECE_BYTES = 256 * 1024  # limits of the body are checked after each
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15


class ContentEncoding:
    """Decodes bodies piece by piece, so that the limits hold for what they decode to.

    Another encoding is answered with 415 and the field `Accept-Encoding`.
    """

    def __init__(self, app: ASGIApp, request_log: RequestLog) -> None:
        self._app = app
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = [one.strip().lower() for one in Headers(scope=scope).getlist("content-encoding")]
        encoding = ", ".join(given).removeprefix("x-")
        if encoding in ("", "identity"):
            return await self._app(scope, receive, send)
        if encoding not in ("gzip", "deflate"):
            return await self._rejected(scope, receive, send, encoding)
        return await self._app(scope, _Decoded(receive, encoding), send)

    async def _rejected(self, scope: Scope, receive: Receive, send: Send, encoding: str) -> None:
        request = Request(scope)
        description = f"expected one of {ACCEPTED}, got {shown(encoding)}"
        violation = FieldViolation("content-encoding", description)
        text = f"content-encoding: {description}"
        error = ServiceError(ErrorCode.INVALID_INPUT, text, violations=[violation])
        self._request_log.rejected(request.state.request_id, request.headers, error)
        response = error_response(error, request, 415)
        response.headers["accept-encoding"] = ACCEPTED
        await response(scope, receive, send)


class _Decoded:
    """A channel whose bodies are decoded."""

    def __init__(self, receive: Receive, encoding: str) -> None:
        self._receive = receive
        self._encoding = encoding
        self._decoder: Any = None
        self._waiting = b""
        self._has_more = True

    async def __call__(self) -> Message:
        while True:
            if not self._waiting and self._has_more:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._waiting = message.get("body", b"")
                self._has_more = message.get("more_body", False)
            elif not self._waiting:
                return await self._receive()
            piece = self._piece()
            is_last = not self._waiting and not self._has_more
            if is_last:
                self._check_end()
            if piece or is_last:
                return {"type": "http.request", "body": piece, "more_body": not is_last}

    def _piece(self) -> bytes:
        if not self._waiting:
            return b""
        if self._decoder is None or self._decoder.eof:  # gzip may have several members
            if self._decoder is not None and self._encoding != "gzip":
                raise _bad_encoding(self._encoding)
            self._decoder = zlib.decompressobj(_window_bits(self._encoding, self._waiting))
        try:
            piece: bytes = self._decoder.decompress(self._waiting, _PIECE_BYTES)
        except zlib.error as err:
            raise _bad_encoding(self._encoding) from err
        self._waiting = self._decoder.unused_data or self._decoder.unconsumed_tail
        return piece

    def _check_end(self) -> None:
        if self._decoder is not None and not self._decoder.eof:
            raise _bad_encoding(self._encoding)


def _window_bits(encoding: str, start: bytes) -> int:
    """Deflate is zlib's format by the standard, but some clients send it without its header."""
    if encoding == "gzip":
        return _GZIP_BITS
    has_header = start[0] & 0x0F == 8 and (len(start) < 2 or int.from_bytes(start[:2]) % 31 == 0)
    return _ZLIB_BITS if has_header else _RAW_BITS


def _bad_encoding(encoding: str) -> ServiceError:
    description = f"expected a whole body in {encoding}, got other or missing bytes"
    return invalid_input([FieldViolation("request", description)])
