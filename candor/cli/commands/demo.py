"""The command `candor demo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from candor.cli import output
from candor.cli.output import AsJson, print_json
from candor.client.sync import CandorClient
from candor.images.photographs import Photograph, photographs
from candor.stack.archives import DEFAULT_MODEL, MODELS_DIR, PLAIN_MODEL
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack
from candor.viz.demo import View, compared_models, explained_views, view_record, write_views


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("out/demo"),
    photograph: Annotated[
        str | None,
        typer.Option(help="temple, flower, cat, horse, rocket, coffee or astronaut."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class to ask for; default what the photograph shows.")
    ] = None,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    default_model: Annotated[
        str | None, typer.Option("--model", help=f"Default: {DEFAULT_MODEL}, or the store's first.")
    ] = None,
    plain_model: Annotated[
        str, typer.Option("--plain", help="What it is compared with, where the store has it.")
    ] = PLAIN_MODEL,
    as_json: AsJson = False,
) -> None:
    """Start the service, explain a photograph, write the images and stop."""
    console = output.console(is_error=as_json)
    chosen = _photograph(photograph)
    config = StackConfig(
        models_dir=models_dir,
        default_model=default_model,
        models=(default_model or DEFAULT_MODEL, plain_model),
    )
    console.print("Starting the service, takes some seconds ...")
    with Stack(config) as stack:
        compared = compared_models(stack.models, plain_model)
        console.print(f"Explaining {chosen.shows} with {' and '.join(compared)} ...")
        with CandorClient(stack.grpc_address) as client:
            views = explained_views(client, chosen, compared, target)
    write_views(out, views)
    _show(console, views)
    if as_json:
        print_json([view_record(view) for view in views])
    console.print(f"Look at {out / 'composite.png'}; everything else is beside it.")


def _photograph(name: str | None) -> Photograph:
    """The one of this name, or the first that is installed."""
    found = {one.name: one for one in photographs()}
    if name is None:
        return next(iter(found.values()))
    if name not in found:
        expected = ", ".join(found)
        raise typer.BadParameter(
            f"expected one of {expected}, got {name!r}", param_hint="--photograph"
        )
    return found[name]


def _show(console: Console, views: Sequence[View]) -> None:
    table = Table("model", "says", "falls at RMSE", "towards", "confidence", "RMSE", "then says")
    for view in views:
        likely = view.response.predictions_before[0]
        first = (view.model, f"{likely.name} {likely.confidence:.1%}", view.radius)
        for change in view.changes:
            found = change.explanation
            table.add_row(
                *first,
                change.name,
                f"{found.confidence_before:.1%} -> {found.confidence_after:.1%}",
                f"{found.rmse:.4f} of {found.rho:g}",
                f"{found.predicted_after.name} {found.predicted_after.confidence:.1%}",
            )
            first = ("", "", "")
    console.print(table)
