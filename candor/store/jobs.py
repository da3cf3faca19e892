"""Jobs as clients see them: created, read, cancelled.

Workers use `candor.store.job_queue`.
"""

import hashlib
import time
import uuid
from collections.abc import Callable
from typing import Generic

from pydantic import ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.explanation_jobs import ListExplanationJobsRequest
from candor.contracts.json_text import json_text
from candor.contracts.reports import ListReportsRequest, ReportFailure, ReportState
from candor.store.engine import Store, insert_new
from candor.store.job_kinds import JobKind, JobRequest, JobT, PageT, RequestT
from candor.store.tables import StoredJob, WorkBlock


class Jobs(Generic[RequestT, JobT, PageT]):
    """Creates, shows and cancels jobs of one kind; safe to share among threads.

    A tenant sees only its own jobs; those of others do not exist for it.

    Args:
        clock: seconds since 1970, UTC.
    """

    def __init__(
        self,
        store: Store,
        kind: JobKind[RequestT, JobT, PageT],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._kind: JobKind[RequestT, JobT, PageT] = kind
        self._clock = clock

    def create(self, request: RequestT, *, tenant: str = "") -> JobT:
        """A new job, on disk when this returns, or the one that this key already names.

        Raises:
            ServiceError: CONFLICT: the tenant sent the same key with another request.
        """
        key, digest, public_id = request.idempotency_key or None, _digest(request), uuid.uuid4().hex
        with self._store.writing() as session:
            insert_new(
                session,
                StoredJob,
                kind=self._kind.name,
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
            known = select(StoredJob).where(StoredJob.public_id == public_id)
            if key is not None:
                known = select(StoredJob).filter_by(
                    tenant=tenant, kind=self._kind.name, idempotency_key=key
                )
            job = session.scalars(known).one()
            if job.request_sha256 != digest:
                raise _other_request(key, self._kind.prefix + job.public_id)
            return self._shown(job)

    def get(self, name: str, *, tenant: str = "") -> JobT:
        """Raises: ServiceError: the kind's ``not_found``."""
        with self._store.reading() as session:
            return self._shown(self._find(session, name, tenant))

    def list(
        self, request: ListReportsRequest | ListExplanationJobsRequest, *, tenant: str = ""
    ) -> PageT:
        """One page, the newest first; new jobs do not shift the pages after it.

        Raises:
            ServiceError: INVALID_INPUT: a page token that is not of a page.
        """
        wanted = (
            select(StoredJob)
            .filter_by(tenant=tenant, kind=self._kind.name)
            .order_by(StoredJob.id.desc())
        )
        if request.state is not None:
            wanted = wanted.where(StoredJob.state == request.state.value)
        if request.page_token:
            wanted = wanted.where(StoredJob.id < _first_id(request.page_token))
        with self._store.reading() as session:
            jobs = session.scalars(wanted.limit(request.page_size + 1)).all()
            page, is_last = jobs[: request.page_size], len(jobs) <= request.page_size
            token = "" if is_last else str(page[-1].id)
            return self._kind.page(tuple(map(self._shown, page)), token)

    def cancel(self, name: str, *, tenant: str = "") -> JobT:
        """At once where no worker has it, else when its worker renews its lease; ended jobs stay.

        Raises:
            ServiceError: the kind's ``not_found``.
        """
        with self._store.writing() as session:
            job = self._find(session, name, tenant, for_update=True)
            if not ReportState(job.state).is_final:
                job.cancel_requested = True
                if job.expires_at is None or job.expires_at <= self._clock():
                    end_job(session, job, ReportState.CANCELLED, self._clock())
            return self._shown(job)

    def counts(self) -> dict[ReportState, int]:
        """Jobs of all tenants in each state; a state without any is left out."""
        with self._store.reading() as session:
            rows = session.execute(
                select(StoredJob.state, func.count(StoredJob.id))
                .where(StoredJob.kind == self._kind.name)
                .group_by(StoredJob.state)
            )
            return {ReportState(state): count for state, count in rows}

    def _shown(self, job: StoredJob) -> JobT:
        """A row as the contract has it."""
        kind, state = self._kind, ReportState(job.state)
        fields = {
            "name": kind.prefix + job.public_id,
            "state": state,
            "done": state.is_final,
            "cancel_requested": job.cancel_requested,
            "request": self._request(job),
            "progress": None if job.progress is None else kind.progress(**job.progress),
            "error": None if job.reason is None else ReportFailure(message=job.reason),
            "response": None if job.result is None else kind.result.model_validate(job.result),
            "create_time": job.created_at,
            "start_time": job.started_at,
            "end_time": job.ended_at,
        }
        return kind.resource.model_validate(fields)

    def _request(self, job: StoredJob) -> RequestT:
        """The request; of another version's fields those that this one has, unchecked."""
        kind = self._kind
        try:
            return kind.request.model_validate(job.request)
        except ValidationError:
            names = kind.request.model_fields.keys() & job.request.keys()
            known = {name: job.request[name] for name in names}
            return kind.request.model_construct(**known | dict(kind.unread))

    def _find(
        self, session: Session, name: str, tenant: str, *, for_update: bool = False
    ) -> StoredJob:
        prefix = self._kind.prefix
        public_id = name.removeprefix(prefix) if name.startswith(prefix) else ""
        wanted = select(StoredJob).filter_by(
            public_id=public_id, tenant=tenant, kind=self._kind.name
        )
        if for_update:
            wanted = wanted.with_for_update()
        job = session.scalars(wanted).one_or_none()
        if job is None:
            message = (
                f"name: expected {prefix}ID of a job of this store and tenant, got {name[:60]!r}"
            )
            raise ServiceError(self._kind.not_found, message)
        return job


def end_job(session: Session, job: StoredJob, state: ReportState, now: float) -> None:
    """Set the final state of a job, which no worker has any more, and delete its blocks."""
    job.state = state.value
    job.worker = job.expires_at = None
    job.ended_at = now
    session.execute(delete(WorkBlock).where(WorkBlock.work == job.public_id))


def _other_request(key: str | None, name: str) -> ServiceError:
    message = (
        f"idempotency_key: expected the fields that made {name} or another key, got {key!r} with "
        "other fields"
    )
    return ServiceError(ErrorCode.CONFLICT, message)


def _first_id(page_token: str) -> int:
    # Longer ones are above what a column of integers holds.
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 10):
        description = f"expected the next_page_token of a page, got {page_token[:60]!r}"
        raise invalid_input([FieldViolation("page_token", description)])
    return int(page_token)


def _digest(request: JobRequest) -> str:
    fields = request.model_dump(mode="json", exclude={"idempotency_key"})
    text = json_text(fields, is_compact=True, is_sorted=True)
    return hashlib.sha256(text.encode()).hexdigest()
