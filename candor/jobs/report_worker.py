"""The worker that computes the jobs of a store, one at a time."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import SQLAlchemyError

from candor.audit.errors import AuditBusy, AuditError, AuditStopped, DiskFull
from candor.audit.facts import check_same_facts, collect, read_facts
from candor.audit.ledger import read_plan, write_atomically
from candor.audit.plan import Shard
from candor.audit.run import stoppable
from candor.audit.sections.comparison import Other, read_other
from candor.audit.session import AuditRequest, PreparedAudit, compute, finish, option, prepare
from candor.contracts.reports import NAME_PREFIX, CreateReportRequest, ReportResult
from candor.contracts.secrets import WithoutSecrets
from candor.jobs.images_job import ImagesJob, images_root
from candor.jobs.lease import Lease, Stop
from candor.jobs.outcome import failure_reason, report_result
from candor.jobs.progress import JobProgress
from candor.runtime.allocator import keep_freed_memory
from candor.stack.archives import model_folder
from candor.store.blocks import worker_name
from candor.store.engine import Store
from candor.store.job_kinds import Result
from candor.store.job_queue import JobQueue, LeasedJob
from candor.store.leases import LeaseLost

_LOWEST_PRIORITY = 19
_POLL_SECONDS = 2.0  # between two looks at an empty queue
_SPACE_BYTES = 4 * 1024 * 1024  # for a block and the files of a report
_log = logging.getLogger("candor.report_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Leases jobs of every kind and computes them in ``reports``, each in a folder of its own."""

    queue: JobQueue
    reports: Path
    models_dir: Path
    data_dir: Path | None
    key: Ed25519PrivateKey
    lease_seconds: float
    stopping: threading.Event

    def run(self, *, until_idle: bool) -> None:
        """Until ``stopping`` is set; a store that does not answer is tried again."""
        while not self.stopping.is_set():
            try:
                leased = self.queue.lease()
                if leased is not None:
                    self._run_job(leased)
                    continue
                if until_idle:
                    return
            except LeaseLost as err:
                _log.warning("%s", err)
            except SQLAlchemyError:
                # What is finished is in the ledger, and the lease ends by itself.
                _log.exception("the store does not answer")
            self.stopping.wait(_POLL_SECONDS)

    def _run_job(self, leased: LeasedJob) -> None:
        _log.info("%s: started", leased.name)
        started = time.monotonic()
        lease = Lease(self.queue, leased, self.lease_seconds, self.stopping)
        try:
            with lease:
                result = self._compute(leased, lease)
        except (AuditStopped, KeyboardInterrupt):  # the latter while torch compiles
            _log.info("%s: stopped, %s", leased.name, lease.stop and lease.stop.name.lower())
            self._release(leased, lease.stop or Stop.SHUTDOWN)
        except AuditBusy as err:
            _log.warning("%s: %s", leased.name, err)
            self.queue.release(leased)
            self.stopping.wait(_POLL_SECONDS)
        except Exception as err:  # no failure of a job may end the worker
            _log.exception("%s: failed", leased.name)
            self.queue.fail(leased, failure_reason(err, leased.name))
        else:
            state = self.queue.finish(leased, result, lease.progress)
            _log.info("%s: %s in %.1f seconds", leased.name, state, time.monotonic() - started)

    def _release(self, leased: LeasedJob, stop: Stop) -> None:
        match stop:
            case Stop.CANCELLED:
                self.queue.cancel(leased)
            case Stop.SHUTDOWN:
                self.queue.release(leased)

    def _compute(self, leased: LeasedJob, lease: Lease) -> Result:
        request, out = leased.request, self.reports / leased.public_id
        if isinstance(request, CreateReportRequest):
            return self._report(leased.name, request, out, lease)
        job = ImagesJob(
            request=request,
            out=out,
            models_dir=self.models_dir,
            images=images_root(self.data_dir),
            store=self.queue.store_address,
            work_name=leased.public_id,
            lease_seconds=self.lease_seconds,
        )
        return job.compute(lease, lambda: self._wait_for_space(lease))

    def _report(
        self, name: str, request: CreateReportRequest, out: Path, lease: Lease
    ) -> ReportResult:
        other = self._compared(request)
        prepared = prepare(self._audit_request(request))
        _delete_where_plan_differs(out, prepared, name)
        progress = JobProgress(request.image_count, lease.report)
        while True:
            try:
                with stoppable(prepared.subject, lease.check):
                    compute(prepared, out, shard=Shard(), report=progress.report, other=other)
                return report_result(finish(out, self.key, other), out)
            except DiskFull as err:
                _log.warning("%s: %s; continues when there is some", name, err)
                progress.report_waiting()
                self._wait_for_space(lease)

    def _compared(self, request: CreateReportRequest) -> Other | None:
        name = request.compare.removeprefix(NAME_PREFIX)
        with option("compare", request.compare):
            return read_other(self.reports / name) if name else None

    def _wait_for_space(self, lease: Lease) -> None:
        while not _has_space(self.reports):
            lease.pause(_POLL_SECONDS)

    def _audit_request(self, request: CreateReportRequest) -> AuditRequest:
        return AuditRequest(
            model=model_folder(self.models_dir, request.model),
            data=request.data,
            data_dir=self.data_dir,
            image_count=request.image_count,
            attacks=request.attacks,
            has_extras=not request.attacks_only,
            seed=request.seed,
            steps=request.steps,
            batch_size=request.batch_size,
            budget=request.budget,
            counts={},
            compiles=None,
            independent=self._model_folder(request.independent),
            undefended=self._model_folder(request.undefended),
        )

    def _model_folder(self, name: str) -> Path | None:
        return model_folder(self.models_dir, name) if name else None


def run_worker(
    store: Store,
    *,
    reports: Path,
    models_dir: Path,
    data_dir: Path | None,
    key: Ed25519PrivateKey,
    lease_seconds: float,
    until_idle: bool,
) -> None:
    """Make this process a worker of the lowest priority until SIGTERM, which gives its job back.

    Args:
        store: has the queue of jobs.
        reports: folder of reports, the gateway's too; made where it is missing.
        models_dir, data_dir: where models and data are; None = a cache folder of the user.
        key: signs the reports.
        lease_seconds: silence after which another worker takes this one's job.
        until_idle: end when no job waits.
    """
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(WithoutSecrets("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[output])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    os.nice(_LOWEST_PRIORITY)
    keep_freed_memory()
    reports.mkdir(parents=True, exist_ok=True)
    Worker(
        queue=JobQueue(store, worker_name(), lease_seconds=lease_seconds),
        reports=reports,
        models_dir=models_dir,
        data_dir=data_dir,
        key=key,
        lease_seconds=lease_seconds,
        stopping=stopping,
    ).run(until_idle=until_idle)


def _has_space(folder: Path) -> bool:
    probe = folder / ".space"
    try:
        write_atomically(probe, bytes(_SPACE_BYTES))
    except DiskFull:
        return False
    probe.unlink(missing_ok=True)  # another worker may look too
    return True


def _delete_where_plan_differs(out: Path, prepared: PreparedAudit, name: str) -> None:
    """Delete what another version of code, model, data or libraries computed: it would not fit."""
    subject = prepared.subject
    try:
        is_same = read_plan(out).digest == prepared.plan.digest
        if is_same:
            facts = collect(subject.network, subject.card, prepared.dataset)
            check_same_facts(facts, read_facts(out), out)
    except AuditError:
        is_same = False
    if not is_same and out.exists():
        _log.warning("%s: started under another plan or other versions; starts again", name)
        shutil.rmtree(out)
