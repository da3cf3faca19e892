"""The command `candor explain`."""

from pathlib import Path
from typing import Annotated

import typer

from candor import terms
from candor.cli import folder_options as many
from candor.cli import query_options as query
from candor.cli import share_options as shared
from candor.cli.client import (
    Address,
    ModelName,
    as_request,
    class_value,
    class_values,
    image_value,
    open_client,
    region_value,
)
from candor.cli.output import AsJson, print_json
from candor.cli.query_tables import show_explanations
from candor.contracts import api, limits
from candor.store.blocks import DEFAULT_LEASE_SECONDS
from candor.viz.response_files import save_explanations


def explain(
    ctx: typer.Context,
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP, or a folder of images.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Class name, or #INDEX; may be repeated.  For a folder one, or auto, the default: "
            "the class that comes second."
        ),
    ] = None,
    target_index: Annotated[
        list[int] | None, typer.Option(help="Class index from 0; may be repeated.")
    ] = None,
    rho: Annotated[
        list[float] | None,
        typer.Option(help="Size to change by, (0, 1], in --norm; may be repeated."),
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Less of the class instead of more.")
    ] = False,
    away_from: Annotated[
        str | None, typer.Option(help="Class to set the target against, name or #INDEX.")
    ] = None,
    away_from_index: Annotated[int | None, typer.Option(help="The same, by index from 0.")] = None,
    norm: Annotated[
        terms.Norm, typer.Option(help="In which --rho is measured; l2 is the RMSE.")
    ] = terms.Norm.L2,
    mask: query.Mask = None,
    box: query.BoxText = None,
    outside: query.Outside = False,
    model: query.ModelDir = None,
    address: Address = None,
    name: ModelName = "",
    steps: query.Steps = None,
    solver: query.Solver = terms.DEFAULT_SOLVER,
    seed: query.Seed = 0,
    top_k: query.TopK = limits.DEFAULT_TOP_K,
    out: query.OutDir = None,
    measure_radius: many.MeasureRadius = False,
    batch_size: many.BatchSize = limits.DEFAULT_REPORT_BATCH,
    compiles: many.FolderCompiles = None,
    store: many.FolderStore = "",
    lease_seconds: shared.LeaseSeconds = DEFAULT_LEASE_SECONDS,
    ray: shared.Ray = "",
    actors: shared.Actors = 1,
    actor_gpus: shared.ActorGpus = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show the image changed by rho so that the network says the target.

    Of a folder every image is explained, into --out: a table, the images and a gallery.  The same
    command goes on where a stopped one left off, and several processes share the images.
    """
    if image.is_dir():
        from candor.cli.explain_folder import explain_folder  # torch: not needed for a service

        explain_folder(ctx)
        return
    many.check_for_one_image(ctx)
    values = {
        "model": name,
        "image": image_value(image),
        "targets": class_values("target", target, target_index),
        "rhos": rho or [],
        "direction": api.Direction.AGAINST if against else api.Direction.FOR,
        "away_from": class_value("away-from", away_from, away_from_index),
        "norm": norm,
        "region": region_value(mask, box, outside),
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
