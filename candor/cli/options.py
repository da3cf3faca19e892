"""Options that name a data set, shared by commands."""

from pathlib import Path
from typing import Annotated

import typer

from candor.data.images import Images
from candor.data.registry import default_data_dir, load_dataset

DataName = Annotated[str, typer.Option("--data", help="Registered data set.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="CANDOR_DATA",
        help="Folder of data sets; default: a cache folder of the user.",
    ),
]

Compiles = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Default: where it pays, from 50,000 steps."),
]


def open_dataset(name: str, split: str, data_dir: Path | None, *, image_size: int = 0) -> Images:
    """A split of a registered data set; the error names the folder and how to get missing data."""
    return load_dataset(name, split, data_dir or default_data_dir(), image_size=image_size)
