"""The command `candor import-released`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.output import AsJson, console, print_json
from candor.models.families import released


def import_released(
    file: Annotated[Path, typer.Argument(help="A checkpoint released by the paper's authors.")],
    out: Annotated[
        Path | None, typer.Option(help="Model folder to write; default runs/released/NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name; default: the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a released checkpoint into a model folder without running any code it names."""
    model_name = name or file.stem.lower().replace("_", "-")
    folder = out or Path("runs") / "released" / model_name
    card = released.import_released(file, folder, model_name)
    if as_json:
        print_json(card.model_dump(mode="json"))
    else:
        console().print(f"{folder}: {card.network.architecture}, weights {card.weights_sha256}")
