"""The command `candor report-worker`: computes the report jobs of a store, one at a time."""

import hashlib
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from candor.audit.session import (
    AuditRequest,
    BadOption,
    PreparedAudit,
    compute,
    finish,
    option,
    prepare,
)
from candor.cli.commands.audit import KeyFile, key_file
from candor.cli.commands.stores import DEFAULT_STORE, StoreAddress, opened_store
from candor.cli.options import DataDir
from candor.cli.output import clear_errors
from candor.stack.archives import MODELS_DIR, model_folder
from candor.stack.supervisor import REPORTS_DIR

if TYPE_CHECKING:
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from candor.audit.report.schema import Report as AuditReport
    from candor.audit.run import Progress
    from candor.contracts.reports import (
        CreateReportRequest,
        ReportFile,
        ReportProgress,
        ReportResult,
    )
    from candor.store.report_queue import LeasedReport, ReportQueue

_LOWEST_PRIORITY = 19
_KEEPS_A_LEASE = 6  # how often a lease is begun anew before it would end
_POLL_SECONDS = 2.0  # between two looks at an empty queue
_REASON_CHARS = 500
_SPACE_BYTES = 4 * 1024 * 1024  # for a block and the files of a report
_WAITS_FOR_SPACE = "waits for disk space"
_log = logging.getLogger("candor.report_worker")


def report_worker(
    store: StoreAddress = DEFAULT_STORE,
    reports: Annotated[
        Path,
        typer.Option(envvar="CANDOR_REPORTS_DIR", help="Folder of reports, the gateway's too."),
    ] = REPORTS_DIR,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    data_dir: DataDir = None,
    key: KeyFile = None,
    lease_seconds: Annotated[
        float,
        typer.Option(min=1.0, help="Silence after which another worker takes this one's job."),
    ] = 60.0,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when no job waits, instead of waiting too.")
    ] = False,
) -> None:
    """Compute the report jobs of a store until SIGTERM, which gives the job back."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with clear_errors("report-worker"), opened_store(store) as opened:
        from candor.audit.report.signing import load_or_create_key
        from candor.runtime.allocator import keep_freed_memory
        from candor.store.report_queue import ReportQueue

        os.nice(_LOWEST_PRIORITY)
        keep_freed_memory()
        reports.mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        worker = Worker(
            queue=ReportQueue(opened, name, lease_seconds=lease_seconds),
            reports=reports,
            models_dir=models_dir,
            data_dir=data_dir,
            key=load_or_create_key(key_file(key)),
            lease_seconds=lease_seconds,
            stopping=stopping,
        )
        worker.run(until_idle=until_idle)


class Stop(Enum):
    """Why a job that runs has to stop."""

    SHUTDOWN = auto()
    CANCELLED = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Leases jobs and computes them in ``reports``, each in a folder of its own."""

    queue: "ReportQueue"
    reports: Path
    models_dir: Path
    data_dir: Path | None
    key: "Ed25519PrivateKey"
    lease_seconds: float
    stopping: threading.Event

    def run(self, *, until_idle: bool) -> None:
        """Until it shall stop; a store that does not answer is asked again."""
        from sqlalchemy.exc import SQLAlchemyError

        from candor.store.report_queue import LeaseLost

        while not self.stopping.is_set():
            try:
                leased = self.queue.lease()
                if leased is not None:
                    self._do(leased)
                    continue
                if until_idle:
                    return
            except LeaseLost as err:
                _log.warning("%s", err)
            except SQLAlchemyError:
                # What is finished is in the ledger, and the lease ends by itself.
                _log.exception("the store does not answer")
            self.stopping.wait(_POLL_SECONDS)

    def _do(self, leased: "LeasedReport") -> None:
        from candor.audit.errors import AuditBusy, AuditStopped

        _log.info("%s: begun", leased.name)
        started = time.monotonic()
        lease = _Lease(self.queue, leased, self.lease_seconds, self.stopping)
        try:
            with lease:
                result = self._report(leased, lease)
        except (AuditStopped, KeyboardInterrupt):  # the latter while torch compiles
            _log.info("%s: stopped, %s", leased.name, lease.stop and lease.stop.name.lower())
            self._let_go(leased, lease.stop or Stop.SHUTDOWN)
        except AuditBusy as err:
            _log.warning("%s: %s", leased.name, err)
            self.queue.give_back(leased)
            self.stopping.wait(_POLL_SECONDS)
        except Exception as err:  # a job may fail in any way, a worker must not
            _log.exception("%s: failed", leased.name)
            self.queue.fail(leased, reason(err, leased.name))
        else:
            self.queue.succeed(leased, result)
            _log.info("%s: succeeded in %.1f seconds", leased.name, time.monotonic() - started)

    def _let_go(self, leased: "LeasedReport", stop: Stop) -> None:
        match stop:
            case Stop.CANCELLED:
                self.queue.cancel(leased)
            case Stop.SHUTDOWN:
                self.queue.give_back(leased)

    def _report(self, leased: "LeasedReport", lease: "_Lease") -> "ReportResult":
        from candor.audit.errors import DiskFull
        from candor.audit.plan import Shard
        from candor.audit.run import stoppable
        from candor.audit.sections.comparison import read_other
        from candor.contracts.reports import NAME_PREFIX

        out, request = self.reports / leased.public_id, leased.request
        compared = request.compare.removeprefix(NAME_PREFIX)
        with option("compare", request.compare):
            other = read_other(self.reports / compared) if compared else None
        prepared = prepare(self._audit_request(request))
        _start_anew_where_plan_differs(out, prepared, leased.name)
        pace = _Pace(request.image_count, lease.tell)
        while True:
            try:
                with stoppable(prepared.subject, lease.check):
                    compute(prepared, out, shard=Shard(), report=pace.report)
                return _result(finish(out, self.key, other), out)
            except DiskFull as err:
                _log.warning("%s: %s; goes on when there is some", leased.name, err)
                pace.tell_waiting()
                while not _has_space(self.reports):
                    self.stopping.wait(_POLL_SECONDS)
                    lease.check()

    def _audit_request(self, request: "CreateReportRequest") -> AuditRequest:
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
            is_quick=request.quick,
            compiles=None,
            independent=self._model_folder(request.independent),
            undefended=self._model_folder(request.undefended),
        )

    def _model_folder(self, name: str) -> Path | None:
        return model_folder(self.models_dir, name) if name else None


class _Lease:
    """Keeps a lease in a thread while the job is computed, and hears when it has to stop.

    Attributes:
        stop: why `check` stops the job; None while it goes on.
    """

    def __init__(
        self,
        queue: "ReportQueue",
        leased: "LeasedReport",
        seconds: float,
        stopping: threading.Event,
    ) -> None:
        self._queue = queue
        self._leased = leased
        self._seconds = seconds
        self._stopping = stopping
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._progress: ReportProgress | None = None
        self.stop: Stop | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        self._ended.set()
        self._thread.join()

    def tell(self, progress: "ReportProgress") -> None:
        """What the next keeping of the lease writes beside it."""
        self._progress = progress
        self.check()

    def check(self) -> None:
        """Raises: AuditStopped: the job has to stop; `stop` says why."""
        from candor.audit.errors import AuditStopped

        if self.stop is None and self._stopping.is_set():
            self.stop = Stop.SHUTDOWN
        if self.stop is not None:
            raise AuditStopped

    def _keep(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        from candor.store.report_queue import LeaseLost

        kept = time.monotonic()
        while not self._ended.wait(min(_POLL_SECONDS, self._seconds / _KEEPS_A_LEASE)):
            try:
                if not self._queue.keep(self._leased, self._progress):
                    self.stop = Stop.CANCELLED
                kept = time.monotonic()
            except LeaseLost:
                self.stop = Stop.LOST
                return
            except SQLAlchemyError as err:
                _log.warning("%s: lease not kept: %s", self._leased.name, err)
                if time.monotonic() - kept > self._seconds:
                    self.stop = Stop.LOST
                    return


class _Pace:
    """Progress of the audit as the contract has it, with the time left."""

    def __init__(self, image_count: int, tell: "Callable[[ReportProgress], None]") -> None:
        self._image_count = image_count
        self._tell = tell
        self._first: tuple[int, float] | None = None
        self._last: ReportProgress | None = None

    def tell_waiting(self) -> None:
        """The job stands still until there is space on the disk."""
        from candor.contracts.reports import ReportProgress

        last = self._last or ReportProgress(
            fraction=0.0,
            stage="",
            images_done=0,
            image_count=self._image_count,
            attack_ara=None,
            seconds_left=None,
        )
        self._tell(last.model_copy(update={"stage": _WAITS_FOR_SPACE, "seconds_left": None}))

    def report(self, progress: "Progress") -> None:
        from candor.contracts.reports import ReportProgress

        now = time.monotonic()
        done_before, started = self._first = self._first or (progress.done, now)
        gained = progress.done - done_before
        left = (progress.total - progress.done) * (now - started) / gained if gained else None
        self._last = ReportProgress(
            fraction=progress.done / progress.total,
            stage=progress.stage,
            images_done=progress.images_done,
            image_count=self._image_count,
            attack_ara=progress.attack_ara,
            seconds_left=left,
        )
        self._tell(self._last)


def reason(error: Exception, name: str) -> str:
    """One sentence for the caller of job ``name``; where nothing is known it names the log."""
    from candor.audit.errors import AuditError, BlockFailed

    log = f"see the worker's log for {name}"
    if isinstance(error, BlockFailed):
        return f"{error.place}: internal error ({type(error.__cause__).__name__}), {log}"
    if isinstance(error, BadOption | AuditError):
        return " ".join(str(error).split())[:_REASON_CHARS]
    if isinstance(error, MemoryError):
        return f"the worker has too little memory, {log}"
    if isinstance(error, OSError) and error.strerror:
        return f"the worker cannot read or write a file ({error.strerror}), {log}"
    return f"internal error ({type(error).__name__}), {log}"


def _has_space(folder: Path) -> bool:
    from candor.audit.errors import DiskFull
    from candor.audit.ledger import write_atomically

    probe = folder / ".space"
    try:
        write_atomically(probe, bytes(_SPACE_BYTES))
    except DiskFull:
        return False
    probe.unlink(missing_ok=True)  # another worker may look too
    return True


def _start_anew_where_plan_differs(out: Path, prepared: PreparedAudit, name: str) -> None:
    """After an update of code or weights a job begun before it would be half of each."""
    from candor.audit.errors import AuditError
    from candor.audit.ledger import read_plan

    try:
        is_same = read_plan(out).digest == prepared.plan.digest
    except AuditError:
        is_same = False
    if not is_same and out.exists():
        _log.warning("%s: begun by another plan (code, model or data); starts anew", name)
        shutil.rmtree(out)


def _result(report: "AuditReport", out: Path) -> "ReportResult":
    from candor.contracts.card import MetricCard
    from candor.contracts.reports import ReportResult

    common = {"data": report.data, "method": report.provenance.command}
    accuracy = report.accuracy
    metrics = [
        MetricCard(
            name="accuracy",
            value=accuracy.value,
            low=accuracy.low,
            high=accuracy.high,
            image_count=accuracy.image_count,
            **common,
        )
    ]
    metrics += [
        MetricCard(
            name=f"{area.goal}_ara",
            value=area.value.rmse,
            low=area.low.rmse,
            high=area.high.rmse,
            image_count=area.image_count,
            **common,
        )
        for area in report.areas
    ]
    return ReportResult(
        files=tuple(_files(out)), metrics=tuple(metrics), warnings=tuple(report.warnings)
    )


def _files(out: Path) -> "Iterator[ReportFile]":
    """What is signed, and the signature."""
    from candor.audit.report.signing import MANIFEST_FILE, SIGNATURE_FILE, verify_folder
    from candor.contracts.reports import ReportFile

    for name in (*verify_folder(out).files, MANIFEST_FILE, SIGNATURE_FILE):
        content = (out / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        yield ReportFile(name=name, byte_count=len(content), sha256=digest)
