"""Refusals over HTTP: one error body for every path.  Imports contracts and `status`."""

import json
from typing import Any

from starlette.responses import Response

from candor.contracts.errors import ErrorCode, ServiceError
from gateway import status
from gateway.bodies import BodyTooLarge

_OPEN_INFERENCE = "/v2"


def refusal_answer(
    error: ServiceError, request_id: str, path: str, http_status: int | None = None
) -> Response:
    """The answer that tells ``error``.

    Args:
        path: of the request; the Open Inference Protocol wants its errors as one text.
        http_status: another than that of the code.
    """
    usual = 413 if isinstance(error, BodyTooLarge) else status.HTTP_STATUS[error.code]
    return Response(
        # Escaped to ASCII: an echoed name may hold characters that UTF-8 cannot encode.
        json.dumps(_body(error, request_id, path)),
        status_code=http_status or usual,
        media_type="application/json",
        headers={**status.retry_after(error), **_challenge(error)},
    )


def _body(error: ServiceError, request_id: str, path: str) -> dict[str, Any]:
    body = status.to_json_body(error, request_id)
    if path == _OPEN_INFERENCE or path.startswith(f"{_OPEN_INFERENCE}/"):
        return {"error": error.message, "details": body["error"]}
    return body


def _challenge(error: ServiceError) -> dict[str, str]:
    """RFC 6750, section 3: how to come back with a key that will do."""
    if error.code is ErrorCode.UNAUTHENTICATED:
        return {"www-authenticate": 'Bearer realm="candor"'}
    if error.code is ErrorCode.PERMISSION_DENIED:
        return {"www-authenticate": 'Bearer realm="candor", error="insufficient_scope"'}
    return {}
