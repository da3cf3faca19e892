"""Jobs as workers see them: leased, renewed, released, ended.

A lease is a row's worker and the time it ends.  On PostgreSQL rows that another worker is about to
take are skipped; on SQLite every taker holds the one write lock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from candor.contracts.explanation_jobs import ExplanationJobResult
from candor.contracts.reports import ReportState
from candor.contracts.violations import sentence
from candor.store.engine import Store
from candor.store.job_kinds import KINDS, AnyKind, JobRequest, Progress, Result, final_state
from candor.store.jobs import end_job
from candor.store.leases import LeaseLost
from candor.store.tables import StoredJob

MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """A job that this worker has.

    Attributes:
        public_id: also the name of its folder and, where it has blocks, of its work.
    """

    kind: AnyKind
    public_id: str
    request: JobRequest

    @property
    def name(self) -> str:
        return self.kind.prefix + self.public_id


class JobQueue:
    """One worker's access to the jobs; safe to share among threads.

    Args:
        worker: a name that no other worker has.
        lease_seconds: how long a worker may be silent before another takes its job; clocks of
            different machines must agree to well within it.
        clock: seconds since 1970, UTC.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._clock = clock

    @property
    def store_address(self) -> str:
        """Opens the store of these jobs again, its password included."""
        return self._store.address

    def lease(self) -> LeasedJob | None:
        """The oldest job of any kind that waits or whose lease has ended; None of none.

        A job during which several workers in a row ended without notice fails instead, and so does
        one whose request this version cannot read.
        """
        with self._store.writing() as session:
            while (job := self._next(session)) is not None:
                now = self._clock()
                if job.cancel_requested:
                    end_job(session, job, ReportState.CANCELLED, now)
                elif job.attempts >= MAX_ATTEMPTS:
                    job.reason = _given_up(job)
                    end_job(session, job, ReportState.FAILED, now)
                elif (request := _readable_request(session, job, now)) is not None:
                    job.state = ReportState.RUNNING.value
                    job.worker, job.expires_at = self._worker, now + self._lease_seconds
                    job.attempts += 1
                    job.started_at = job.started_at or now
                    return LeasedJob(kind=KINDS[job.kind], public_id=job.public_id, request=request)
                session.flush()
        return None

    def renew(self, leased: LeasedJob, progress: Progress | None) -> bool:
        """Renew the lease and store progress; returns whether the job is still wanted.

        Raises:
            LeaseLost: it is no longer ours.
        """
        with self._store.writing() as session:
            job = self._own(session, leased)
            job.expires_at = self._clock() + self._lease_seconds
            if progress is not None:
                if job.progress is None or progress.fraction > job.progress["fraction"]:
                    job.attempts = 0
                job.progress = progress.model_dump(mode="json")
            return not job.cancel_requested

    def release(self, leased: LeasedJob) -> None:
        """Queue the job again, for another worker to continue.  Raises: LeaseLost."""
        with self._store.writing() as session:
            job = self._own(session, leased)
            job.state = ReportState.QUEUED.value
            job.worker = job.expires_at = None
            job.attempts = 0

    def finish(
        self, leased: LeasedJob, result: Result, progress: Progress | None = None
    ) -> ReportState:
        """The job's final state.

        Raises:
            LeaseLost: it is no longer ours.
        """
        state = final_state(result)
        with self._store.writing() as session:
            job = self._own(session, leased)
            job.result = result.model_dump(mode="json")
            if progress is not None:  # the last, which no renewal may have written
                job.progress = progress.model_dump(mode="json")
            if job.progress is not None:
                done: dict[str, Any] = {"fraction": 1.0, "stage": "", "seconds_left": 0.0}
                if isinstance(result, ExplanationJobResult):
                    done["images_done"] = result.image_count
                job.progress = job.progress | done
            end_job(session, job, state, self._clock())
        return state

    def fail(self, leased: LeasedJob, reason: str) -> None:
        """``reason``: one sentence for the client.  Raises: LeaseLost."""
        with self._store.writing() as session:
            job = self._own(session, leased)
            job.reason = reason
            end_job(session, job, ReportState.FAILED, self._clock())

    def cancel(self, leased: LeasedJob) -> None:
        """End a job for which `renew` returned False.  Raises: LeaseLost."""
        with self._store.writing() as session:
            end_job(session, self._own(session, leased), ReportState.CANCELLED, self._clock())

    def _next(self, session: Session) -> StoredJob | None:
        has_expired = (StoredJob.state == ReportState.RUNNING.value) & (
            StoredJob.expires_at <= self._clock()
        )
        return session.scalars(
            select(StoredJob)
            .where(
                StoredJob.kind.in_(KINDS),
                or_(StoredJob.state == ReportState.QUEUED.value, has_expired),
            )
            .order_by(StoredJob.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()

    def _own(self, session: Session, leased: LeasedJob) -> StoredJob:
        job = session.scalars(
            select(StoredJob)
            .where(
                StoredJob.public_id == leased.public_id,
                StoredJob.state == ReportState.RUNNING.value,
                StoredJob.worker == self._worker,
            )
            .with_for_update()
        ).one_or_none()
        if job is None:
            raise LeaseLost(f"{leased.name} belongs to another worker now")
        return job


def _readable_request(session: Session, job: StoredJob, now: float) -> JobRequest | None:
    """The job's request; a job that another version made and this one cannot read fails instead."""
    try:
        return KINDS[job.kind].request.model_validate(job.request)
    except ValidationError as err:
        job.reason = (
            f"{sentence(err, 'request')}; requested by another version of Candor, request it again"
        )
        end_job(session, job, ReportState.FAILED, now)
        return None


def _given_up(job: StoredJob) -> str:
    stage = (job.progress or {}).get("stage") or "its start"
    return (
        f"given up after {job.attempts} workers in a row ended at {stage} without notice, as when "
        f"memory runs out; batch_size: got {job.request['batch_size']}, a smaller one needs less"
    )
