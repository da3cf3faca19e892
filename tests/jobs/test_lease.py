"""Leases and progress of report jobs, without a store and without an audit."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from candor.audit.errors import AuditStopped
from candor.audit.run import Progress
from candor.contracts.reports import CreateReportRequest, ReportProgress
from candor.jobs.lease import Lease, Stop
from candor.jobs.progress import JobProgress
from candor.store.job_kinds import REPORTS
from candor.store.job_queue import LeasedJob
from candor.store.leases import LeaseLost

LEASED = LeasedJob(kind=REPORTS, public_id="0" * 32, request=CreateReportRequest(model="tiny"))
WAIT_SECONDS = 30.0


class Queue:
    """Answers every renewal by one function and counts them."""

    def __init__(self, renew: Callable[[], bool]) -> None:
        self._renew = renew
        self.renewed = threading.Event()
        self.progress: list[ReportProgress | None] = []

    def renew(self, leased: LeasedJob, progress: ReportProgress | None) -> bool:
        self.progress.append(progress)
        try:
            return self._renew()
        finally:
            self.renewed.set()


def lease_of(queue: Queue, stopping: threading.Event | None = None, seconds: float = 0.01) -> Lease:
    unused: Any = queue
    return Lease(unused, LEASED, seconds, stopping or threading.Event())


def lost() -> bool:
    raise LeaseLost("another worker has it")


def unreachable() -> bool:
    raise OperationalError("select", None, Exception("no connection"))


@pytest.mark.parametrize(
    ("renew", "stop"),
    [(lambda: False, Stop.CANCELLED), (lost, Stop.LOST), (unreachable, Stop.LOST)],
)
def test_a_renewal_that_fails_stops_the_job(renew: Callable[[], bool], stop: Stop) -> None:
    queue = Queue(renew)
    lease = lease_of(queue)
    deadline = threading.Event()
    with lease:
        assert queue.renewed.wait(WAIT_SECONDS)
        while lease.stop is None:
            assert not deadline.wait(0.001)
    assert lease.stop is stop
    with pytest.raises(AuditStopped):
        lease.check()


def test_a_shutdown_stops_the_job_at_its_next_check() -> None:
    stopping = threading.Event()
    lease = lease_of(Queue(lambda: True), stopping)
    lease.check()
    stopping.set()
    with pytest.raises(AuditStopped):
        lease.check()
    assert lease.stop is Stop.SHUTDOWN


def test_a_renewal_writes_the_latest_progress() -> None:
    queue = Queue(lambda: True)
    lease = lease_of(queue)
    sent: list[ReportProgress] = []
    progress = JobProgress(3, sent.append)
    progress.report(Progress(done=1, total=4, stage="paper", images_done=1, attack_ara=0.01))
    lease.report(sent[-1])
    with lease:
        assert queue.renewed.wait(WAIT_SECONDS)
    assert queue.progress[0] == sent[-1]


def test_progress_estimates_the_seconds_left_and_says_when_it_waits() -> None:
    sent: list[ReportProgress] = []
    progress = JobProgress(3, sent.append)
    progress.report_waiting()
    assert (sent[-1].fraction, sent[-1].stage) == (0.0, "waits for disk space")
    for done in (1, 3):
        progress.report(Progress(done=done, total=4, stage="paper", images_done=2, attack_ara=None))
    assert (sent[-1].fraction, sent[-1].image_count) == (0.75, 3)
    assert sent[1].seconds_left is None
    assert sent[2].seconds_left is not None
    progress.report_waiting()
    assert (sent[-1].fraction, sent[-1].seconds_left) == (0.75, None)
