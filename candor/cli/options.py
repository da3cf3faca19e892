"""Options that name a data set, shared by commands."""

from pathlib import Path
from typing import Annotated

import typer

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
