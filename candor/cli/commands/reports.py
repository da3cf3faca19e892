"""The commands `candor reports ...`: report jobs of a running service."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.client import Address, ModelName, as_request, service_client
from candor.cli.output import AsJson, print_json
from candor.cli.report_output import exit_as, show_report, shown_progress
from candor.contracts import limits
from candor.contracts.reports import CreateReportRequest, ListReportsRequest, ReportState
from candor.jobs.remote import download_files, wait_for

app = typer.Typer(help="Robustness reports as jobs of a running service.", no_args_is_help=True)

JobName = Annotated[str, typer.Argument(help="reports/ID, as `create` and `list` show it.")]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the report's files.")]


@app.command()
def create(
    name: ModelName = "",
    data: Annotated[str, typer.Option(help=f"One of {limits.DATA_SETS}.")] = "cifar10",
    images: Annotated[int, typer.Option(help="Test images.")] = limits.DEFAULT_REPORT_IMAGES,
    attacks: Annotated[str, typer.Option(help="By name, with commas; default: all.")] = "",
    attacks_only: Annotated[bool, typer.Option("--attacks-only")] = False,
    budget: Annotated[str, typer.Option(help=f"One of {limits.BUDGETS}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The same as --budget quick.")] = False,
    seed: int = 0,
    steps: Annotated[int | None, typer.Option(help="Of the solvers.")] = None,
    batch_size: int = limits.DEFAULT_REPORT_BATCH,
    compare: Annotated[str, typer.Option(help="reports/ID of a finished one.")] = "",
    key: Annotated[str, typer.Option(help="Same key and options, same job.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    out: OutDir = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a report; with --wait and --out fetch its files when it is done."""
    with service_client(address) as client:
        values = {
            "model": name,
            "data": data,
            "image_count": images,
            "attacks": [word.strip() for word in attacks.split(",") if word.strip()],
            "attacks_only": attacks_only,
            "quick": quick,
            **({"budget": budget} if budget else {}),
            "seed": seed,
            "steps": steps,
            "batch_size": batch_size,
            "compare": compare,
            "idempotency_key": key,
        }
        report = client.create_report(as_request(CreateReportRequest, values))
        if wait or out is not None:
            with shown_progress(report) as notify:
                report = wait_for(client.get_report, report, notify)
        if out is not None:
            download_files(client.download_report, report, out)
        show_report(report, as_json)
    exit_as(report)


@app.command("list")
def list_(
    state: Annotated[ReportState | None, typer.Option(help="Only those.")] = None,
    count: Annotated[
        int, typer.Option(min=1, max=limits.MAX_PAGE_SIZE, help="The newest so many.")
    ] = limits.DEFAULT_PAGE_SIZE,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, the newest first."""
    with service_client(address) as client:
        page = client.list_reports(ListReportsRequest(page_size=count, state=state))
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        for report in page.reports:
            show_report(report, as_json)


@app.command()
def show(name: JobName, address: Address = None, as_json: AsJson = False) -> None:
    """Where a job stands and what came of it."""
    with service_client(address) as client:
        show_report(client.get_report(name), as_json)


@app.command()
def cancel(name: JobName, address: Address = None, as_json: AsJson = False) -> None:
    """Stop a job; one that has ended stays as it is."""
    with service_client(address) as client:
        show_report(client.cancel_report(name), as_json)


@app.command()
def download(
    name: JobName,
    out: Annotated[Path, typer.Option(help="Folder for the report's files.")],
    address: Address = None,
) -> None:
    """Fetch every file of a finished report; `candor verify` then checks the signature."""
    with service_client(address) as client:
        report = client.get_report(name)
        download_files(client.download_report, report, out)
    exit_as(report)
