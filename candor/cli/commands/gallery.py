"""The command `candor gallery`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.output import console
from candor.explained.gallery import write_pages
from candor.explained.rows import TABLE_FILE


def gallery(
    folder: Annotated[Path, typer.Argument(help=f"Folder of explained images, with {TABLE_FILE}.")],
) -> None:
    """Make the pages of a folder of explained images anew from its table."""
    console().print(str(write_pages(folder)), soft_wrap=True)
