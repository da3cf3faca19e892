"""What a request line and its headers may say, before any endpoint reads them.

A target with scheme and host (RFC 9112, 3.2.2), as clients send to proxies, means its path here:
the host decides nothing.  Headers that contradict each other are errors, because a proxy in front
of the gateway may have read the other one.
"""

from collections import Counter
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from candor.contracts import headers
from candor.contracts.errors import FieldViolation, ServiceError, invalid_input

_SCHEMES = (b"http://", b"https://")
_ONCE = ("content-type", headers.HEADER_LENGTH)
_METHODS = {"allow": "GET, HEAD, OPTIONS, POST"}


class OwnTargets:
    """Serves ``GET http://any/path`` as ``GET /path`` and answers ``OPTIONS *``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["raw_path"].startswith(b"/"):
            if (scope["method"], scope["raw_path"]) == ("OPTIONS", b"*"):
                return await Response(status_code=204, headers=_METHODS)(scope, receive, send)
            scope = {**scope, **_in_origin_form(scope["raw_path"])}
        return await self._app(scope, receive, send)


def _in_origin_form(target: bytes) -> dict[str, object]:
    """Raw and decoded path of a target with a scheme; another one stays, and no path matches."""
    if not target.lower().startswith(_SCHEMES):
        return {}
    path = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return {"raw_path": path, "path": unquote(path.decode("ascii"))}


def check_headers(scope: Scope) -> None:
    """Raises: ServiceError: INVALID_INPUT: headers that contradict each other, or mean nothing."""
    counts = Counter(name.decode("latin-1").lower() for name, _ in scope["headers"])
    wrong = headers.wrong_names(counts.elements())
    if wrong is not None:
        raise _contradiction(*wrong)
    for name in _ONCE:
        if counts[name] > 1:
            raise _contradiction(name, "expected once, got twice")
    if counts["content-length"] and counts["transfer-encoding"]:
        raise _contradiction("content-length", "expected none beside transfer-encoding, got both")


def _contradiction(name: str, description: str) -> ServiceError:
    return invalid_input([FieldViolation(name, description)])
