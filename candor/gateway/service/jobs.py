"""The verbs of jobs, the same for every kind and for both transports.

Everything here queries the store, in a thread; finished files are read from the workers' folder.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal

from candor.contracts.api import ModelDetails
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ExplanationJob,
    ListExplanationJobsRequest,
    ListExplanationJobsResponse,
)
from candor.contracts.reports import ListReportsRequest, ReportFile, ReportState
from candor.contracts.violations import shown
from candor.gateway.access.request_context import RequestContext
from candor.gateway.pools import FILES, STORE
from candor.gateway.service import validation
from candor.gateway.service.routing import Routes
from candor.store.engine import Store
from candor.store.job_kinds import EXPLANATIONS, JobKind, JobT, PageT, RequestT
from candor.store.jobs import Jobs


class JobService(Generic[RequestT, JobT, PageT]):
    """Creates and shows jobs of one kind.

    Args:
        listing: the request for a list.
        routes: models that a job may name; a name without a version stands for the primary.
        folder: of the workers, with a folder for each job.
    """

    def __init__(
        self,
        store: Store,
        kind: JobKind[RequestT, JobT, PageT],
        listing: type[ListReportsRequest] | type[ListExplanationJobsRequest],
        routes: Routes,
        folder: Path,
    ) -> None:
        self._jobs: Jobs[RequestT, JobT, PageT] = Jobs(store, kind)
        self._kind: JobKind[RequestT, JobT, PageT] = kind
        self._listing = listing
        self._routes = routes
        self._folder = folder

    @property
    def kind_name(self) -> Literal["report", "explanation"]:
        """Name of the kind."""
        return self._kind.name

    async def create(self, payload: Any, request_context: RequestContext) -> JobT:
        """The queued job, or the one that the idempotency key already stands for.

        Raises:
            ServiceError: INVALID_INPUT, MODEL_NOT_FOUND, CONFLICT.
        """
        wanted = validation.requested_model(payload)
        name = self._routes.find(wanted)
        if name is None:
            raise validation.unknown_model(wanted, self._routes.models, payload, self._kind.request)
        request = validation.parsed(self._kind.request, payload)
        others, violations = await self._checked(request, name, request_context)
        if violations:
            raise invalid_input(violations)
        request = request.model_copy(update={"model": name, **others})
        return await STORE.run(self._jobs.create, request, tenant=request_context.tenant)

    async def get(self, name: str, request_context: RequestContext) -> JobT:
        """A job of the tenant.

        Raises:
            ServiceError: the kind's ``not_found``.
        """
        return await STORE.run(self._jobs.get, name, tenant=request_context.tenant)

    async def list(self, payload: Any, request_context: RequestContext) -> PageT:
        """A page of the tenant's jobs.

        Raises:
            ServiceError: INVALID_INPUT.
        """
        request = validation.parsed(self._listing, payload)
        return await STORE.run(self._jobs.list, request, tenant=request_context.tenant)

    async def cancel(self, name: str, request_context: RequestContext) -> JobT:
        """The job, cancelled unless it had ended.

        Raises:
            ServiceError: the kind's ``not_found``.
        """
        return await STORE.run(self._jobs.cancel, name, tenant=request_context.tenant)

    async def counts(self) -> Mapping[ReportState, int]:
        """Jobs of all tenants by state."""
        return await STORE.run(self._jobs.counts)

    async def file(
        self, name: str, file_name: str, request_context: RequestContext
    ) -> tuple[ReportFile, Path]:
        """A file of a finished job, and its path.

        Raises:
            ServiceError: the kind's ``not_found``: no such job or file, or it is not in the folder.
        """
        job = await self.get(name, request_context)
        files = job.response.files if job.response else ()
        found = next((file for file in files if file.name == file_name), None)
        if found is None:
            # Not the images of a gallery, of which there are hundreds.
            own = [file.name for file in files if "/" not in file.name]
            names = ", ".join(own) or f"none while it is {job.state}"
            raise self._no_file(f"expected one of {names}, got {shown(file_name)}")
        path = self._folder / job.name.removeprefix(self._kind.prefix) / found.name
        if not await FILES.run(path.is_file):
            raise self._no_file(f"{found.name} is no longer in the gateway's folder of reports")
        return found, path

    async def _checked(
        self, request: RequestT, model: str, request_context: RequestContext
    ) -> tuple[dict[str, str], Sequence[FieldViolation]]:
        """Fields to set, and what no contract can check without models and other jobs."""
        raise NotImplementedError

    def _no_file(self, description: str) -> ServiceError:
        return ServiceError(self._kind.not_found, f"file: {description}")


class ExplanationJobService(
    JobService[CreateExplanationJobRequest, ExplanationJob, ListExplanationJobsResponse]
):
    """Jobs that explain the images of a folder.

    Args:
        describe: what is known of a served model.
    """

    def __init__(
        self, store: Store, routes: Routes, folder: Path, describe: Callable[[str], ModelDetails]
    ) -> None:
        super().__init__(store, EXPLANATIONS, ListExplanationJobsRequest, routes, folder)
        self._describe = describe

    async def _checked(
        self, request: CreateExplanationJobRequest, model: str, request_context: RequestContext
    ) -> tuple[dict[str, str], Sequence[FieldViolation]]:
        if request.target is None:
            return {}, ()
        try:
            details = self._describe(model)
        except ServiceError as err:  # not ready yet: the worker finds out
            if err.code is not ErrorCode.MODEL_NOT_READY:
                raise
            return {}, ()
        return {}, validation.class_violations({"target": request.target}, details)
