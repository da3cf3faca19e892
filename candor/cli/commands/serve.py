"""The command `candor serve`."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from candor.cli import output
from candor.cli.commands.worker import SearchWorkers
from candor.cli.output import AsJson, print_json
from candor.cli.store_options import STORE_VARIABLE, note_password
from candor.contracts.secrets import Secret
from candor.gateway.sockets import loopback
from candor.stack.archives import ARCHIVES_DIR, MODELS_DIR
from candor.stack.config import REPORTS_DIR, StackConfig, shared_search_workers
from candor.stack.supervisor import Stack
from candor.store.engine import store_url

_CHECK_SECONDS = 0.5
_SEARCH_WORKERS = shared_search_workers()


def serve(
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for gRPC.")] = 8500,
    rest_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for REST.")] = 8501,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; :: is every one, of IPv4 and IPv6.",
            show_default="this machine's loopback",
        ),
    ] = None,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    archives_dir: Annotated[
        Path, typer.Option(help="Where their TorchServe archives are kept.")
    ] = ARCHIVES_DIR,
    default_model: Annotated[
        str | None, typer.Option(help="Model of requests that name none.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar=STORE_VARIABLE,
            callback=note_password,
            help="Path or URL of the store; with it there are pages at /annotate and report jobs.",
        ),
    ] = None,
    reports: Annotated[
        Path, typer.Option(envvar="CANDOR_REPORTS_DIR", help="Folder of finished reports.")
    ] = REPORTS_DIR,
    report_worker: Annotated[
        bool,
        typer.Option(
            "--report-worker",
            envvar="CANDOR_REPORT_WORKER",
            help="Compute report jobs too, in a process of its own; needs --store.",
        ),
    ] = False,
    search_workers: SearchWorkers = _SEARCH_WORKERS,
    as_json: AsJson = False,
) -> None:
    """Serve every model of the store until Ctrl-C; then finish what runs and stop."""
    console = output.console(is_error=as_json)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    config = StackConfig(
        store_url=_checked_store(store, report_worker),
        reports_dir=reports,
        has_report_worker=report_worker,
        models_dir=models_dir,
        archives_dir=archives_dir,
        host=loopback() if host is None else host,
        grpc_port=grpc_port,
        rest_port=rest_port,
        default_model=default_model,
        shows_gateway_log=True,
        search_workers=search_workers,
        compiles=True,
    )
    try:
        _run(config, console, as_json)
    except KeyboardInterrupt:
        console.print("Stopped.")


def _checked_store(address: str | None, has_report_worker: bool) -> Secret | None:
    """Absolute, since the gateway runs in another folder."""
    if not address and has_report_worker:
        raise ValueError("store: expected a path or URL with --report-worker, got nothing")
    if not address:
        return None
    return Secret(store_url(address).render_as_string(hide_password=False))


def _run(config: StackConfig, console: Console, as_json: bool) -> None:
    console.print("Starting ...")
    with Stack(config) as stack:
        if as_json:
            print_json({"grpc": stack.grpc_address, "rest": stack.rest_url, "models": stack.models})
        try:
            _announce(stack, console)
            while True:
                stack.check()
                time.sleep(_CHECK_SECONDS)
        except KeyboardInterrupt:
            console.print("Finishing running requests ...")


def _announce(stack: Stack, console: Console) -> None:
    console.print(f"Ready. Models: {', '.join(stack.models)} (the first is the default)")
    console.print(f"  gRPC   {stack.grpc_address}   candor.v1")
    console.print(f"  REST   {stack.rest_url}   description at /docs")
    console.print(f"  pages  {stack.rest_url}/   the console")
    if stack.config.store_url:
        console.print(f"         {stack.rest_url}/annotate   for annotators")
        console.print(f"  jobs   {stack.rest_url}/v1/reports   robustness reports")
    console.print("Ctrl-C stops it.")
