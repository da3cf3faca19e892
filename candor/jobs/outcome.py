"""What a job leaves in the store: the files and what was found, or why it failed."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from candor.audit.errors import AuditError, BlockFailed
from candor.audit.report.schema import Report
from candor.audit.report.signing import MANIFEST_FILE, SIGNATURE_FILE, verify_folder
from candor.audit.session import BadOption
from candor.contracts.card import MetricCard
from candor.contracts.radius import MEDIAN_RADIUS
from candor.contracts.reports import NotTried, ReportFile, ReportResult
from candor.files.reading import GIB, open_file

_REASON_CHARS = 500
_MAX_FILE_BYTES = 1024 * GIB


def report_result(report: Report, out: Path) -> ReportResult:
    """Files, metrics and warnings of the signed report in ``out``."""
    common: dict[str, Any] = {"data": report.data, "method": report.provenance.command}
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
    if report.median_radius is not None:
        radius = report.median_radius.model_dump()
        named = {"name": MEDIAN_RADIUS, **radius, **common}
        metrics.append(MetricCard.model_validate(named))
    names = (*verify_folder(out).files, MANIFEST_FILE, SIGNATURE_FILE)  # what is signed, and how
    failed = (NotTried.model_validate(each.model_dump()) for each in report.not_tried)
    return ReportResult(
        files=tuple(files_of(out, names)),
        metrics=tuple(metrics),
        warnings=tuple(report.warnings),
        not_tried=tuple(failed),
    )


def failure_reason(error: Exception, name: str) -> str:
    """One sentence for the client of job ``name``; an unexpected error names only the log."""
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


def files_of(out: Path, names: Iterable[str]) -> Iterator[ReportFile]:
    """Files of a folder as a job lists them.  Raises: OSError: one is missing or too large."""
    for name in names:
        with open_file(out / name, _MAX_FILE_BYTES) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            yield ReportFile(name=name, byte_count=stream.tell(), sha256=digest)
