"""The commands `candor guideline ...`: the paper's guideline values."""

from typing import Annotated

import typer

from candor.cli.output import AsJson, print_json
from training.regularizers import output_zeroing_weight

app = typer.Typer(help="Guideline values of the paper's equations.", no_args_is_help=True)


@app.callback()
def guideline() -> None:
    """Guideline values of the paper's equations."""


@app.command("output-zeroing")
def output_zeroing(
    classes: Annotated[int, typer.Option(help="Number of classes, V.")],
    confidence: Annotated[
        float, typer.Option(help="Largest confidence to be learned, s_t, in (1/V, 1).")
    ] = 0.8,
    as_json: AsJson = False,
) -> None:
    """Weight of output zeroing, k_out of Eq. 14; the experiments' key output_zeroing."""
    weight = output_zeroing_weight(classes, confidence=confidence)
    if as_json:
        print_json({"classes": classes, "confidence": confidence, "output_zeroing": weight})
    else:
        typer.echo(f"{weight:.3g}")
