"""Bodies of REST requests: limits hold while they arrive."""

import asyncio
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from candor.contracts import limits, strict_json
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.violations import shown
from candor.gateway.pools import BODIES, run_if_large
from candor.gateway.transport.rest.form import read_form_data
from candor.gateway.web.forms import read_small_body

# A body above the limit is read and discarded, so that the client gets the error response instead
# of a broken connection; up to this many bytes.
_MAX_DISCARDED_BYTES = 8 * limits.MAX_BODY_BYTES
# What clients send with JSON that do not think of it; curl's `-d` says it is a form.
_JSON_TYPES = (
    "",
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/json",
    "text/plain",
)


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


async def read_payload(request: Request, body_seconds: float) -> Any:
    """The fields of a request that was sent as JSON or multipart/form-data.

    Raises:
        ServiceError: INVALID_INPUT; TIMEOUT if the body took longer than ``body_seconds``.
        ClientGone: the client closed the connection.
    """
    body = await read_body(request, body_seconds)
    content_type = request.headers.get("content-type", "")
    kind = _media_type(request)
    is_form = kind == "multipart/form-data"
    if not is_form and kind not in _JSON_TYPES and not kind.endswith("+json"):
        expected = "application/json or multipart/form-data"
        raise _bad_body(f"expected content type {expected}, got {shown(kind)}")

    def parse(content: bytes) -> Any:
        return _from_multipart(content_type, content) if is_form else parse_json(content)

    return await run_if_large(BODIES, len(body), parse, body)


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
    kind = _media_type(request)
    if kind != "application/json":
        raise _bad_body(f"expected content type application/json, got {shown(kind)}")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def parse_json(body: bytes | str) -> Any:
    """JSON as `candor.contracts.strict_json` reads it.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    try:
        return strict_json.loads(body, has_limits=True)
    except strict_json.JsonError as err:
        raise _bad_body(str(err)) from err


def _bad_body(description: str) -> ServiceError:
    return invalid_input([FieldViolation("request", description)])


def _from_multipart(content_type: str, body: bytes) -> Any:
    """Parts `image` and `mask` are files, part `request` the other fields as JSON."""
    parts = read_form_data(content_type, body)
    unknown = sorted(parts.keys() - {"image", "mask", "request"})
    if unknown:
        raise _bad_body(f"expected parts image, mask, request, got {shown(unknown[0])}")
    fields = parse_json(parts["request"].text() if "request" in parts else "{}")
    if not isinstance(fields, dict):
        return fields  # reported later together with everything else that is wrong
    if "image" in parts:
        _check_once(fields, "image", "image")
        fields = {**fields, "image": {"encoded": parts["image"].content()}}
    return _with_mask(fields, parts["mask"].content()) if "mask" in parts else fields


def _with_mask(fields: dict[str, Any], mask: bytes) -> dict[str, Any]:
    """The fields with the mask in `region`, which may say `outside` in the other part."""
    region = fields.get("region") or {}
    if not isinstance(region, dict):
        return fields
    _check_once(region, "mask", "region.mask")
    return {**fields, "region": {**region, "mask": mask}}


def _check_once(fields: dict[str, Any], name: str, place: str) -> None:
    if name in fields:
        raise invalid_input([FieldViolation(place, "expected once, got twice")])
