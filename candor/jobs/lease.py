"""The lease of a report job: kept by a thread while the job is computed."""

import logging
import threading
import time
from enum import Enum, auto
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from candor.audit.errors import AuditStopped
from candor.contracts.reports import ReportProgress
from candor.store.report_queue import LeasedReport, LeaseLost, ReportQueue

_RENEWALS_PER_LEASE = 6  # how often a lease is renewed before it would end
_LONGEST_PAUSE_SECONDS = 2.0  # between two renewals
_log = logging.getLogger("candor.report_worker")


class Stop(Enum):
    """Why a job that runs has to stop."""

    SHUTDOWN = auto()
    CANCELLED = auto()
    LOST = auto()


class Lease:
    """Renews a lease in a thread while the job is computed, and learns when the job has to stop.

    Attributes:
        stop: why `check` stops the job; None while it goes on.
    """

    def __init__(
        self, queue: ReportQueue, leased: LeasedReport, seconds: float, stopping: threading.Event
    ) -> None:
        self._queue = queue
        self._leased = leased
        self._seconds = seconds
        self._stopping = stopping
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._progress: ReportProgress | None = None
        self.stop: Stop | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def report(self, progress: ReportProgress) -> None:
        """Set what the next renewal writes beside the lease; raises as `check` does."""
        self._progress = progress
        self.check()

    def check(self) -> None:
        """Raises: AuditStopped: the job has to stop; `stop` says why."""
        if self.stop is None and self._stopping.is_set():
            self.stop = Stop.SHUTDOWN
        if self.stop is not None:
            raise AuditStopped

    def _renew(self) -> None:
        renewed = time.monotonic()
        pause = min(_LONGEST_PAUSE_SECONDS, self._seconds / _RENEWALS_PER_LEASE)
        while not self._ended.wait(pause):
            try:
                if not self._queue.renew(self._leased, self._progress):
                    self.stop = Stop.CANCELLED
                renewed = time.monotonic()
            except LeaseLost:
                self.stop = Stop.LOST
                return
            except SQLAlchemyError as err:
                _log.warning("%s: lease not renewed: %s", self._leased.name, err)
                if time.monotonic() - renewed > self._seconds:
                    self.stop = Stop.LOST
                    return
