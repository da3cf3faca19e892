"""The commands `candor explanation-jobs`: many images explained by the workers of a service."""

from pathlib import Path
from typing import Annotated

import typer

from candor import terms
from candor.cli.client import Address, ModelName, as_request, class_value, service_client
from candor.cli.output import AsJson, print_json
from candor.cli.query_options import Seed, Solver, Steps
from candor.cli.report_output import exit_as, show_explanation_job, shown_progress
from candor.contracts import limits
from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ListExplanationJobsRequest,
)
from candor.contracts.reports import ReportState
from candor.jobs.remote import download_files, wait_for

app = typer.Typer(help="Explanations of many images as jobs of a service.", no_args_is_help=True)

JobName = Annotated[str, typer.Argument(help="explanation-jobs/ID, as `create` and `list` show.")]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the job's files.")]


@app.command()
def create(
    folder: Annotated[str, typer.Argument(help="Folder of images, by the worker's name for it.")],
    name: ModelName = "",
    target: Annotated[
        str | None, typer.Option(help="Class, default of each image the one that comes second.")
    ] = None,
    target_index: Annotated[int | None, typer.Option(help="The same, by index from 0.")] = None,
    rho: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    norm: Annotated[terms.Norm, typer.Option(help="Of rho.")] = terms.Norm.L2,
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    measure_radius: Annotated[bool, typer.Option("--measure-radius")] = False,
    batch_size: int = limits.DEFAULT_REPORT_BATCH,
    key: Annotated[str, typer.Option(help="Same key and options, same job.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended.")] = False,
    out: OutDir = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Explain every image of a folder; with --wait and --out fetch the files when it is done."""
    values = {
        "model": name,
        "folder": folder,
        "target": class_value("target", target, target_index),
        "rho": rho,
        "norm": norm,
        **({} if steps is None else {"steps": steps}),
        "solver": solver,
        "seed": seed,
        "measure_radius": measure_radius,
        "batch_size": batch_size,
        "idempotency_key": key,
    }
    with service_client(address) as client:
        job = client.create_explanation_job(as_request(CreateExplanationJobRequest, values))
        if wait or out is not None:
            with shown_progress(job) as notify:
                job = wait_for(client.get_explanation_job, job, notify)
        if out is not None:
            download_files(client.download_explanation_job, job, out)
        show_explanation_job(job, as_json)
    exit_as(job)


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
        page = client.list_explanation_jobs(
            ListExplanationJobsRequest(page_size=count, state=state)
        )
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        for job in page.jobs:
            show_explanation_job(job, as_json)


@app.command()
def show(name: JobName, address: Address = None, as_json: AsJson = False) -> None:
    """Where a job stands and what came of it."""
    with service_client(address) as client:
        show_explanation_job(client.get_explanation_job(name), as_json)


@app.command()
def cancel(name: JobName, address: Address = None, as_json: AsJson = False) -> None:
    """Stop a job; one that has ended stays as it is."""
    with service_client(address) as client:
        show_explanation_job(client.cancel_explanation_job(name), as_json)


@app.command()
def download(
    name: JobName,
    out: Annotated[Path, typer.Option(help="Folder for the job's files.")],
    address: Address = None,
) -> None:
    """Fetch the files of a finished job; explanations.zip unpacks to the gallery."""
    with service_client(address) as client:
        job = client.get_explanation_job(name)
        download_files(client.download_explanation_job, job, out)
    exit_as(job)
