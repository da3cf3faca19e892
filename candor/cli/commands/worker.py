"""The commands `candor archives` and `candor worker`, for containers."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from candor.stack.archives import ARCHIVES_DIR, MODELS_DIR, build_archives
from candor.stack.errors import ArchiveError, StackError
from candor.stack.torchserve import (
    LOOPBACK,
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


def archives(
    models_dir: _ModelsDir = MODELS_DIR, archives_dir: _ArchivesDir = ARCHIVES_DIR
) -> None:
    """Build the TorchServe archives of every model, where they are not up to date."""
    typer.echo(" ".join(_build("archives", models_dir, archives_dir)))


def worker(
    models_dir: _ModelsDir = MODELS_DIR,
    archives_dir: _ArchivesDir = ARCHIVES_DIR,
    run_dir: Annotated[
        Path | None, typer.Option(help="Takes what TorchServe writes; default a temporary folder.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address its metrics are read at; the rest stays on loopback.")
    ] = LOOPBACK,
    search_workers: SearchWorkers = 1,
) -> None:
    """Become TorchServe with every model of the store, without the gateway."""
    models = _build("worker", models_dir, archives_dir)
    folder = run_dir or Path(tempfile.mkdtemp(prefix="candor-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        launch = prepare_launch(
            archives_dir,
            models,
            STANDARD_PORTS,
            folder,
            metrics_host,
            search_workers=search_workers,
        )
    except StackError as err:
        raise _failed("worker", err) from err
    # In place of this process: as the first of a container the JVM then gets SIGTERM itself.
    os.execve(launch.command[0], launch.command, launch.environment)


def _build(command: str, models_dir: Path, archives_dir: Path) -> tuple[str, ...]:
    try:
        return build_archives(models_dir, archives_dir)
    except (ArchiveError, OSError) as err:
        raise _failed(command, err) from err


def _failed(command: str, err: Exception) -> typer.Exit:
    Console(stderr=True).print(f"candor {command}: {err}", style="red", markup=False)
    return typer.Exit(1)
