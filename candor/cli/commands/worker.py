"""The commands `candor archives` and `candor worker`, for containers."""

import os
from pathlib import Path
from typing import Annotated

import typer

from candor.stack.archives import ARCHIVES_DIR, MODELS_DIR, build_archives, model_folder
from candor.stack.config import shared_search_workers
from candor.stack.ports import require_free_torchserve_ports
from candor.stack.preflight import check_memory
from candor.stack.run_folder import run_folder
from candor.stack.torchserve import (
    SEARCH_WORKERS_VARIABLE,
    STANDARD_PORTS,
    prepare_launch,
)

_ModelsDir = Annotated[Path, typer.Option(help="Folder of model folders.")]
_ArchivesDir = Annotated[Path, typer.Option(help="Where their TorchServe archives are kept.")]
SearchWorkers = Annotated[
    int,
    typer.Option(
        envvar=SEARCH_WORKERS_VARIABLE,
        min=1,
        max=64,
        help="Of each model, sharing the cores; its gateway counts on as many.",
    ),
]

_SHARED = shared_search_workers()


def archives(
    models_dir: _ModelsDir = MODELS_DIR,
    archives_dir: _ArchivesDir = ARCHIVES_DIR,
    compiles: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile every model for this machine, too, minutes each; a start of the service "
            "then begins compiled.",
        ),
    ] = False,
    search_workers: SearchWorkers = _SHARED,
) -> None:
    """Build the TorchServe archives of every model, where they are not up to date."""
    names = build_archives(models_dir, archives_dir)
    typer.echo(" ".join(names))
    if compiles:
        from candor.stack.compile_ahead import compile_ahead  # torch

        for name in names:
            typer.echo(f"compiling {name} ...", err=True)
            compile_ahead(model_folder(models_dir, name), search_workers)


def worker(
    models_dir: _ModelsDir = MODELS_DIR,
    archives_dir: _ArchivesDir = ARCHIVES_DIR,
    run_dir: Annotated[
        Path | None, typer.Option(help="Takes what TorchServe writes; default a temporary folder.")
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            help="Address its metrics are read at; the rest stays on loopback.",
            show_default="loopback",
        ),
    ] = None,
    search_workers: SearchWorkers = 1,
) -> None:
    """Become TorchServe with every model of the store, without the gateway."""
    require_free_torchserve_ports(STANDARD_PORTS)
    models = build_archives(models_dir, archives_dir)
    check_memory(len(models), search_workers)
    launch = prepare_launch(
        archives_dir,
        models,
        STANDARD_PORTS,
        run_folder(run_dir),
        metrics_host=metrics_host,
        search_workers=search_workers,
        compiles=True,
    )
    # In place of this process: as the first of a container the JVM then gets SIGTERM itself.
    os.execve(launch.command[0], launch.command, launch.environment)
