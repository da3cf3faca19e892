"""Model folders: the only reader and writer of weights and model card."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from candor.contracts.card import InputCard, MetricCard, ModelCard, NetworkCard
from candor.contracts.json_text import json_text
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import read_model, sentence
from candor.files.reading import MIB, FolderFiles, UnusableFile, read_together
from candor.files.writing import write_file, write_folder
from candor.nets.architectures import NetworkSpec, build_network

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
_MAX_CARD_BYTES = 16 * MIB  # the names of 1,000 classes take 20 KB
_MAX_HEADER_BYTES = 8 * MIB  # of the weights: names and shapes
ReadT = TypeVar("ReadT")


class ArtifactError(ValueError):
    """A model folder is missing, damaged, or its card and weights disagree."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network in evaluation mode whose weights need no gradient, and its card."""

    network: nn.Module
    card: ModelCard


def save_model(
    folder: Path,
    *,
    name: str,
    model_version: str,
    description: str,
    spec: NetworkSpec,
    state_dict: Mapping[str, Tensor],
    input_size: tuple[int, int],
    classes: Sequence[str],
    recipe: Mapping[str, Any],
    metrics: Sequence[MetricCard] = (),
) -> ModelCard:
    """Write ``weights.safetensors`` and ``card.json`` into ``folder``, which is made if needed.

    The folder changes as a whole or not at all; other files in it stay.

    Args:
        spec: from which `build_network` builds the network.
        state_dict: its tensors.
        input_size: (height, width).
    Raises:
        ArtifactError: the weights do not fit ``spec``, or the card would not be valid.
    """
    _check_fit(folder, spec, state_dict)
    weights = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    content = safetensors.torch.save(weights)
    try:
        card = ModelCard(
            name=name,
            version=model_version,
            description=description,
            network=NetworkCard(**asdict(spec)),
            input=InputCard(channels=len(spec.mean), height=input_size[0], width=input_size[1]),
            classes=tuple(classes),
            recipe=dict(recipe),
            metrics=tuple(metrics),
            code_version=version("candor"),
            weights_sha256=hashlib.sha256(content).hexdigest(),
        )
    except ValidationError as err:
        raise ArtifactError(f"{folder}: {sentence(err)}") from err
    write_folder(folder, {WEIGHTS_FILE: content, CARD_FILE: _card_content(card)})
    return card


def read_card(folder: Path) -> ModelCard:
    """The card alone, valid in itself; the weights are not read.

    Raises:
        ArtifactError: no card, not JSON, a field is wrong, or fields contradict each other.
    """
    return _read(folder, lambda files: _card(files, folder))


def load_model(folder: Path) -> LoadedModel:
    """Network and card of a model folder.  Runs no code from it.

    Raises:
        ArtifactError: a file is missing or damaged, the weights are not those the card names
            (SHA-256), or they do not fit its architecture.
    """
    return _read(folder, lambda files: _model(files, folder))


def _read(folder: Path, read: Callable[[FolderFiles], ReadT]) -> ReadT:
    """What ``read`` makes of one state of the folder."""
    try:
        return read_together(folder, read)
    except FileNotFoundError as err:
        path = Path(err.filename or folder)
        path = folder / CARD_FILE if path == folder else path
        raise ArtifactError(f"{path}: missing; a model folder has {path.name}") from err
    except NotADirectoryError as err:
        raise ArtifactError(f"{folder}: expected a model folder, got a file") from err
    except UnusableFile as err:
        raise ArtifactError(str(err)) from err
    except OSError as err:
        raise ArtifactError(f"{err.filename or folder}: {err.strerror}") from err


def _card(files: FolderFiles, folder: Path) -> ModelCard:
    path = folder / CARD_FILE
    try:
        card = read_model(ModelCard, files.read(CARD_FILE, _MAX_CARD_BYTES))
    except JsonError as err:
        raise ArtifactError(f"{path}: {err}") from err
    if len(card.classes) != card.network.class_count:
        raise ArtifactError(
            f"{path}: classes: expected {card.network.class_count} (network.class_count), "
            f"got {len(card.classes)}"
        )
    if not len(card.network.mean) == len(card.network.std) == card.input.channels:
        raise ArtifactError(f"{path}: input.channels: disagrees with network.mean and network.std")
    return card


def _model(files: FolderFiles, folder: Path) -> LoadedModel:
    card, path = _card(files, folder), folder / WEIGHTS_FILE
    try:
        spec = NetworkSpec(**card.network.model_dump())
        most = _byte_count(spec) + _MAX_HEADER_BYTES
    except ValueError as err:
        raise ArtifactError(f"{folder / CARD_FILE}: {err}") from err
    content = files.read(WEIGHTS_FILE, most)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.weights_sha256:
        raise ArtifactError(
            f"{path}: SHA-256 is {digest}, but the card names {card.weights_sha256}"
        )
    if len(content) + _MAX_HEADER_BYTES < most - _MAX_HEADER_BYTES:  # also before it is built
        raise ArtifactError(f"{path}: weights do not fit {spec.architecture}, which has more")
    try:
        state_dict = safetensors.torch.load(content)
    except (SafetensorError, ValueError) as err:
        raise ArtifactError(f"{folder}: {err}") from err
    network = _check_fit(folder, spec, state_dict)
    return LoadedModel(network=network.eval().requires_grad_(False), card=card)


def record_metrics(folder: Path, metrics: Sequence[MetricCard]) -> ModelCard:
    """Write ``metrics`` to the card, replacing those of the same name and data.

    A metric stays where the new one was measured on fewer images.
    """
    card = read_card(folder)
    known = {(metric.name, metric.data): metric for metric in card.metrics}
    for metric in metrics:
        before = known.get((metric.name, metric.data))
        if before is None or metric.image_count >= before.image_count:
            known[metric.name, metric.data] = metric
    card = card.model_copy(update={"metrics": tuple(known.values())})
    write_file(folder / CARD_FILE, _card_content(card))
    return card


def _byte_count(spec: NetworkSpec) -> int:
    """Of the tensors of a network, which is not built."""
    with torch.device("meta"):
        tensors = build_network(spec).state_dict().values()
    return sum(math.prod(tensor.shape) * tensor.itemsize for tensor in tensors)


def _check_fit(folder: Path, spec: NetworkSpec, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """A network of ``spec`` holding ``state_dict``; torch's initialisation draws are undone.

    Raises:
        ArtifactError: the weights are of another network, or not all of them are numbers.
    """
    for name, weight in state_dict.items():
        if not bool(weight.isfinite().all()):
            bad = weight[~weight.isfinite()]
            raise ArtifactError(
                f"{folder}: weights: {name}: expected finite numbers, got {bad[0].item()} in "
                f"{bad.numel()} of {weight.numel()}"
            )
    with torch.random.fork_rng(devices=[]):
        network = build_network(spec)
    try:
        network.load_state_dict(state_dict, strict=True)
    except RuntimeError as err:
        raise ArtifactError(f"{folder}: weights do not fit {spec.architecture}: {err}") from err
    return network


def _card_content(card: ModelCard) -> bytes:
    return (json_text(card.model_dump(mode="json"), indent=2) + "\n").encode()
