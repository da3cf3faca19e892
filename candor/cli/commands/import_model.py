"""The command `candor import`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.importing import ImportRequest, import_model
from candor.cli.output import AsJson, console, print_json
from candor.contracts.card import ModelCard, Preprocessing
from candor.files.reading import MIB, read_text


def import_(
    source: Annotated[Path, typer.Argument(help="Folder of timm or transformers, or weights.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    architecture: Annotated[
        str | None, typer.Option(help="timm/NAME, torchvision/NAME or robust/NAME of weights.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name; default: the folder's.")] = None,
    model_version: Annotated[str, typer.Option("--version", help="Of the model.")] = "1",
    classes: Annotated[Path | None, typer.Option(help="File of names, one a line.")] = None,
    output: Annotated[str, typer.Option(help="softmax or sigmoid (one logit).")] = "softmax",
    input_size: Annotated[str | None, typer.Option(help="CHANNELSxHEIGHTxWIDTH.")] = None,
    resize: Annotated[str, typer.Option(help="cover, crop-first, shorter-edge, exact.")] = "cover",
    edge: Annotated[list[int] | None, typer.Option(help="Pixels before the crop.")] = None,
    crop: Annotated[float, typer.Option(help="Share of the image that is kept.")] = 1.0,
    interpolation: Annotated[str, typer.Option(help="Filter of the resize.")] = "bilinear",
    channel_order: Annotated[str, typer.Option(help="rgb or bgr.")] = "rgb",
    mean: Annotated[list[float] | None, typer.Option(help="One a channel, scale [0, 1].")] = None,
    std: Annotated[list[float] | None, typer.Option(help="One a channel, scale [0, 1].")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="At least 100 labelled images, one folder a class.")
    ] = None,
    accept_without_data: Annotated[
        bool, typer.Option("--accept-without-data", help="Nobody measures the accuracy.")
    ] = False,
    match_by_order: Annotated[
        bool, typer.Option("--match-by-order", help="Weights of other names, in their order.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a network of another library into a tested model folder; runs no code it names."""
    if (data_dir is None) != accept_without_data:
        raise ValueError("data_dir: expected either --data-dir or --accept-without-data")
    rule = None
    if input_size is not None:
        rule = Preprocessing.model_validate(
            {
                "resize": resize,
                "edge": tuple(edge or ()),
                "crop": crop,
                "interpolation": interpolation,
                "channel_order": channel_order,
                "normalization": "candor" if mean else "network",
                "mean": tuple(mean or ()),
                "std": tuple(std or ()),
            }
        )
    request = ImportRequest(
        source=source,
        architecture=architecture,
        name=name or out.name,
        model_version=model_version,
        output=output,
        input_size=None if input_size is None else _size(input_size),
        preprocessing=rule,
        classes=None if classes is None else _names(classes),
        data_dir=data_dir,
        matches_by_order=match_by_order,
    )
    card = import_model(request, out, notify=console().print)
    if as_json:
        print_json(card.model_dump(mode="json"))
    else:
        _show(out, card)


def _names(path: Path) -> tuple[str, ...]:
    return tuple(read_text(path, MIB).splitlines())


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"input_size: expected CHANNELSxHEIGHTxWIDTH, got {text!r}")
    channels, height, width = map(int, parts)
    return channels, height, width


def _show(folder: Path, card: ModelCard) -> None:
    out, found = console(), card.acceptance
    assert found is not None
    out.print(f"{folder}: {card.network.family}/{card.network.architecture}, {card.identity}")
    for metric in card.metrics:
        out.print(
            f"{metric.name} {metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}] of "
            f"{metric.image_count} images"
        )
    for step in found.steps:
        out.print(f"a search step of {step.batch_size}: {step.milliseconds:.0f} ms")
    out.print(found.meaning)
