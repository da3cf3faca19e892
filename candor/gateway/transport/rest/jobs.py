"""Jobs over REST, of reports and of explanations, as resources."""

import base64
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.responses import FileResponse

from candor.contracts import explanation_jobs, reports
from candor.contracts.reports import ReportFile
from candor.gateway.access.keys import Scope
from candor.gateway.service.jobs import ExplanationJobService
from candor.gateway.service.reports import ReportService
from candor.gateway.transport.rest.call import RestCall, RestCalls
from candor.gateway.transport.rest.openapi import HEADER_PARAMETERS, add_operation, request_body
from candor.gateway.transport.rest.request_body import require_json

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".sig": "text/plain; charset=utf-8",
    ".zip": "application/zip",
}
# A report is a page of its own: no scripts, no forms, nothing of this origin.
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Its gallery has a script and images beside it, and sees nothing of this origin either.
_GALLERY_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self' data:"
)
_GALLERY_FOLDER = "gallery/"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPaths:
    """How jobs of one kind appear as resources.

    Attributes:
        prefix: of the names of jobs and of their paths, with a slash at the end.
        one, many: in the names of the verbs.
        request, job, listing, page: messages of the contract.
    """

    prefix: str
    one: str
    many: str
    request: type[BaseModel]
    job: type[BaseModel]
    listing: type[BaseModel]
    page: type[BaseModel]


_REPORTS = JobPaths(
    prefix=reports.NAME_PREFIX,
    one="report",
    many="reports",
    request=reports.CreateReportRequest,
    job=reports.Report,
    listing=reports.ListReportsRequest,
    page=reports.ListReportsResponse,
)
_EXPLANATION_JOBS = JobPaths(
    prefix=explanation_jobs.NAME_PREFIX,
    one="explanation_job",
    many="explanation_jobs",
    request=explanation_jobs.CreateExplanationJobRequest,
    job=explanation_jobs.ExplanationJob,
    listing=explanation_jobs.ListExplanationJobsRequest,
    page=explanation_jobs.ListExplanationJobsResponse,
)


def add_reports(app: FastAPI, service: ReportService, calls: RestCalls) -> None:
    """Adds `/v1/reports`."""
    _add(app, _Endpoints(service, _REPORTS, calls), _REPORTS)


def add_explanation_jobs(app: FastAPI, service: ExplanationJobService, calls: RestCalls) -> None:
    """Adds `/v1/explanation-jobs`."""
    _add(app, _Endpoints(service, _EXPLANATION_JOBS, calls), _EXPLANATION_JOBS)


def _add(app: FastAPI, endpoints: "_Endpoints", paths: JobPaths) -> None:
    for method, path, endpoint, response, extra in (
        ("POST", "", endpoints.create, paths.job, _create_body(paths)),
        ("GET", "", endpoints.list, paths.page, {"parameters": _list_query(paths)}),
        ("GET", "/{job}", endpoints.get, paths.job, {}),
        ("POST", "/{job}:cancel", endpoints.cancel, paths.job, {}),
        ("GET", "/{job}/files/{file:path}", endpoints.download, None, {}),
    ):
        add_operation(
            app,
            method,
            f"/v1/{paths.prefix.removesuffix('/')}{path}",
            endpoint,
            Scope.REPORT,
            response=response,
            openapi_extra=extra,
        )


def _create_body(paths: JobPaths) -> dict[str, Any]:
    body = request_body({"application/json": paths.request.model_json_schema()})
    return {"requestBody": body, "parameters": HEADER_PARAMETERS}


def _list_query(paths: JobPaths) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in paths.listing.model_fields
    ]


class _Endpoints:
    """The endpoints over one service of jobs."""

    def __init__(
        self, service: ReportService | ExplanationJobService, paths: JobPaths, calls: RestCalls
    ) -> None:
        self._service = service
        self._paths = paths
        self._calls = calls

    async def create(self, request: Request) -> Response:
        """Ask for a job; returns the queued job at once."""

        async def create(call: RestCall) -> BaseModel:
            require_json(request)
            return await self._service.create(await call.payload(), call.context)

        return await self._calls.respond(f"create_{self._paths.one}", request, create)

    async def list(self, request: Request) -> Response:
        """Jobs, the newest first."""
        query = typed_query(request)
        return await self._calls.respond(
            f"list_{self._paths.many}",
            request,
            lambda call: self._service.list(query, call.context),
            has_query=True,
        )

    async def get(self, request: Request, job: str) -> Response:
        """The state of a job; `done` once it has ended."""
        name = self._paths.prefix + job
        return await self._calls.respond(
            f"get_{self._paths.one}", request, lambda call: self._service.get(name, call.context)
        )

    async def cancel(self, request: Request, job: str) -> Response:
        """Stop a job: a queued one at once, a running one within a few network evaluations."""
        name = self._paths.prefix + job
        return await self._calls.respond(
            f"cancel_{self._paths.one}",
            request,
            lambda call: self._service.cancel(name, call.context),
        )

    async def download(self, request: Request, job: str, file: str) -> Response:
        """One file of a finished job."""

        async def download(call: RestCall) -> FileResponse:
            found, path = await self._service.file(self._paths.prefix + job, file, call.context)
            return FileResponse(
                path,
                media_type=_MEDIA_TYPES.get(path.suffix),
                filename=f"{job}-{path.name}",
                content_disposition_type="inline",
                headers=_file_headers(found),
            )

        return await self._calls.respond(f"download_{self._paths.one}", request, download)


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


def _file_headers(file: ReportFile) -> dict[str, str]:
    is_gallery = file.name.startswith(_GALLERY_FOLDER)
    return {
        "content-security-policy": _GALLERY_POLICY if is_gallery else _REPORT_POLICY,
        "cache-control": "private, no-cache",
        "repr-digest": _repr_digest(file),
    }


def _repr_digest(file: ReportFile) -> str:
    """Field `Repr-Digest` of RFC 9530."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:"
