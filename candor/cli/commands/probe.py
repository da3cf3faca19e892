"""The command `candor probe`."""

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
    region_value,
)
from candor.cli.output import AsJson, print_json
from candor.cli.query_options import (
    BoxText,
    Image,
    Mask,
    ModelDir,
    OutDir,
    Outside,
    Seed,
    Solver,
    Steps,
    TopK,
)
from candor.cli.query_tables import show_probe
from candor.contracts import api, limits
from candor.viz.response_files import save_probe


def probe(
    image: Image,
    label: Annotated[
        str | None, typer.Option(help="True class, name or #INDEX; default what is predicted.")
    ] = None,
    label_index: Annotated[int | None, typer.Option(help="The same, by index from 0.")] = None,
    mask: Mask = None,
    box: BoxText = None,
    outside: Outside = False,
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
    """How little must the image change before the network errs (attack, BTR)?"""
    values = {
        "model": name,
        "image": image_value(image),
        "label": class_value("label", label, label_index),
        "region": region_value(mask, box, outside),
        **({} if steps is None else {"steps": steps}),
        "solver": solver,
        "seed": seed,
        "top_k": top_k,
    }
    with open_client(model, address) as client:
        response = client.probe(as_request(api.ProbeRequest, values))
    if out is not None:
        save_probe(out, response)
    if as_json:
        print_json(response.model_dump(mode="json"))
    else:
        show_probe(image, response)
