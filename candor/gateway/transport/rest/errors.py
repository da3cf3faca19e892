"""Error responses over HTTP: one error body for every path."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.json_text import json_text
from candor.gateway.transport.rest.methods import allowed_methods, options_response
from candor.gateway.transport.rest.request_body import BodyTooLarge
from candor.rpc import status

_OPEN_INFERENCE = "/v2"


def error_response(
    error: ServiceError, request: Request, http_status: int | None = None
) -> Response:
    """The error body of ``error``; ``http_status`` replaces that of its code."""
    usual = 413 if isinstance(error, BodyTooLarge) else status.HTTP_STATUS[error.code]
    return Response(
        # Escaped to ASCII: an echoed name may hold characters that UTF-8 cannot encode.
        json_text(_body(error, request)),
        status_code=http_status or usual,
        media_type="application/json",
        headers={**status.retry_after(error), **_challenge(error)},
    )


async def framework_error(request: Request, err: Exception) -> Response:
    """An unknown path or method, with the same error body."""
    http_status = err.status_code if isinstance(err, HTTPException) else 500
    allowed = allowed_methods(request.app.routes, request.scope["path"])
    if request.method == "OPTIONS" and allowed:
        return options_response(allowed)
    error = ServiceError(ErrorCode.INVALID_INPUT, f"{request.method} {request.url.path}: {err}")
    response = error_response(error, request, http_status)
    response.headers.update(allowed)
    return response


def _body(error: ServiceError, request: Request) -> dict[str, Any]:
    body, path = status.to_json_body(error, request.state.request_id), request.url.path
    if path == _OPEN_INFERENCE or path.startswith(f"{_OPEN_INFERENCE}/"):
        # The Open Inference Protocol defines an error as one text.
        return {"error": error.message, "details": body["error"]}
    return body


def _challenge(error: ServiceError) -> dict[str, str]:
    """RFC 6750, section 3: which credentials the client needs."""
    if error.code is ErrorCode.UNAUTHENTICATED:
        return {"www-authenticate": 'Bearer realm="candor"'}
    if error.code is ErrorCode.PERMISSION_DENIED:
        return {"www-authenticate": 'Bearer realm="candor", error="insufficient_scope"'}
    return {}
