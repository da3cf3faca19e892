"""The command `candor explain`."""

from typing import Annotated

import typer

from candor import terms
from candor.cli.client import (
    Address,
    ModelName,
    as_request,
    class_values,
    image_value,
    open_client,
)
from candor.cli.output import AsJson, print_json
from candor.cli.query_options import Image, ModelDir, OutDir, Seed, Solver, Steps, TopK
from candor.cli.query_tables import show_explanations
from candor.contracts import api, limits
from candor.viz.response_files import save_explanations


def explain(
    image: Image,
    target: Annotated[
        list[str] | None, typer.Option(help="Class name, or #INDEX; may be repeated.")
    ] = None,
    target_index: Annotated[
        list[int] | None, typer.Option(help="Class index from 0; may be repeated.")
    ] = None,
    rho: Annotated[
        list[float] | None, typer.Option(help="RMSE to change by, (0, 1]; may be repeated.")
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Less of the class instead of more.")
    ] = False,
    model: ModelDir = None,
    address: Address = None,
    name: ModelName = "",
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    top_k: TopK = limits.DEFAULT_TOP_K,
    out: OutDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the image changed by RMSE rho so that the network says the target."""
    values = {
        "model": name,
        "image": image_value(image),
        "targets": class_values("target", target, target_index),
        "rhos": rho or [],
        "direction": api.Direction.AGAINST if against else api.Direction.FOR,
        **({} if steps is None else {"steps": steps}),
        "solver": solver,
        "seed": seed,
        "top_k": top_k,
    }
    with open_client(model, address) as client:
        response = client.explain(as_request(api.ExplainRequest, values))
    if out is not None:
        save_explanations(out, response)
    if as_json:
        print_json(response.model_dump(mode="json"))
    else:
        show_explanations(image, response)
