"""/healthz over plain HTTP, for probes that have no certificate."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def make_health_app(is_ready: Callable[[], bool]) -> Starlette:
    """`/healthz/live` and `/healthz/ready` as the REST door has them, and nothing else."""

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(request: Request) -> JSONResponse:
        if is_ready():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    return Starlette(routes=[Route("/healthz/live", live), Route("/healthz/ready", ready)])
