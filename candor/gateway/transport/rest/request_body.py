"""Bodies of REST requests: limits hold while they arrive."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts import limits
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.gateway.pools import BODIES
from candor.gateway.web.forms import read_small_body

# A body above the limit is read and discarded, so that the client gets the error response instead
# of a broken connection; up to this many bytes.
_MAX_DISCARDED_BYTES = 8 * limits.MAX_BODY_BYTES
_SMALL_BYTES = 256 * 1024  # parsed in a few milliseconds


class BodyTooLarge(ServiceError):
    """INVALID_INPUT with the HTTP status 413."""

    def __init__(self) -> None:
        violation = FieldViolation("request", f"body above {limits.MAX_BODY_BYTES} bytes")
        message = f"request: body above {limits.MAX_BODY_BYTES} bytes"
        super().__init__(ErrorCode.INVALID_INPUT, message, violations=[violation])


class ClientGone(asyncio.CancelledError):
    """The client closed the connection and no longer waits for the response."""


class BodyBudget:
    """Bounds the memory of all bodies that are held at once.

    Args:
        max_bytes: of the bodies received so far by requests without a response.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = 0

        async def receive_within() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            if self._held + size > self._max_bytes:
                raise _too_many_bodies(self._max_bytes)
            held += size
            self._held += size
            return message

        try:
            await self._app(scope, receive_within, send)
        finally:
            self._held -= held


def _too_many_bodies(max_bytes: int) -> ServiceError:
    message = f"bodies of all requests: expected at most {max_bytes} bytes at once, got more"
    return ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=1.0)


class _MemoryParser(MultiPartParser):
    """Keeps parts in memory: the body is already there and small enough."""

    spool_max_size = limits.MAX_BODY_BYTES


async def read_payload(request: Request, body_seconds: float) -> Any:
    """The fields of a request that was sent as JSON or multipart/form-data.

    Raises:
        ServiceError: INVALID_INPUT; TIMEOUT if the body took longer than ``body_seconds``.
        ClientGone: the client closed the connection.
    """
    body = await read_body(request, body_seconds)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _from_multipart(request.headers, body)
    if len(body) <= _SMALL_BYTES:  # waits for no large one
        return parse_json(body)
    return await BODIES.run(parse_json, body)


async def read_body(request: Request, body_seconds: float) -> bytes:
    """The whole body; raises as `read_payload` does."""
    try:
        async with asyncio.timeout(body_seconds):
            return await _received(request)
    except TimeoutError as err:
        message = f"body not received in {body_seconds:g} seconds"
        raise ServiceError(ErrorCode.TIMEOUT, message) from err


async def _received(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _MAX_DISCARDED_BYTES:
                raise BodyTooLarge
            if size > limits.MAX_BODY_BYTES:
                chunks.clear()
            else:
                chunks.append(chunk)
    except ClientDisconnect as err:
        raise ClientGone from err
    if size > limits.MAX_BODY_BYTES:
        raise BodyTooLarge
    return b"".join(chunks)


async def read_small_json(request: Request, max_bytes: int) -> Any:
    """The JSON body of a request that a page sends.

    Raises:
        ServiceError: INVALID_INPUT: the body is not JSON, is too long or arrives too slowly.
        ClientGone: the client closed the connection.
    """
    require_json(request)
    try:
        return parse_json(await read_small_body(request, max_bytes))
    except ClientDisconnect as err:
        raise ClientGone from err


def require_json(request: Request) -> None:
    """Raises: ServiceError: INVALID_INPUT: the request declares another content type.

    The browser asks this server for permission before a page of another site may send this type.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise _bad_body(f"expected content type application/json, got {kind[:60]!r}")


def parse_json(body: bytes | str) -> Any:
    """Parses JSON strictly by the standard: NaN and infinities are rejected.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except RecursionError as err:
        raise _bad_body("JSON nested too deeply") from err
    except ValueError as err:
        raise _bad_body(f"not JSON: {str(err)[:200]}") from err


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {name}")


def _bad_body(description: str) -> ServiceError:
    return invalid_input([FieldViolation("request", description)])


async def _from_multipart(headers: Headers, body: bytes) -> Any:
    """Part `image` is the encoded image, part `request` the other fields as JSON."""

    async def whole_body() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _MemoryParser(
        headers, whole_body(), max_files=2, max_fields=2, max_part_size=limits.MAX_BODY_BYTES
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError) as err:
        raise _bad_body(f"not multipart/form-data: {str(err)[:200]}") from err
    try:
        return _merge_parts({name: await _part(value) for name, value in form.multi_items()})
    finally:
        await form.close()


async def _part(value: UploadFile | str) -> bytes:
    return value.encode() if isinstance(value, str) else await value.read()


def _merge_parts(parts: dict[str, bytes]) -> Any:
    unknown = sorted(parts.keys() - {"image", "request"})
    if unknown:
        raise _bad_body(f"expected parts image, request, got {unknown[0][:60]!r}")
    fields = parse_json(parts.get("request", b"{}"))
    if not isinstance(fields, dict) or "image" not in parts:
        return fields  # reported later together with everything else that is wrong
    if "image" in fields:
        raise invalid_input([FieldViolation("image", "expected once, got twice")])
    return {**fields, "image": {"encoded": parts["image"]}}
