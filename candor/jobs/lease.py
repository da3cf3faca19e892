"""The lease of a job: renewed while the job is computed, and what stops the job."""

import threading
from enum import Enum, auto

from candor.audit.errors import AuditStopped
from candor.store.job_kinds import Progress
from candor.store.job_queue import JobQueue, LeasedJob
from candor.store.leases import RenewedLease


class Stop(Enum):
    """Why a job that runs has to stop."""

    SHUTDOWN = auto()
    CANCELLED = auto()
    LOST = auto()


class Lease(RenewedLease):
    """Renews the lease of a job in a thread, and learns when the job has to stop.

    Attributes:
        stop: why `check` stops the job; None while it goes on.
        progress: the last that was reported.
    """

    def __init__(
        self, queue: JobQueue, leased: LeasedJob, seconds: float, stopping: threading.Event
    ) -> None:
        super().__init__(leased.name, lambda: queue.renew(leased, self.progress), seconds)
        self._stopping = stopping
        self.progress: Progress | None = None
        self._is_shut_down = False

    @property
    def stop(self) -> Stop | None:
        if self.is_lost:
            return Stop.LOST
        if not self.is_wanted:
            return Stop.CANCELLED
        return Stop.SHUTDOWN if self._is_shut_down else None

    def report(self, progress: Progress) -> None:
        """Set what the next renewal writes beside the lease; raises as `check` does."""
        self.progress = progress
        self.check()

    def check(self) -> None:
        """Raises: AuditStopped: the job has to stop; `stop` says why."""
        self._is_shut_down = self._is_shut_down or self._stopping.is_set()
        if self.stop is not None:
            raise AuditStopped

    def pause(self, seconds: float) -> None:
        """Wait; raises as `check` does."""
        self._stopping.wait(seconds)
        self.check()
