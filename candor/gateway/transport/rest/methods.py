"""HEAD wherever GET is, and which methods a path has."""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Serves HEAD by the endpoint of GET; the HTTP server sends the headers without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server keeps its own scope
        await self._app(scope, receive, send)


def allowed_methods(routes: Iterable[BaseRoute], path: str) -> dict[str, str]:
    """The header ``Allow`` of a path (RFC 9110, 10.2.1), empty for an unknown one."""
    found = {
        method
        for route in routes
        if isinstance(route, Route) and route.path_regex.fullmatch(path)
        for method in route.methods or ()
    }
    if not found:
        return {}
    return {
        "allow": ", ".join(sorted({*found, "OPTIONS"} | ({"HEAD"} if "GET" in found else set())))
    }


def options_response(allowed: dict[str, str]) -> Response:
    return Response(status_code=204, headers=allowed)
