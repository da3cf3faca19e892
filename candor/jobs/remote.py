"""Report jobs of a running service: waiting for one and fetching its files."""

import time
from collections.abc import Callable
from pathlib import Path

from candor.client.sync import CandorClient
from candor.contracts.reports import Report
from candor.files.writing import replacing

_POLL_SECONDS = 2.0


def wait_for(client: CandorClient, report: Report, notify: Callable[[Report], None]) -> Report:
    """The job once it has ended; ``notify`` takes every state before that."""
    while not report.done:
        time.sleep(_POLL_SECONDS)
        report = client.get_report(report.name)
        notify(report)
    return report


def download_files(client: CandorClient, report: Report, out: Path) -> None:
    """Write every file of a finished report into ``out``, each one whole or not at all.

    Raises:
        ValueError: the job has no report.
        ServiceError: see `CandorClient.download_report`.
    """
    if report.response is None:
        raise ValueError(f"{report.name}: expected a job with a report, got {summary(report)}")
    out.mkdir(parents=True, exist_ok=True)
    for file in report.response.files:
        # The service names the files: only the last part of a name is used.
        with replacing(out / Path(file.name).name) as stream:
            left = file.byte_count
            for part in client.download_report(report.name, file.name):
                left -= len(part)
                if left < 0:
                    raise ValueError(f"{file.name}: expected {file.byte_count} bytes, got more")
                stream.write(part)
            if left:
                got = file.byte_count - left
                raise ValueError(f"{file.name}: expected {file.byte_count} bytes, got {got}")


def summary(report: Report) -> str:
    """One line: name, model, state, progress, and why it failed."""
    words = [report.name, report.request.model, str(report.state)]
    progress = report.progress
    if progress is not None and not report.done:
        words.append(f"{progress.fraction:.0%} {progress.stage}")
        if progress.attack_ara is not None:
            words.append(f"attack ARA so far {progress.attack_ara:.4f}")
        if progress.seconds_left is not None:
            words.append(f"{progress.seconds_left:.0f} s left")
    if report.error is not None:
        words.append(report.error.message)
    return "  ".join(words)
