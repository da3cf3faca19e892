"""The command `candor compare`."""

from typing import Annotated

import typer

from candor import terms
from candor.cli.client import (
    Address,
    ModelName,
    as_request,
    class_value,
    image_value,
    open_client,
)
from candor.cli.output import AsJson, print_json
from candor.cli.query_options import Image, ModelDir, OutDir, Seed, Solver, Steps
from candor.cli.query_tables import show_comparison
from candor.contracts import api
from candor.viz.response_files import save_comparison


def compare(
    image: Image,
    target: Annotated[
        str | None, typer.Option(help="Class name, or #INDEX; default what is predicted.")
    ] = None,
    target_index: Annotated[int | None, typer.Option(help="The same, by index from 0.")] = None,
    rho: Annotated[
        float | None, typer.Option(help="RMSE of the adversarial explanation; default the model's.")
    ] = None,
    model: ModelDir = None,
    address: Address = None,
    name: ModelName = "",
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    out: OutDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare other explanations with the adversarial one, and measure how stable all are."""
    values = {
        "model": name,
        "image": image_value(image),
        "target": class_value("target", target, target_index),
        "rho": rho,
        **({} if steps is None else {"steps": steps}),
        "solver": solver,
        "seed": seed,
    }
    with open_client(model, address) as client:
        response = client.compare(as_request(api.CompareRequest, values))
    if out is not None:
        save_comparison(out, response)
    if as_json:
        print_json(response.model_dump(mode="json"))
    else:
        show_comparison(image, response)
