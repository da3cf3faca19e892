"""How `candor reports` shows a job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from candor.cli.output import NOT_COMPLETE, console, print_json
from candor.contracts.reports import Report, ReportState
from candor.jobs.remote import summary


def show_report(report: Report, as_json: bool) -> None:
    """State, warnings and metrics of a job."""
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    console().print(summary(report), markup=False, soft_wrap=True)
    result = report.response
    for text in result.warnings if result else ():
        console().print(f"  {text}", style="yellow", markup=False, soft_wrap=True)
    for metric in result.metrics if result else ():
        text = f"  {metric.name} {metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]"
        console().print(f"{text}, n = {metric.image_count}", markup=False, soft_wrap=True)


def exit_as(report: Report) -> None:
    """Raises: typer.Exit: 1 for a job that ended without a report, 3 for one not complete."""
    if report.state in (ReportState.FAILED, ReportState.CANCELLED):
        raise typer.Exit(1)
    if report.state is ReportState.INCOMPLETE and report.response is not None:
        names = ", ".join(failed.attack for failed in report.response.not_tried)
        text = f"candor reports: not complete, {names} failed on some images"
        console().print(text, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(NOT_COMPLETE)


@contextmanager
def shown_progress(report: Report) -> Iterator[Callable[[Report], None]]:
    """A line of a terminal that shows the states it is given; silent elsewhere."""
    screen = console()
    if not screen.is_terminal:
        yield lambda state: None
        return
    with screen.status(report.name) as status:
        yield lambda state: status.update(summary(state))
