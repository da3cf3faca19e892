"""The command `candor export`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from candor.cli.options import DataDir
from candor.cli.output import AsJson, console, print_json
from candor.contracts import limits
from candor.models.folder import load_model
from candor.models.onnx.checked_export import ExportPlan, write_checked
from candor.runtime.chunks import predict_logits

_FORMATS = ("onnx",)


def export(
    model: Annotated[Path, typer.Argument(help="Model folder: weights and card.")],
    file_format: Annotated[str, typer.Option("--format", help=f"One of {_FORMATS}.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default NAME.onnx in this folder.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of every run; default: any number.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the check; default: the model's.")
    ] = None,
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the check.")] = 256,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of both runtimes, when timed.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write a model as one file for other runtimes, checked and timed against torch."""
    if file_format not in _FORMATS:
        raise ValueError(f"format: expected one of {_FORMATS}, got {file_format!r}")
    torch.set_num_threads(threads)
    loaded = load_model(model)
    path = out or Path(f"{loaded.card.name}.onnx")
    plan = ExportPlan(path, batch, data, data_dir, images, seed, threads)
    console().print("tracing the network, takes some seconds ...")
    summary = write_checked(loaded, plan, partial(predict_logits, loaded.network))
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _show(summary: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"{summary['file']}: {summary['bytes']} bytes, opset {summary['opset']}, "
        f"batch {summary['batch'] or 'any'}, weights {summary['weights_digest'][:12]}"
    )
    out.print(
        f"logits within {summary['largest_difference']:.1e} of torch's on {summary['images']} "
        f"images: {summary['checked_on']}"
    )
    threads = summary["threads"]
    table = Table(title=f"median milliseconds, {threads} thread{'s' if threads > 1 else ''} each")
    for heading in ("batch", "torch", "ONNX Runtime", "torch / ONNX Runtime"):
        table.add_column(heading, justify="right")
    for size, spent in summary["milliseconds"].items():
        ratio = spent["torch"] / spent["onnxruntime"]
        table.add_row(size, *(f"{value:.2f}" for value in spent.values()), f"{ratio:.2f}")
    out.print(table)
