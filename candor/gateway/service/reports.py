"""Jobs that make robustness reports."""

from collections.abc import Sequence
from pathlib import Path

from candor.contracts.errors import FieldViolation, ServiceError
from candor.contracts.reports import (
    CreateReportRequest,
    ListReportsRequest,
    ListReportsResponse,
    Report,
    ReportState,
)
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext
from candor.gateway.service.jobs import JobService
from candor.gateway.service.routing import Routes
from candor.store.engine import Store
from candor.store.job_kinds import REPORTS


class ReportService(JobService[CreateReportRequest, Report, ListReportsResponse]):
    """Creates and shows report jobs."""

    def __init__(self, store: Store, routes: Routes, folder: Path) -> None:
        super().__init__(store, REPORTS, ListReportsRequest, routes, folder)

    async def _checked(
        self, request: CreateReportRequest, model: str, request_context: RequestContext
    ) -> tuple[dict[str, str], Sequence[FieldViolation]]:
        others, unknown = _other_models(request, self._routes)
        return others, [*unknown, *await self._bad_comparison(request, request_context)]

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
