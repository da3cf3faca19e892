"""The command `candor robustify`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.options import DataDir
from candor.cli.output import AsJson, console, print_json
from candor.cli.robustify_screen import record_of, show_comparison
from candor.cli.robustify_session import IMAGES, RobustifyRequest, run_robustify
from candor.contracts import limits
from training.budget import budget_share
from training.robustify import RobustifyOptions


def robustify(
    model: Annotated[Path, typer.Argument(help="Model folder, an imported one too.")],
    data: Annotated[str, typer.Option(help="Registered data set.")] = "folder",
    data_dir: DataDir = None,
    accuracy_budget: Annotated[
        str, typer.Option(help="Share of the test images that may be lost, such as 3% or 0.03.")
    ] = "3%",
    epochs: Annotated[int, typer.Option(min=1, max=100_000)] = 5,
    batch_size: Annotated[int, typer.Option(min=2, max=1_000_000)] = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, max=100.0, help="Peak.")] = 0.01,
    eps: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="RMSE of the attacks; default: by the budget."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, help=f"Test images attacked; default {IMAGES} or all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    run_dir: Annotated[
        Path | None, typer.Option(help="Checkpoint, log, both measurements; default runs/NAME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Model folder to write; default RUN_DIR/model.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the new model; default the old name and -robust.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune any model so that its explanations show something; repeated, it goes on."""
    options = RobustifyOptions(
        accuracy_budget=budget_share(accuracy_budget),
        eps=eps,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    request = RobustifyRequest(model, data, data_dir, options, images, run_dir, out, name)
    found = run_robustify(request)
    show_comparison(found)
    console().print(f"{found.model}; look at {found.folder / 'explained' / 'composite.png'}")
    if as_json:
        print_json(record_of(found))
