"""The command `candor import`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.importing import (
    MOST_IMAGES,
    ImportRequest,
    import_model,
    preprocessing_of,
    size_of,
)
from candor.cli.output import AsJson, console, print_json
from candor.contracts.card import ModelCard
from candor.contracts.radius import MEDIAN_RADIUS
from candor.files.reading import MIB, read_text
from candor.robustness.acceptance import LEAST_IMAGES


def import_(
    source: Annotated[
        Path, typer.Argument(help="Folder of timm or transformers, weights, ONNX, checkpoint.")
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    architecture: Annotated[
        str | None, typer.Option(help="timm/NAME, torchvision/NAME or robust/NAME of weights.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name; default: the folder's.")] = None,
    model_version: Annotated[str, typer.Option("--version", help="Of the model.")] = "1",
    classes: Annotated[Path | None, typer.Option(help="File of names, one a line.")] = None,
    output: Annotated[str | None, typer.Option(help="softmax or sigmoid (one logit).")] = None,
    output_name: Annotated[str | None, typer.Option(help="Of an ONNX file with several.")] = None,
    input_size: Annotated[str | None, typer.Option(help="CHANNELSxHEIGHTxWIDTH.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="cover, crop-first, shorter-edge, exact; default: cover.")
    ] = None,
    edge: Annotated[list[int] | None, typer.Option(help="Pixels before the crop.")] = None,
    crop: Annotated[float | None, typer.Option(help="Share of the image that is kept.")] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="Filter of the resize; default: bilinear.")
    ] = None,
    channel_order: Annotated[str | None, typer.Option(help="rgb (default) or bgr.")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="candor, with --mean and --std, or network: by itself.")
    ] = None,
    mean: Annotated[list[float] | None, typer.Option(help="One a channel, scale [0, 1].")] = None,
    std: Annotated[list[float] | None, typer.Option(help="One a channel, scale [0, 1].")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the test; default folder with --data-dir.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Its folder: of 'folder' labelled images, CLASS/*.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=LEAST_IMAGES, help="Images of the test, at most.")
    ] = MOST_IMAGES,
    accept_without_data: Annotated[
        bool, typer.Option("--accept-without-data", help="Nobody measures the accuracy.")
    ] = False,
    match_by_order: Annotated[
        bool, typer.Option("--match-by-order", help="Weights of other names, in their order.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a network of another library into a tested model folder; runs no code it names."""
    if (data is None and data_dir is None) != accept_without_data:
        raise ValueError("data_dir: expected either labelled images or --accept-without-data")
    rule = preprocessing_of(
        resize=resize,
        edge=tuple(edge or ()),
        crop=crop,
        interpolation=interpolation,
        channel_order=channel_order,
        normalization=normalization,
        mean=tuple(mean or ()),
        std=tuple(std or ()),
    )
    request = ImportRequest(
        source=source,
        architecture=architecture,
        name=name or out.name,
        model_version=model_version,
        output=output,
        output_name=output_name,
        input_size=None if input_size is None else size_of(input_size),
        preprocessing=rule,
        classes=None if classes is None else tuple(read_text(classes, MIB).splitlines()),
        data=data,
        data_dir=data_dir,
        image_count=images,
        matches_by_order=match_by_order,
    )
    card = import_model(request, out, notify=console().print)
    if as_json:
        print_json(card.model_dump(mode="json"))
    else:
        _show(out, card)


def _show(folder: Path, card: ModelCard) -> None:
    out, found = console(), card.acceptance
    assert found is not None
    out.print(f"{folder}: {card.network.family}/{card.network.architecture}, {card.identity}")
    for metric in card.metrics:
        form = ".2g" if metric.name == MEDIAN_RADIUS else ".1%"
        low, value, high = (format(x, form) for x in (metric.low, metric.value, metric.high))
        out.print(f"{metric.name} {value} [{low}, {high}] of {metric.image_count} images")
    for step in found.steps:
        out.print(
            f"a search step of {step.batch_size}: {step.milliseconds:.0f} ms, "
            f"{step.mebibytes:.0f} MiB"
        )
    if not found.has_second_derivative:
        out.print("no second derivative: train with penalty_mode finite-difference")
    out.print(found.meaning)
