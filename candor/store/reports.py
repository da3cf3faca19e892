"""Report jobs as clients see them: created, read, cancelled.

Workers use `candor.store.report_queue`.
"""

import hashlib
import time
import uuid
from collections.abc import Callable

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.json_text import json_text
from candor.contracts.reports import (
    NAME_PREFIX,
    CreateReportRequest,
    ListReportsRequest,
    ListReportsResponse,
    Report,
    ReportFailure,
    ReportProgress,
    ReportResult,
    ReportState,
)
from candor.store.engine import Store, insert_new
from candor.store.tables import ReportJob

_FIELDS = tuple(CreateReportRequest.model_fields)


class Reports:
    """Creates, shows and cancels jobs; safe to share among threads.

    A tenant sees only its own jobs; those of others do not exist for it.

    Args:
        clock: seconds since 1970, UTC.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def create(self, request: CreateReportRequest, *, tenant: str = "") -> Report:
        """A new job, on disk when this returns, or the one that this key already names.

        Raises:
            ServiceError: CONFLICT: the tenant sent the same key with another request.
        """
        key, digest, public_id = request.idempotency_key or None, _digest(request), uuid.uuid4().hex
        with self._store.writing() as session:
            insert_new(
                session,
                ReportJob,
                public_id=public_id,
                tenant=tenant,
                idempotency_key=key,
                request=request.model_dump(mode="json"),
                request_sha256=digest,
                state=ReportState.QUEUED.value,
                cancel_requested=False,
                attempts=0,
                created_at=self._clock(),
            )
            known = select(ReportJob).where(ReportJob.public_id == public_id)
            if key is not None:
                known = select(ReportJob).filter_by(tenant=tenant, idempotency_key=key)
            job = session.scalars(known).one()
            if job.request_sha256 != digest:
                raise _other_request(key, job)
            return report_of(job)

    def get(self, name: str, *, tenant: str = "") -> Report:
        """Raises: ServiceError: REPORT_NOT_FOUND."""
        with self._store.reading() as session:
            return report_of(_find(session, name, tenant))

    def list(self, request: ListReportsRequest, *, tenant: str = "") -> ListReportsResponse:
        """One page, the newest first; new jobs do not shift the pages after it.

        Raises:
            ServiceError: INVALID_INPUT: a page token that is not of a page.
        """
        wanted = select(ReportJob).filter_by(tenant=tenant).order_by(ReportJob.id.desc())
        if request.state is not None:
            wanted = wanted.where(ReportJob.state == request.state.value)
        if request.page_token:
            wanted = wanted.where(ReportJob.id < _first_id(request.page_token))
        with self._store.reading() as session:
            jobs = session.scalars(wanted.limit(request.page_size + 1)).all()
            page, is_last = jobs[: request.page_size], len(jobs) <= request.page_size
            return ListReportsResponse(
                reports=tuple(map(report_of, page)),
                next_page_token="" if is_last else str(page[-1].id),
            )

    def cancel(self, name: str, *, tenant: str = "") -> Report:
        """At once where no worker has it, else when its worker renews its lease; ended jobs stay.

        Raises:
            ServiceError: REPORT_NOT_FOUND.
        """
        with self._store.writing() as session:
            job = _find(session, name, tenant, for_update=True)
            if not ReportState(job.state).is_final:
                job.cancel_requested = True
                if job.expires_at is None or job.expires_at <= self._clock():
                    end_job(job, ReportState.CANCELLED, self._clock())
            return report_of(job)

    def counts(self) -> dict[ReportState, int]:
        """Jobs of all tenants in each state; a state without any is left out."""
        with self._store.reading() as session:
            rows = session.execute(
                select(ReportJob.state, func.count(ReportJob.id)).group_by(ReportJob.state)
            )
            return {ReportState(state): count for state, count in rows}


def end_job(job: ReportJob, state: ReportState, now: float) -> None:
    """Set the final state of a job, which no worker has any more."""
    job.state = state.value
    job.worker = job.expires_at = None
    job.ended_at = now


def report_of(job: ReportJob) -> Report:
    """A row as the contract has it."""
    state = ReportState(job.state)
    return Report(
        name=NAME_PREFIX + job.public_id,
        state=state,
        done=state.is_final,
        cancel_requested=job.cancel_requested,
        request=_request_of(job),
        progress=None if job.progress is None else ReportProgress.model_validate(job.progress),
        error=None if job.reason is None else ReportFailure(message=job.reason),
        response=None if job.result is None else ReportResult.model_validate(job.result),
        create_time=job.created_at,
        start_time=job.started_at,
        end_time=job.ended_at,
    )


def _request_of(job: ReportJob) -> CreateReportRequest:
    """The request; of another version's fields those that this one has, unchecked.

    Its attacks are left out: the contract rejects those of which it knows no solver.
    """
    try:
        return CreateReportRequest.model_validate(job.request)
    except ValidationError:
        known = {name: job.request[name] for name in _FIELDS if name in job.request}
        return CreateReportRequest.model_construct(**known | {"attacks": ()})


def _find(session: Session, name: str, tenant: str, *, for_update: bool = False) -> ReportJob:
    public_id = name.removeprefix(NAME_PREFIX) if name.startswith(NAME_PREFIX) else ""
    wanted = select(ReportJob).filter_by(public_id=public_id, tenant=tenant)
    if for_update:
        wanted = wanted.with_for_update()
    job = session.scalars(wanted).one_or_none()
    if job is None:
        message = (
            f"name: expected {NAME_PREFIX}ID of a report of this store and tenant, "
            f"got {name[:60]!r}"
        )
        raise ServiceError(ErrorCode.REPORT_NOT_FOUND, message)
    return job


def _other_request(key: str | None, job: ReportJob) -> ServiceError:
    message = (
        f"idempotency_key: expected the fields that made {NAME_PREFIX}{job.public_id} or "
        f"another key, got {key!r} with other fields"
    )
    return ServiceError(ErrorCode.CONFLICT, message)


def _first_id(page_token: str) -> int:
    # Longer ones are above what a column of integers holds.
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 10):
        description = f"expected the next_page_token of a page, got {page_token[:60]!r}"
        raise invalid_input([FieldViolation("page_token", description)])
    return int(page_token)


def _digest(request: CreateReportRequest) -> str:
    fields = request.model_dump(mode="json", exclude={"idempotency_key"})
    text = json_text(fields, is_compact=True, is_sorted=True)
    return hashlib.sha256(text.encode()).hexdigest()
