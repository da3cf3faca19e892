"""Options that name a data set, shared by commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from candor.data.images import Images

DataName = Annotated[str, typer.Option("--data", help="Registered data set.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="CANDOR_DATA",
        help="Folder of data sets; default: a cache folder of the user.",
    ),
]


def open_dataset(name: str, split: str, data_dir: Path | None, *, image_size: int = 0) -> "Images":
    """A split of a registered data set; says where it looked and how to get what is missing."""
    from candor.data.registry import default_data_dir, load_dataset

    return load_dataset(name, split, data_dir or default_data_dir(), image_size=image_size)
