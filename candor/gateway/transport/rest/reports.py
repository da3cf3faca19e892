"""Report jobs over REST: `ReportService` as resources."""

import base64
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.responses import FileResponse

from candor.contracts.errors import ServiceError
from candor.contracts.reports import (
    NAME_PREFIX,
    CreateReportRequest,
    ListReportsRequest,
    ListReportsResponse,
    Report,
    ReportFile,
)
from candor.gateway.access.request_context import RequestContext
from candor.gateway.observability import request_log
from candor.gateway.observability.request_log import RequestLog
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.rest.endpoints import (
    HEADER_PARAMETERS,
    REFUSALS,
    rest_request_context,
)
from candor.gateway.transport.rest.errors import error_response
from candor.gateway.transport.rest.request_body import read_payload, require_json

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".sig": "text/plain; charset=utf-8",
}
# A report is a page of its own: no scripts, no forms, nothing of this origin.
_FILE_HEADERS = {
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ),
    "cache-control": "private, no-cache",
}


def add_reports(
    app: FastAPI, search_pool: ReportService, observer: RequestLog, *, body_seconds: float
) -> None:
    """Adds `/v1/reports`; ``body_seconds`` is the longest a client may take to send its body."""
    door = _ReportDoor(search_pool, observer, body_seconds)
    schema = CreateReportRequest.model_json_schema()
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    described = {"requestBody": body, "parameters": HEADER_PARAMETERS}
    query = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ListReportsRequest.model_fields
    ]
    for method, path, endpoint, answer, extra in (
        ("POST", "", door.create, Report, described),
        ("GET", "", door.list, ListReportsResponse, {"parameters": query}),
        ("GET", "/{report}", door.get, Report, {}),
        ("POST", "/{report}:cancel", door.cancel, Report, {}),
        ("GET", "/{report}/files/{file}", door.download, None, {}),
    ):
        app.add_api_route(
            "/v1/reports" + path,
            endpoint,
            methods=[method],
            response_model=answer,
            responses=REFUSALS,
            openapi_extra=extra,
        )


class _ReportDoor:
    """The endpoints over one `ReportDesk`."""

    def __init__(
        self, search_pool: ReportService, observer: RequestLog, body_seconds: float
    ) -> None:
        self._search_pool = search_pool
        self._request_log = observer
        self._body_seconds = body_seconds

    async def create(self, request: Request) -> Response:
        """Ask for a report; answers at once with the queued job."""

        async def create(request_context: RequestContext) -> Report:
            require_json(request)
            payload = await read_payload(request, self._body_seconds)
            return await self._search_pool.create(payload, request_context)

        return await self._answered("create_report", request, create)

    async def list(self, request: Request) -> Response:
        """Jobs, the newest first."""
        payload = dict(request.query_params)
        return await self._answered(
            "list_reports",
            request,
            lambda request_context: self._search_pool.list(payload, request_context),
        )

    async def get(self, request: Request, report: str) -> Response:
        """Where a job stands; `done` once it has ended."""
        name = NAME_PREFIX + report
        return await self._answered(
            "get_report",
            request,
            lambda request_context: self._search_pool.get(name, request_context),
        )

    async def cancel(self, request: Request, report: str) -> Response:
        """Stop a job: a queued one at once, a running one within a few network evaluations."""
        name = NAME_PREFIX + report
        return await self._answered(
            "cancel_report",
            request,
            lambda request_context: self._search_pool.cancel(name, request_context),
        )

    async def download(self, request: Request, report: str, file: str) -> Response:
        """One file of a report that succeeded."""
        try:
            call = request_log.Call("download_report", request.state.request_id)
            with self._request_log.watch(call, request.headers):
                found, path = await self._search_pool.file(
                    NAME_PREFIX + report, file, rest_request_context(request)
                )
        except ServiceError as err:
            return error_response(err, request)
        return FileResponse(
            path,
            media_type=_MEDIA_TYPES.get(path.suffix),
            filename=f"{report}-{found.name}",
            content_disposition_type="inline",
            headers={**_FILE_HEADERS, "repr-digest": _repr_digest(found)},
        )

    async def _answered(
        self, verb: str, request: Request, serve: Callable[[RequestContext], Awaitable[BaseModel]]
    ) -> Response:
        call = request_log.Call(verb, request.state.request_id)
        try:
            with self._request_log.watch(call, request.headers):
                body = (await serve(rest_request_context(request))).model_dump_json()
        except ServiceError as err:
            return error_response(err, request)
        return Response(body, media_type="application/json")


def _repr_digest(file: ReportFile) -> str:
    """Field `Repr-Digest` of RFC 9530."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"
