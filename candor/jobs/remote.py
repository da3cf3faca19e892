"""Jobs of a running service: waiting for one and fetching its files."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from candor.contracts.explanation_jobs import ExplanationJob
from candor.contracts.reports import Report, ReportProgress
from candor.files.reading import inside
from candor.files.writing import replacing

_POLL_SECONDS = 2.0
JobT = TypeVar("JobT", Report, ExplanationJob)


def wait_for(get: Callable[[str], JobT], job: JobT, notify: Callable[[JobT], None]) -> JobT:
    """The job once it has ended.

    Args:
        get: the client's method for jobs of this kind.
        notify: takes every state before that.
    """
    while not job.done:
        time.sleep(_POLL_SECONDS)
        job = get(job.name)
        notify(job)
    return job


def download_files(
    download: Callable[[str, str], Iterator[bytes]], job: Report | ExplanationJob, out: Path
) -> None:
    """Write every file of a finished job into ``out``, each one whole or not at all.

    Args:
        download: the client's method for jobs of this kind.
    Raises:
        ValueError: the job has no result.
        UnusableFile: the service names a file outside the folder.
        ServiceError: as ``download``.
    """
    if job.response is None:
        raise ValueError(f"{job.name}: expected a job with a result, got {summary(job)}")
    out.mkdir(parents=True, exist_ok=True)
    for file in job.response.files:
        with replacing(inside(out, file.name)) as stream:
            left = file.byte_count
            for part in download(job.name, file.name):
                left -= len(part)
                if left < 0:
                    raise ValueError(f"{file.name}: expected {file.byte_count} bytes, got more")
                stream.write(part)
            if left:
                got = file.byte_count - left
                raise ValueError(f"{file.name}: expected {file.byte_count} bytes, got {got}")


def summary(job: Report | ExplanationJob) -> str:
    """One line: name, model, state, progress, and why it failed."""
    words = [job.name, job.request.model, str(job.state)]
    progress = job.progress
    if progress is not None and not job.done:
        words.append(f"{progress.fraction:.0%} {progress.stage}")
        if isinstance(progress, ReportProgress) and progress.attack_ara is not None:
            words.append(f"attack ARA so far {progress.attack_ara:.4f}")
        if progress.seconds_left is not None:
            words.append(f"{progress.seconds_left:.0f} s left")
    if job.error is not None:
        words.append(job.error.message)
    return "  ".join(words)
