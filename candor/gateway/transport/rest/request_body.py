"""Bodies of REST requests: limits hold while they arrive."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts import limits
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input

# A body above the limit is read to its end, unseen, so that the client hears the refusal instead
# of a broken connection; up to this many bytes.
_MAX_DISCARDED_BYTES = 8 * limits.MAX_BODY_BYTES
_SMALL_BODY_SECONDS = 10.0
_MAX_FORM_FIELDS = 8


class BodyTooLarge(ServiceError):
    """INVALID_INPUT for which HTTP has a status of its own, 413."""

    def __init__(self) -> None:
        violation = FieldViolation("request", f"body above {limits.MAX_BODY_BYTES} bytes")
        message = f"request: body above {limits.MAX_BODY_BYTES} bytes"
        super().__init__(ErrorCode.INVALID_INPUT, message, violations=[violation])


class ClientGone(asyncio.CancelledError):
    """The caller closed the connection; nobody waits for the answer."""


class BodyBudget:
    """Bounds the memory of all bodies that are held at once, before the one that is too much.

    Args:
        max_bytes: of bodies received so far by requests that are not answered yet.
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
    message = f"bodies of all requests: got more than {max_bytes} bytes at once"
    return ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=1.0)


class _MemoryParser(MultiPartParser):
    """Keeps parts in memory: the body is already there and small enough."""

    spool_max_size = limits.MAX_BODY_BYTES


async def read_payload(request: Request, body_seconds: float) -> Any:
    """The fields of a request, as JSON or multipart/form-data brought them.

    Raises:
        ServiceError: INVALID_INPUT; TIMEOUT where the body took longer than ``body_seconds``.
        ClientGone: nobody waits any more.
    """
    body = await read_body(request, body_seconds)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _from_multipart(request.headers, body)
    return await asyncio.to_thread(parse_json, body)


async def read_body(request: Request, body_seconds: float) -> bytes:
    """The whole body, as `read_payload` raises."""
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


async def read_small_body(request: Request, max_bytes: int) -> bytes:
    """The whole body of a request that has little to say, as the pages send it.

    Raises:
        ServiceError: INVALID_INPUT: it is too long or comes too slowly.
    """
    body = b""
    try:
        async with asyncio.timeout(_SMALL_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _bad_body(f"body above {max_bytes} bytes")
    except TimeoutError as err:
        raise _bad_body(f"body not received in {_SMALL_BODY_SECONDS:g} seconds") from err
    except ClientDisconnect as err:
        raise ClientGone from err
    return body


async def read_form(request: Request, max_bytes: int) -> dict[str, str]:
    """The fields of a page's form; none where it cannot be read: then each is told as missing."""
    try:
        body = await read_small_body(request, max_bytes)
        return dict(parse_qsl(body.decode(), max_num_fields=_MAX_FORM_FIELDS))
    except (ClientGone, ServiceError, ValueError):
        return {}


def require_json(request: Request) -> None:
    """Raises: ServiceError: INVALID_INPUT: the body is said to be something else.

    A page of another site can send any body but not this type without asking us first.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise _bad_body(f"got content type {kind[:60]!r}, allowed application/json")


def parse_json(body: bytes | str) -> Any:
    """JSON as the standard has it: NaN and infinities are refused.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as err:
        raise _bad_body("JSON nested too deeply") from err
    except ValueError as err:
        raise _bad_body(f"not JSON: {str(err)[:200]}") from err


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"got {name}, allowed finite numbers")


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
        raise _bad_body(f"got part {unknown[0][:60]!r}, allowed image, request")
    fields = parse_json(parts.get("request", b"{}"))
    if not isinstance(fields, dict) or "image" not in parts:
        return fields  # what is missing or of the wrong kind is told with all else that is wrong
    if "image" in fields:
        raise invalid_input([FieldViolation("image", "given twice, allowed once")])
    return {**fields, "image": {"encoded": parts["image"]}}
