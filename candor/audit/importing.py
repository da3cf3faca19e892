"""From a source of another library to an accepted model folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from candor.audit.acceptance import LEAST_IMAGES, accept
from candor.contracts.card import (
    DEFAULT_PREPROCESSING,
    InputCard,
    ModelCard,
    Preprocessing,
    Provenance,
)
from candor.data.labelled import load_labelled
from candor.images.geometry import Size, prepare
from candor.models.folder import build_from_card, save_imported
from candor.models.sources import Source, SourceError, read_source


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """Options of `candor import`.

    Attributes:
        input_size, preprocessing, classes: None where the files say.
        data_dir: folder of labelled images, one folder a class; None to accept without.
        matches_by_order: weights of other names are taken in their order, shapes permitting.
    """

    source: Path
    architecture: str | None
    name: str
    model_version: str
    output: str
    input_size: tuple[int, int, int] | None
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None
    data_dir: Path | None
    matches_by_order: bool


def import_model(
    request: ImportRequest, folder: Path, *, notify: Callable[[str], None] = lambda notice: None
) -> ModelCard:
    """Read, build, test and write; nothing is written where the test fails.

    Raises:
        ValueError: the source, an option or the network; the message names what.
    """
    if request.matches_by_order and request.data_dir is None:
        raise ValueError("match_by_order: expected labelled images that prove it, got none")
    source = read_source(request.source, request.architecture)
    card = _draft(request, source)
    network = build_from_card(card)
    bare = network.get_submodule("network")
    matching = _fill(bare, source.state_dict, request.matches_by_order)
    network.eval().requires_grad_(False)
    notify("testing the network, takes some seconds ...")
    images, labels, data = _images(request, card)
    accepted = accept(network, images, labels, data)
    provenance = Provenance.model_validate(
        {"format": source.format, "files": source.files, "matching": matching}
    )
    update = {
        "acceptance": accepted.acceptance,
        "metrics": accepted.metrics,
        "provenance": provenance,
    }
    return save_imported(folder, card.model_copy(update=update), bare.state_dict())


def _draft(request: ImportRequest, source: Source) -> ModelCard:
    size = request.input_size or source.input_size
    rule = request.preprocessing or source.preprocessing
    if size is None or rule is None:
        raise SourceError(
            "input_size, resize, mean, std: expected from options, because the file does not say "
            "how an image becomes an input"
        )
    count = source.network.class_count
    classes = request.classes or source.classes or tuple(str(index) for index in range(count))
    if len(classes) != count:
        raise SourceError(f"classes: expected {count} names, got {len(classes)}")
    return ModelCard.model_validate(
        {
            "name": request.name,
            "version": request.model_version,
            "description": f"Imported: {source.format}",
            "network": source.network,
            "input": InputCard(channels=size[0], height=size[1], width=size[2]),
            "preprocessing": rule or DEFAULT_PREPROCESSING,
            "output": request.output,
            "classes": classes,
            "recipe": {},
            "code_version": version("candor"),
            "weights_sha256": "0" * 64,
        }
    )


def _fill(network: nn.Module, given: Mapping[str, Tensor], by_order: bool) -> str:
    """Load weights, and say how their names were matched.

    Raises:
        SourceError: they are those of another architecture, or not finite.
    """
    for name, tensor in given.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SourceError(f"weights: {name}: expected finite values, got NaN or infinity")
    expected = network.state_dict()
    tensors = {key: value for key, value in given.items() if not key.endswith(_COUNTER)}
    matching = "by-name"
    if by_order and tensors.keys() != {key for key in expected if not key.endswith(_COUNTER)}:
        names = [key for key in expected if not key.endswith(_COUNTER)]
        if len(names) == len(tensors):
            tensors, matching = dict(zip(names, tensors.values(), strict=True)), "by-order"
    _check_weights(expected, tensors)
    network.load_state_dict({**expected, **tensors})
    return matching


_COUNTER = "num_batches_tracked"
_SHOWN = 3


def _check_weights(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    wanted = {key for key in expected if not key.endswith(_COUNTER)}
    shapes = [
        f"{key}: {tuple(expected[key].shape)} is {tuple(tensors[key].shape)}"
        for key in wanted & tensors.keys()
        if expected[key].shape != tensors[key].shape
    ]
    parts = {
        "missing": sorted(wanted - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted),
        "other shapes": sorted(shapes),
    }
    found = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for kind, names in parts.items()
        if names
    ]
    if found:
        raise SourceError(f"weights: of another architecture: {'; '.join(found)}")


def _images(request: ImportRequest, card: ModelCard) -> tuple[Tensor, Tensor, str]:
    """Images, labels and the name of the data; noise without labels where there is none."""
    shape = (card.input.channels, card.input.height, card.input.width)
    if request.data_dir is None:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(16, *shape, generator=generator), torch.zeros(0, dtype=torch.int64), ""
    view: Callable[[Image.Image], Image.Image] = partial(
        prepare, rule=card.preprocessing, size=Size(shape[1], shape[2])
    )
    data = load_labelled(request.data_dir, card.classes, shape[0], view)
    if len(data) < LEAST_IMAGES:
        raise ValueError(f"data: expected at least {LEAST_IMAGES} images, got {len(data)}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data.images(order), data.labels[order], data.name
