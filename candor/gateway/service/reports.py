"""The verbs of `ReportService`, the same for both transports.

Everything here queries the store, in a thread; finished files are read from the workers' folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.reports import (
    NAME_PREFIX,
    CreateReportRequest,
    ListReportsRequest,
    ListReportsResponse,
    Report,
    ReportFile,
    ReportState,
)
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext
from candor.gateway.pools import FILES, STORE
from candor.gateway.service import validation
from candor.gateway.service.routing import Routes
from candor.store.reports import Reports


class ReportService:
    """Creates and shows report jobs.

    Args:
        routes: models that may be audited; a name without a version stands for the primary.
        folder: of the workers, with a folder for each report.
    """

    def __init__(self, reports: Reports, routes: Routes, folder: Path) -> None:
        self._reports = reports
        self._routes = routes
        self._folder = folder

    async def create(self, payload: Any, request_context: RequestContext) -> Report:
        """The queued job, or the one that the idempotency key already stands for.

        Raises:
            ServiceError: INVALID_INPUT, MODEL_NOT_FOUND, CONFLICT.
        """
        wanted = validation.requested_model(payload)
        name = self._routes.find(wanted)
        if name is None:
            raise validation.unknown_model(
                wanted, self._routes.models, payload, CreateReportRequest
            )
        request = validation.parsed(CreateReportRequest, payload)
        others, unknown = _other_models(request, self._routes)
        violations = [*unknown, *await self._bad_comparison(request, request_context)]
        if violations:
            raise invalid_input(violations)
        request = request.model_copy(update={"model": name, **others})
        return await STORE.run(self._reports.create, request, tenant=request_context.tenant)

    async def get(self, name: str, request_context: RequestContext) -> Report:
        """A report job of the tenant.

        Raises:
            ServiceError: REPORT_NOT_FOUND.
        """
        return await STORE.run(self._reports.get, name, tenant=request_context.tenant)

    async def list(self, payload: Any, request_context: RequestContext) -> ListReportsResponse:
        """A page of the tenant's report jobs.

        Raises:
            ServiceError: INVALID_INPUT.
        """
        request = validation.parsed(ListReportsRequest, payload)
        return await STORE.run(self._reports.list, request, tenant=request_context.tenant)

    async def cancel(self, name: str, request_context: RequestContext) -> Report:
        """The report job, cancelled unless it had ended.

        Raises:
            ServiceError: REPORT_NOT_FOUND.
        """
        return await STORE.run(self._reports.cancel, name, tenant=request_context.tenant)

    async def counts(self) -> Mapping[ReportState, int]:
        """Report jobs of all tenants by state."""
        return await STORE.run(self._reports.counts)

    async def file(
        self, name: str, file_name: str, request_context: RequestContext
    ) -> tuple[ReportFile, Path]:
        """A file of a finished report, and its path.

        Raises:
            ServiceError: REPORT_NOT_FOUND: no such report or file, or it is not in the folder.
        """
        report = await self.get(name, request_context)
        files = report.response.files if report.response else ()
        found = next((file for file in files if file.name == file_name), None)
        if found is None:
            names = ", ".join(file.name for file in files) or f"none while it is {report.state}"
            raise _no_file(f"expected one of {names}, got {shown(file_name)}")
        path = self._folder / report.name.removeprefix(NAME_PREFIX) / found.name
        if not await FILES.run(path.is_file):
            raise _no_file(f"{found.name} is no longer in the gateway's folder of reports")
        return found, path

    async def _bad_comparison(
        self, request: CreateReportRequest, request_context: RequestContext
    ) -> tuple[FieldViolation, ...]:
        if not request.compare:
            return ()
        try:
            state = str((await self.get(request.compare, request_context)).state)
        except ServiceError:
            state = "no report of this store"
        if state in (ReportState.SUCCEEDED, ReportState.INCOMPLETE):
            return ()
        text = f"expected a finished report, got {shown(request.compare)} ({state})"
        return (FieldViolation("compare", text),)


def _other_models(
    request: CreateReportRequest, routes: Routes
) -> tuple[dict[str, str], list[FieldViolation]]:
    """Served names by field, and the fields that name no model."""
    names, violations = {}, []
    for field in ("independent", "undefended"):
        wanted = getattr(request, field)
        name = routes.find(wanted) if wanted else ""
        if name is None:
            text = f"expected one of {', '.join(routes.models)}, got {shown(wanted)}"
            violations.append(FieldViolation(field, text))
        else:
            names[field] = name
    return names, violations


def _no_file(description: str) -> ServiceError:
    return ServiceError(ErrorCode.REPORT_NOT_FOUND, f"file: {description}")
