"""Options of `candor explain` that are for folders of images alone, or for one image alone."""

from collections.abc import Iterable
from typing import Annotated

import typer

from candor.cli.store_options import STORE_VARIABLE, note_password
from candor.contracts import limits

_PANEL = "For a folder of images"
MeasureRadius = Annotated[
    bool,
    typer.Option(
        "--measure-radius",
        help="How little each image must change before the network errs, too.",
        rich_help_panel=_PANEL,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        help=f"Images computed together, [1, {limits.MAX_REPORT_BATCH}].", rich_help_panel=_PANEL
    ),
]
FolderCompiles = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Default: where it pays, from 50,000 steps.",
        rich_help_panel=_PANEL,
    ),
]
FolderStore = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        callback=note_password,
        help="By which processes on several machines share the images: postgresql://USER@HOST/NAME."
        "  Default: a file in --out, for processes of one machine.",
        rich_help_panel=_PANEL,
    ),
]
_FOLDER_ALONE = (
    *("measure_radius", "batch_size", "compiles", "store", "lease_seconds"),
    *("ray", "actors", "actor_gpus"),
)
_ONE_IMAGE_ALONE = ("against", "away_from", "away_from_index", "mask", "box", "outside", "top_k")


def check_for_one_image(ctx: typer.Context) -> None:
    """Raises: ValueError: an option that is for folders alone."""
    _check(ctx, _FOLDER_ALONE, "a folder of images", "one image")


def check_for_folder(ctx: typer.Context) -> None:
    """Raises: ValueError: an option that is for one image alone."""
    _check(ctx, _ONE_IMAGE_ALONE, "one image", "a folder of images")


def _check(ctx: typer.Context, names: Iterable[str], expected: str, got: str) -> None:
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            field = name.replace("_", "-")
            raise ValueError(f"{field}: expected {expected} with this option, got {got}")
