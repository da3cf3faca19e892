"""`candor report-worker`: real processes, killed and stopped, on an untrained model."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from candor.attacks import compacted, library
from candor.audit import session
from candor.audit.ledger import Block, Ledger
from candor.audit.plan import AuditPlan
from candor.audit.report.signing import verify_folder
from candor.cli.main import build_app
from candor.contracts.reports import (
    CreateReportRequest,
    ListReportsResponse,
    Report,
    ReportState,
)
from candor.contracts.secrets import Secret
from candor.data.images import ImageSet
from candor.data.registry import load_for_model
from candor.jobs.report_worker import Worker
from candor.models.folder import load_model
from candor.stack.config import StackConfig
from candor.stack.launch import start_report_worker
from candor.store.engine import Store, open_store
from candor.store.job_kinds import REPORTS
from candor.store.job_queue import JobQueue
from candor.store.jobs import Jobs
from tools.small_disk import fill_up

ReportJobs = Jobs[CreateReportRequest, Report, ListReportsResponse]
_REPOSITORY = Path(__file__).resolve().parents[2]
_WAIT_SECONDS = 240.0
_SMALL = CreateReportRequest(
    model="tiny",
    image_count=3,
    attacks=("paper", "fgsm"),
    attacks_only=True,
    quick=True,
    steps=5,
    batch_size=1,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(str(tmp_path / "store.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def reports(store: Store) -> ReportJobs:
    return Jobs(store, REPORTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "reports"


Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin(
    store: Store,
    folder: Path,
    model: Path,
    data_root: Path,
    tmp_path: Path,
) -> Iterator[Begin]:
    """Starts a worker; whatever still runs at the end is killed."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "candor.cli", "report-worker"]
        command += ["--store", store.address, "--reports", str(folder), "--lease-seconds", "1.5"]
        command += ["--models-dir", str(model.parent), "--data-dir", str(data_root)]
        command += ["--key", str(tmp_path / "key.pem"), *options]
        environment = os.environ | {"PYTHONPATH": str(_REPOSITORY), "OMP_NUM_THREADS": "1"}
        with (tmp_path / "worker.log").open("ab") as log:
            begun.append(subprocess.Popen(command, env=environment, cwd=_REPOSITORY, stderr=log))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def wait_for(reports: ReportJobs, name: str, holds: Callable[[Report], bool]) -> Report:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not holds(report := reports.get(name)):
        assert time.monotonic() < deadline, report
        assert not report.done, report
        time.sleep(0.02)
    return report


def begins_to_compute(report: Report) -> bool:
    return report.progress is not None and report.progress.fraction > 0


def test_killed_workers_job_goes_on_to_the_result_of_an_undisturbed_one(
    reports: ReportJobs, folder: Path, begin: Begin
) -> None:
    killed, whole = (reports.create(_SMALL).name for _ in range(2))
    process = begin()
    seen = wait_for(reports, killed, begins_to_compute)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert seen.progress is not None
    assert seen.progress.fraction < 1
    parts = {
        path.name: path.stat().st_mtime_ns for path in _home(folder, killed).glob("parts/*.json")
    }
    assert parts
    assert begin("--until-idle").wait(_WAIT_SECONDS) == 0
    for name in (killed, whole):
        report = reports.get(name)
        assert report.state is ReportState.SUCCEEDED, report
        assert report.response is not None
        assert any("3 images are too few" in text for text in report.response.warnings)
        metrics = {metric.name: metric for metric in report.response.metrics}
        assert metrics.keys() == {"accuracy", "attack_ara", "btr_ara"}
        assert metrics["attack_ara"].image_count == 3
        assert report.progress is not None
        assert (report.progress.fraction, report.progress.images_done) == (1.0, 3)
        for file in report.response.files:
            content = (_home(folder, name) / file.name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file.sha256
        assert verify_folder(_home(folder, name)).is_genuine
    ledgers = [(_home(folder, name) / "ledger.parquet").read_bytes() for name in (killed, whole)]
    assert ledgers[0] == ledgers[1]
    for name, written in parts.items():
        path = _home(folder, killed) / "parts" / name
        assert path.stat().st_mtime_ns == written, "computed twice"


def test_running_job_is_cancelled_and_the_next_given_back_on_sigterm(
    store: Store,
    reports: ReportJobs,
    folder: Path,
    model: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One block of a job is minutes of work: both ends have to come within a block.
    long = _SMALL.model_copy(update={"image_count": 24, "steps": 2000, "batch_size": 24})
    first, second = (reports.create(long).name for _ in range(2))
    monkeypatch.setenv("CANDOR_DATA", str(data_root))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(_REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = StackConfig(
        store_url=Secret(store.address), reports_dir=folder, models_dir=model.parent
    )
    worker = start_report_worker(config, tmp_path)  # as `candor serve --report-worker` does
    try:
        wait_for(reports, first, lambda report: report.progress is not None)
        assert psutil.Process(worker.popen.pid).nice() == 19
        assert reports.cancel(first).state is ReportState.RUNNING
        cancelled = wait_for(reports, first, lambda report: report.done)
        assert cancelled.state is ReportState.CANCELLED
        assert cancelled.error is cancelled.response is None
        wait_for(reports, second, lambda report: report.progress is not None)
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.popen.wait(_WAIT_SECONDS) == 0
    finally:
        worker.stop(0.0)
    assert reports.get(second).state is ReportState.QUEUED


def test_serving_with_a_report_worker_needs_a_store() -> None:
    result = CliRunner().invoke(build_app(), ["serve", "--report-worker"])
    assert result.exit_code == 1
    assert "store: expected a path or URL" in result.stderr


@pytest.fixture
def worker(
    store: Store,
    folder: Path,
    model: Path,
    data_root: Path,
    tmp_path: Path,
) -> Worker:
    """In this process, for jobs that end soon; its models are a copy, to be damaged."""
    folder.mkdir()
    shutil.copytree(model, tmp_path / "models" / model.name)
    return Worker(
        queue=JobQueue(store, "here", lease_seconds=60.0),
        reports=folder,
        models_dir=tmp_path / "models",
        data_dir=data_root,
        key=Ed25519PrivateKey.generate(),
        lease_seconds=60.0,
        stopping=threading.Event(),
    )


def test_job_in_which_an_attack_failed_is_not_complete(
    reports: ReportJobs, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> None:
        raise RuntimeError("view size is not compatible")

    def all_right(*arguments: Any, **options: Any) -> ImageSet:
        """Where the model is wrong anyway, no attack is needed."""
        data = load_for_model(*arguments, **options)
        network = load_model(worker.models_dir / "tiny").network.eval()
        assert isinstance(data, ImageSet)
        return replace(data, labels=network(data.images(slice(None))).argmax(1))

    monkeypatch.setattr(library, "_run_one", failing)
    monkeypatch.setattr(compacted, "attack_rows", failing)
    monkeypatch.setattr(session, "load_for_model", all_right)
    name = reports.create(_SMALL.model_copy(update={"attacks": ("paper", "square")})).name
    worker.run(until_idle=True)
    report = reports.get(name)
    assert report.state is ReportState.INCOMPLETE, report
    assert report.response is not None
    (failed,) = report.response.not_tried
    assert (failed.attack, failed.reasons) == (
        "square",
        ("RuntimeError: view size is not compatible",),
    )
    assert report.response.warnings[0].startswith("square failed on")
    paired = reports.create(_SMALL.model_copy(update={"compare": name})).name
    worker.run(until_idle=True)
    other = reports.get(paired)
    assert other.state is ReportState.SUCCEEDED, other
    assert other.response is not None
    assert any("is not complete: square failed on" in text for text in other.response.warnings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_count": 25}, "image_count: expected [2, 24], got 25"),
        ({"data": "jsrt"}, "data: got 'jsrt'; "),
        ({"model": "gone"}, "model: got 'gone'; "),
        ({"model": "damaged"}, "model: got 'damaged'; "),
        ({"independent": "gone"}, "independent: got 'gone'; "),
        ({"undefended": "gone"}, "undefended: got 'gone'; "),
        ({"compare": "reports/" + "0" * 32}, "compare: got 'reports/0000"),
    ],
)
def test_failed_job_says_in_one_sentence_why(
    reports: ReportJobs,
    worker: Worker,
    fields: dict[str, Any],
    message: str,
) -> None:
    name = reports.create(_SMALL.model_copy(update=fields)).name
    damaged = worker.models_dir / "damaged"
    shutil.copytree(worker.models_dir / "tiny", damaged, dirs_exist_ok=True)
    (damaged / "weights.safetensors").write_bytes(b"evil")
    worker.run(until_idle=True)
    report = reports.get(name)
    assert report.state is ReportState.FAILED
    assert report.error is not None
    assert report.error.message.startswith(message)
    assert "Traceback" not in report.error.message
    assert "\n" not in report.error.message


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ZeroDivisionError("secret"), "internal error (ZeroDivisionError), see the worker's log"),
        (ValueError("secret\nof a library"), "internal error (ValueError), see the worker's log"),
        (MemoryError(), "the worker has too little memory, see the worker's log for reports/"),
        (OSError(errno.EIO, "I/O error", "/secret"), "read or write a file (I/O error), see the"),
    ],
)
def test_an_unexpected_failure_is_reported_without_its_trace(
    reports: ReportJobs,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    message: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr("candor.jobs.report_worker.prepare", fail)
    name = reports.create(_SMALL).name
    worker.run(until_idle=True)
    error = reports.get(name).error
    assert error is not None
    assert message in error.message
    assert "secret" not in error.message
    assert "Traceback" in caplog.text


def test_failed_block_names_its_place_and_the_log(
    reports: ReportJobs, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("candor.audit.sections.attacks.verify", fail)
    name = reports.create(_SMALL.model_copy(update={"steps": 1})).name
    worker.run(until_idle=True)
    error = reports.get(name).error
    assert error is not None
    assert error.message == (
        f"paper on images 0 to 0: internal error (KeyError), see the worker's log for {name}"
    )


def test_job_waits_for_space_and_goes_on(reports: ReportJobs, worker: Worker, disk: Path) -> None:
    here = replace(worker, reports=disk)
    ballast = disk / "ballast"
    fill_up(ballast)
    cancelled, kept = (reports.create(_SMALL.model_copy(update={"steps": 1})).name for _ in "12")
    waiting = threading.Thread(
        target=_free_when_it_waits, args=(reports, cancelled, kept, ballast), daemon=True
    )
    waiting.start()
    here.run(until_idle=True)
    waiting.join()
    assert reports.get(cancelled).state is ReportState.CANCELLED
    report = reports.get(kept)
    assert report.state is ReportState.SUCCEEDED, report
    assert verify_folder(_home(disk, kept)).is_genuine
    assert not (disk / ".space").exists()


def _free_when_it_waits(reports: ReportJobs, cancelled: str, kept: str, ballast: Path) -> None:
    def waits(report: Report) -> bool:
        return report.progress is not None and report.progress.stage == "waits for disk space"

    try:
        wait_for(reports, cancelled, waits)
        reports.cancel(cancelled)
        wait_for(reports, kept, waits)
    finally:
        ballast.unlink()


def test_job_started_by_other_code_starts_again(
    reports: ReportJobs, worker: Worker, folder: Path
) -> None:
    name = reports.create(_SMALL.model_copy(update={"steps": 2})).name
    digest = "0" * 64
    other = AuditPlan(
        weights_sha256=digest,
        data="cifar10/test",
        data_sha256=digest,
        code_sha256=digest,
        image_count=3,
        stages=("clean", "paper"),
        batch_size=1,
    )
    Ledger(_home(folder, name), other).write(Block("clean", 0, 1), [], 0.0)
    worker.run(until_idle=True)
    assert reports.get(name).state is ReportState.SUCCEEDED


def _home(folder: Path, name: str) -> Path:
    return folder / name.removeprefix("reports/")
