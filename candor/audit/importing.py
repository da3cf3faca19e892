"""From a source of another library to an accepted model folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from candor.contracts.card import InputCard, ModelCard, NetworkCard, Preprocessing, Provenance
from candor.contracts.violations import sentence
from candor.data.folder import load_labelled
from candor.data.registry import load_for_model
from candor.images.pixels import MODES
from candor.images.view import InputView
from candor.models.folder import bare_network, build_from_card, save_imported
from candor.models.sources import Source, SourceError, read_source
from candor.robustness.acceptance import accept

MOST_IMAGES = 1000  # of the acceptance test, unless more are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """Options of `candor import`.

    Attributes:
        output: "softmax" or "sigmoid"; None where the file says, or for softmax.
        output_name: of the output of an ONNX file with several.
        input_size, preprocessing, classes: None where the files say.
        data: registered data set; None for "folder" where there is ``data_dir``.
        data_dir: its folder; of "folder" the folder of labelled images itself.  With neither the
            network is accepted without data.
        image_count: images of the acceptance test, at most.
        matches_by_order: weights of other names are taken in their order, shapes permitting.
    """

    source: Path
    architecture: str | None
    name: str
    model_version: str
    output: str | None
    input_size: tuple[int, int, int] | None
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None
    data: str | None = None
    data_dir: Path | None = None
    image_count: int = MOST_IMAGES
    matches_by_order: bool = False
    output_name: str | None = None

    @property
    def data_set(self) -> str | None:
        """Name of the labelled images, if there are any."""
        return self.data or (None if self.data_dir is None else "folder")


def preprocessing_of(**given: Any) -> Preprocessing | None:
    """The preprocessing of options; None where none is given.

    Whether a network normalises by itself is never guessed: half of the networks do, and a wrong
    guess costs accuracy without a message.

    Args:
        given: fields of `Preprocessing`; None or () where an option is left out.
    Raises:
        ValueError: ``normalization`` is missing, or fields contradict each other.
    """
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    if not fields:
        return None
    if "normalization" not in fields and not {"mean", "std"} & fields.keys():
        raise ValueError(
            "normalization: expected --mean and --std, which Candor then applies, or "
            "--normalization network for a network that takes pixels from 0 to 1; got neither"
        )
    try:
        return Preprocessing.model_validate(
            {"interpolation": "bilinear", "normalization": "candor"} | fields
        )
    except ValidationError as err:
        raise ValueError(sentence(err)) from err


def size_of(text: str) -> tuple[int, int, int]:
    """Channels, height and width from "3x224x224"; raises ValueError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"input_size: expected CHANNELSxHEIGHTxWIDTH, got {text!r}")
    channels, height, width = map(int, parts)
    return channels, height, width


def import_model(
    request: ImportRequest, folder: Path, *, notify: Callable[[str], None] = lambda notice: None
) -> ModelCard:
    """Read, build, test and write; nothing is written where the test fails.

    Raises:
        ValueError: the source, an option or the network; the message names what.
        DataMissing: the labelled images.
    """
    if request.matches_by_order and request.data_set is None:
        raise ValueError("match_by_order: expected labelled images that prove it, got none")
    source = read_source(
        request.source,
        request.architecture,
        input_size=request.input_size,
        output=request.output,
        output_name=request.output_name,
    )
    card = _draft(request, source)
    network = build_from_card(card, source.graph)
    bare = bare_network(network)
    matching = _fill(bare, source.state_dict, request.matches_by_order)
    network.eval().requires_grad_(False)
    notify("testing the network, takes some seconds ...")
    images, labels, data = _images(request, card)
    accepted = accept(network, images, labels, data, card.recommended_rho)
    provenance = Provenance.model_validate(
        {"format": source.format, "files": source.files, "matching": matching}
    )
    update = {
        "acceptance": accepted.acceptance,
        "metrics": accepted.metrics,
        "provenance": provenance,
    }
    card = card.model_copy(update=update)
    return save_imported(folder, card, bare.state_dict(), source.graph)


def _draft(request: ImportRequest, source: Source) -> ModelCard:
    """The card before the test; raises SourceError."""
    size = request.input_size or source.input_size
    rule = request.preprocessing or source.preprocessing
    if size is None or rule is None:
        raise SourceError(_ASK)
    if size[0] not in MODES:
        raise SourceError(f"input_size: expected 1 or 3 channels, got {size[0]}")
    if isinstance(source.network, NetworkCard) and (size, rule) != (
        source.input_size,
        source.preprocessing,
    ):
        raise SourceError("input_size, preprocessing: expected none for a file that says both")
    count = source.network.class_count
    classes = request.classes or source.classes or tuple(str(index) for index in range(count))
    if len(classes) != count:
        raise SourceError(f"classes: expected {count} names, got {len(classes)}")
    values = {
        "name": request.name,
        "version": request.model_version,
        "description": f"Imported: {source.format}",
        "network": source.network,
        "input": InputCard(channels=size[0], height=size[1], width=size[2]),
        "preprocessing": rule,
        "output": request.output or source.output or "softmax",
        "classes": classes,
        "recipe": source.recipe,
        "code_version": version("candor"),
        "weights_sha256": "0" * 64,
    }
    try:
        return ModelCard.model_validate(values)
    except ValidationError as err:
        raise SourceError(sentence(err)) from err


_ASK = (
    "input_size, mean, std: expected from options, because the file does not say how an image "
    "becomes an input; of most networks for ImageNet --input-size 3x224x224 --resize shorter-edge "
    "--edge 256 --mean 0.485 --mean 0.456 --mean 0.406 --std 0.229 --std 0.224 --std 0.225, and "
    "--normalization network in place of mean and std where the network takes pixels in [0, 1]"
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
    counters = {key: given[key] for key in expected.keys() & given.keys() if key not in tensors}
    network.load_state_dict({**expected, **tensors, **counters})
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
    if request.data_set is None:
        shape = InputView.of(card).shape
        generator = torch.Generator().manual_seed(0)
        return torch.rand(8, *shape, generator=generator), torch.zeros(0, dtype=torch.int64), ""
    if request.data_set == "folder" and request.data_dir is not None:
        data = load_labelled(request.data_dir, None, InputView.of(card), card.classes)
    else:
        data = load_for_model(request.data_set, "test", request.data_dir, card)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    chosen = order[: request.image_count]
    return data.images(chosen), data.labels[chosen], data.name
