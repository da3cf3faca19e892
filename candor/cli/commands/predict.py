"""The command `candor predict`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.client import (
    Address,
    ModelName,
    as_request,
    image_value,
    open_client,
)
from candor.cli.output import AsJson, print_json
from candor.cli.query_options import Image, TopK
from candor.cli.query_tables import show_classes, title_of
from candor.contracts import api, limits


def predict(
    image: Image,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder, or ONNX file, to use in this process, no service."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="With --model: torch, or onnx (default of an ONNX file).")
    ] = None,
    address: Address = None,
    name: ModelName = "",
    top_k: TopK = limits.DEFAULT_TOP_K,
    as_json: AsJson = False,
) -> None:
    """What is this image?"""
    if runtime is not None and model is None:
        raise ValueError(f"runtime: expected only with --model, got {runtime!r}")
    values = {"model": name, "image": image_value(image), "top_k": top_k}
    with open_client(model, address, runtime) as client:
        response = client.predict(as_request(api.PredictRequest, values))
    if as_json:
        print_json(response.model_dump(mode="json"))
    else:
        show_classes(title_of(response.model, image), response.predictions)
