"""Reads what pages send: small bodies and forms."""

import asyncio
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from candor.contracts.errors import FieldViolation, ServiceError, invalid_input

_BODY_SECONDS = 10.0
_MAX_FIELDS = 8


async def read_small_body(request: Request, max_bytes: int) -> bytes:
    """The whole body of a request from a page.

    Raises:
        ServiceError: INVALID_INPUT: the body is too long or arrives too slowly.
        ClientDisconnect: the client closed the connection.
    """
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _bad_body(f"body above {max_bytes} bytes")
    except TimeoutError as err:
        raise _bad_body(f"body not received in {_BODY_SECONDS:g} seconds") from err
    return body


async def read_form(request: Request, max_bytes: int) -> dict[str, str]:
    """The fields of a form.

    Raises:
        ServiceError: INVALID_INPUT: it is too long, arrives too slowly, or is no form.
    """
    try:
        body = await read_small_body(request, max_bytes)
        return dict(parse_qsl(body.decode(), max_num_fields=_MAX_FIELDS))
    except ClientDisconnect:
        return {}  # nobody reads what is wrong with them
    except ValueError as err:
        raise _bad_body(f"expected a form of at most {_MAX_FIELDS} fields in UTF-8") from err


def _bad_body(description: str) -> ServiceError:
    return invalid_input([FieldViolation("request", description)])
