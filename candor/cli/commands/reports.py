"""`candor reports`: report jobs of a running service."""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from candor.cli.commands.query import (
    DEFAULT_ADDRESS,
    Address,
    ModelName,
    as_request,
    service_client,
)
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import limits
from candor.contracts.reports import (
    CreateReportRequest,
    ListReportsRequest,
    Report,
    ReportState,
)

if TYPE_CHECKING:
    from candor.client.sync import CandorClient

app = typer.Typer(help="Robustness reports as jobs of a running service.", no_args_is_help=True)

JobName = Annotated[str, typer.Argument(help="reports/ID, as `create` and `list` show it.")]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the report's files.")]

_POLL_SECONDS = 2.0


@app.command()
def create(
    name: ModelName = "",
    data: Annotated[str, typer.Option(help=f"One of {limits.DATA_SETS}.")] = "cifar10",
    images: Annotated[int, typer.Option(help="Test images.")] = limits.DEFAULT_REPORT_IMAGES,
    attacks: Annotated[str, typer.Option(help="By name, with commas; default: all.")] = "",
    attacks_only: Annotated[bool, typer.Option("--attacks-only")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small budgets, for a look.")] = False,
    seed: int = 0,
    steps: Annotated[int | None, typer.Option(help="Of the solvers.")] = None,
    batch_size: int = limits.DEFAULT_REPORT_BATCH,
    compare: Annotated[str, typer.Option(help="reports/ID of a finished one.")] = "",
    key: Annotated[str, typer.Option(help="Same key and options, same job.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    out: OutDir = None,
    address: Address = DEFAULT_ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Ask for a report; with --wait and --out fetch its files when it is done."""
    with clear_errors("reports create"), service_client(address) as client:
        values = {
            "model": name,
            "data": data,
            "image_count": images,
            "attacks": [word.strip() for word in attacks.split(",") if word.strip()],
            "attacks_only": attacks_only,
            "quick": quick,
            "seed": seed,
            "steps": steps,
            "batch_size": batch_size,
            "compare": compare,
            "idempotency_key": key,
        }
        report = client.create_report(as_request(CreateReportRequest, values))
        if wait or out is not None:
            report = _wait(client, report)
        if out is not None:
            _download(client, report, out)
        _show(report, as_json)


@app.command("list")
def list_(
    state: Annotated[ReportState | None, typer.Option(help="Only those.")] = None,
    count: Annotated[
        int, typer.Option(min=1, max=limits.MAX_PAGE_SIZE, help="The newest so many.")
    ] = limits.DEFAULT_PAGE_SIZE,
    address: Address = DEFAULT_ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Jobs, the newest first."""
    with clear_errors("reports list"), service_client(address) as client:
        page = client.list_reports(ListReportsRequest(page_size=count, state=state))
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        for report in page.reports:
            _show(report, as_json)


@app.command()
def show(name: JobName, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Where a job stands and what came of it."""
    with clear_errors("reports show"), service_client(address) as client:
        _show(client.get_report(name), as_json)


@app.command()
def cancel(name: JobName, address: Address = DEFAULT_ADDRESS, as_json: AsJson = False) -> None:
    """Stop a job; one that has ended stays as it is."""
    with clear_errors("reports cancel"), service_client(address) as client:
        _show(client.cancel_report(name), as_json)


@app.command()
def download(
    name: JobName,
    out: Annotated[Path, typer.Option(help="Folder for the report's files.")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Fetch every file of a report that succeeded; `candor verify` then checks the signature."""
    with clear_errors("reports download"), service_client(address) as client:
        _download(client, client.get_report(name), out)


def _wait(client: "CandorClient", report: Report) -> Report:
    from rich.status import Status

    screen = console()
    status: AbstractContextManager[Status | None] = nullcontext()
    if screen.is_terminal:
        status = screen.status(report.name)
    with status as shown:
        while not report.done:
            time.sleep(_POLL_SECONDS)
            report = client.get_report(report.name)
            if shown is not None:
                shown.update(_line(report))
    return report


def _download(client: "CandorClient", report: Report, out: Path) -> None:
    if report.response is None:
        raise ValueError(f"{report.name}: got {_line(report)}, allowed one that succeeded")
    out.mkdir(parents=True, exist_ok=True)
    for file in report.response.files:
        # The service names the files: only the last part of a name is heeded.
        partial = out / f"{Path(file.name).name}.partial"
        with partial.open("wb") as stream:
            stream.writelines(client.download_report(report.name, file.name))
        partial.replace(out / Path(file.name).name)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    console().print(_line(report), markup=False, soft_wrap=True)
    result = report.response
    for text in result.warnings if result else ():
        console().print(f"  {text}", style="yellow", markup=False, soft_wrap=True)
    for metric in result.metrics if result else ():
        text = f"  {metric.name} {metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]"
        console().print(f"{text}, n = {metric.image_count}", markup=False, soft_wrap=True)


def _line(report: Report) -> str:
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
