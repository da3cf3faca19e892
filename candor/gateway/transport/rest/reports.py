"""Report jobs over REST: `ReportService` as resources."""

import base64
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse

from candor.contracts.reports import (
    NAME_PREFIX,
    CreateReportRequest,
    ListReportsRequest,
    ListReportsResponse,
    Report,
    ReportFile,
)
from candor.gateway.access.keys import Scope
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.rest.call import RestCall, RestCalls
from candor.gateway.transport.rest.openapi import HEADER_PARAMETERS, add_operation, request_body
from candor.gateway.transport.rest.request_body import require_json

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


def add_reports(app: FastAPI, report_service: ReportService, calls: RestCalls) -> None:
    """Adds `/v1/reports`."""
    endpoints = _Endpoints(report_service, calls)
    for method, path, endpoint, response, extra in (
        (
            "POST",
            "",
            endpoints.create,
            Report,
            _create_body(),
        ),
        ("GET", "", endpoints.list, ListReportsResponse, {"parameters": _list_query()}),
        ("GET", "/{report}", endpoints.get, Report, {}),
        ("POST", "/{report}:cancel", endpoints.cancel, Report, {}),
        ("GET", "/{report}/files/{file}", endpoints.download, None, {}),
    ):
        add_operation(
            app,
            method,
            f"/v1/reports{path}",
            endpoint,
            Scope.REPORT,
            response=response,
            openapi_extra=extra,
        )


def _create_body() -> dict[str, Any]:
    schema = CreateReportRequest.model_json_schema()
    body = request_body({"application/json": schema})
    return {"requestBody": body, "parameters": HEADER_PARAMETERS}


def _list_query() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ListReportsRequest.model_fields
    ]


class _Endpoints:
    """The endpoints over one `ReportService`."""

    def __init__(self, report_service: ReportService, calls: RestCalls) -> None:
        self._reports = report_service
        self._calls = calls

    async def create(self, request: Request) -> Response:
        """Request a report; returns the queued job at once."""

        async def create(call: RestCall) -> Report:
            require_json(request)
            return await self._reports.create(await call.payload(), call.context)

        return await self._calls.respond("create_report", request, create)

    async def list(self, request: Request) -> Response:
        """Jobs, the newest first."""
        query = typed_query(request)
        return await self._calls.respond(
            "list_reports",
            request,
            lambda call: self._reports.list(query, call.context),
            has_query=True,
        )

    async def get(self, request: Request, report: str) -> Response:
        """The state of a job; `done` once it has ended."""
        name = NAME_PREFIX + report
        return await self._calls.respond(
            "get_report", request, lambda call: self._reports.get(name, call.context)
        )

    async def cancel(self, request: Request, report: str) -> Response:
        """Stop a job: a queued one at once, a running one within a few network evaluations."""
        name = NAME_PREFIX + report
        return await self._calls.respond(
            "cancel_report", request, lambda call: self._reports.cancel(name, call.context)
        )

    async def download(self, request: Request, report: str, file: str) -> Response:
        """One file of a finished report."""

        async def download(call: RestCall) -> FileResponse:
            found, path = await self._reports.file(NAME_PREFIX + report, file, call.context)
            return FileResponse(
                path,
                media_type=_MEDIA_TYPES.get(path.suffix),
                filename=f"{report}-{found.name}",
                content_disposition_type="inline",
                headers={**_FILE_HEADERS, "repr-digest": _repr_digest(found)},
            )

        return await self._calls.respond("download_report", request, download)


def typed_query(request: Request) -> dict[str, Any]:
    """The query as fields; one that is given twice stays a list, which its field rejects.

    A query has only texts: digits are the number that the contract wants.
    """
    fields: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        fields[name] = values[0] if len(values) == 1 else values
    size = fields.get("page_size")
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 20:
        fields["page_size"] = int(size)
    return fields


def _repr_digest(file: ReportFile) -> str:
    """Field `Repr-Digest` of RFC 9530."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"
