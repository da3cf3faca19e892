"""How `candor reports` and `candor explanation-jobs` show a job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from candor.cli.output import NOT_COMPLETE, console, print_json
from candor.contracts.explanation_jobs import ExplanationJob
from candor.contracts.reports import Report, ReportState
from candor.jobs.remote import JobT, summary


def show_report(report: Report, as_json: bool) -> None:
    """State, warnings and metrics of a report's job."""
    if _shown_plainly(report, as_json):
        return
    result = report.response
    for text in result.warnings if result else ():
        console().print(f"  {text}", style="yellow", markup=False, soft_wrap=True)
    for metric in result.metrics if result else ():
        text = f"  {metric.name} {metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]"
        console().print(f"{text}, n = {metric.image_count}", markup=False, soft_wrap=True)


def show_explanation_job(job: ExplanationJob, as_json: bool) -> None:
    """State and result of a job over many images."""
    if _shown_plainly(job, as_json) or job.response is None:
        return
    result = job.response
    text = f"  {result.image_count} images, {result.flip_count} flips"
    if result.error_count:
        text += f", {result.error_count} without an explanation"
    if result.median_radius is not None:
        text += f", median radius {result.median_radius:.5f}"
    console().print(text, soft_wrap=True)


def _shown_plainly(job: Report | ExplanationJob, as_json: bool) -> bool:
    """Shows the job as JSON, or its first line; whether that was all."""
    if as_json:
        print_json(job.model_dump(mode="json"))
    else:
        console().print(summary(job), markup=False, soft_wrap=True)
    return as_json


def exit_as(report: Report | ExplanationJob) -> None:
    """Raises: typer.Exit: 1 for a job that ended without a report, 3 for one not complete."""
    if report.state in (ReportState.FAILED, ReportState.CANCELLED):
        raise typer.Exit(1)
    if isinstance(report, Report) and report.response and report.response.not_tried:
        names = ", ".join(failed.attack for failed in report.response.not_tried)
        text = f"candor reports: not complete, {names} failed on some images"
        console().print(text, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(NOT_COMPLETE)


@contextmanager
def shown_progress(job: JobT) -> Iterator[Callable[[JobT], None]]:
    """A line of a terminal that shows the states it is given; silent elsewhere."""
    screen = console()
    if not screen.is_terminal:
        yield lambda state: None
        return
    with screen.status(job.name) as status:
        yield lambda state: status.update(summary(state))
