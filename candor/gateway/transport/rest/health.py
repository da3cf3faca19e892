"""/healthz: whether the process runs, and whether its models work."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.rules import Access, add_path
from candor.gateway.transport.rest.errors import error_response

_LIVE, _READY = "/healthz/live", "/healthz/ready"


def not_ready_response(request: Request) -> Response:
    """The error response while a model does not answer."""
    return error_response(
        ServiceError(ErrorCode.MODEL_NOT_READY, "not ready", retry_seconds=1.0), request
    )


def add_health(app: FastAPI, is_ready: Callable[[], bool]) -> None:
    """Adds `/healthz/live` and `/healthz/ready` to the REST application."""

    async def live() -> dict[str, str]:
        """The process is running."""
        return {"status": "live"}

    async def ready(request: Request) -> Response:
        """Every model has just made a real prediction and a real search step."""
        return JSONResponse({"status": "ready"}) if is_ready() else not_ready_response(request)

    add_path(app, "GET", _LIVE, live, Access.PUBLIC)
    add_path(app, "GET", _READY, ready, Access.PUBLIC, response_model=None)


def make_health_app(is_ready: Callable[[], bool]) -> Starlette:
    """The same two paths and nothing else, over plain HTTP for probes without a certificate."""

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(request: Request) -> JSONResponse:
        if is_ready():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    return Starlette(routes=[Route(_LIVE, live), Route(_READY, ready)])
