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

from candor.contracts.card import (
    DEFAULT_PREPROCESSING,
    InputCard,
    MetricCard,
    ModelCard,
    NetworkCard,
    OnnxNetworkCard,
    Preprocessing,
)
from candor.contracts.json_text import json_text
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import read_model, sentence
from candor.files.reading import MIB, FolderFiles, UnusableFile, read_together
from candor.files.writing import write_file, write_folder
from candor.nets.architectures import NetworkSpec, build_network
from candor.nets.imported import ImportedNetwork, build_imported
from candor.onnx_import.network import OnnxNetwork, build_onnx, weight_bytes

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
GRAPH_FILE = "graph.json"  # of networks that came as ONNX
_MAX_CARD_BYTES = 16 * MIB  # the names of 1,000 classes take 20 KB
_MAX_GRAPH_BYTES = 64 * MIB
_MAX_HEADER_BYTES = 8 * MIB  # of the weights: names and shapes
ReadT = TypeVar("ReadT")


class ArtifactError(ValueError):
    """A model folder is missing, damaged, or its card and weights disagree."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network in evaluation mode whose weights need no gradient, and its card.

    Attributes:
        graph: of a network that came as ONNX, else None.
    """

    network: nn.Module
    card: ModelCard
    graph: bytes | None = None


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
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    recommended_rho: float = 0.1,
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
    _fill(folder, _own_network(spec), state_dict, spec.architecture)
    content = _packed(state_dict)
    try:
        card = ModelCard(
            name=name,
            version=model_version,
            description=description,
            network=NetworkCard(**asdict(spec)),
            input=InputCard(channels=len(spec.mean), height=input_size[0], width=input_size[1]),
            preprocessing=preprocessing,
            classes=tuple(classes),
            recommended_rho=recommended_rho,
            recipe=dict(recipe),
            metrics=tuple(metrics),
            code_version=version("candor"),
            weights_sha256=hashlib.sha256(content).hexdigest(),
        )
    except ValidationError as err:
        raise ArtifactError(f"{folder}: {sentence(err)}") from err
    write_folder(folder, {WEIGHTS_FILE: content, CARD_FILE: _card_content(card)})
    return card


def save_imported(
    folder: Path, card: ModelCard, state_dict: Mapping[str, Tensor], graph: bytes | None = None
) -> ModelCard:
    """Write the folder of a model whose card is known; the card gets the digests.

    Args:
        card: complete but for ``weights_sha256`` and ``digest``.
        state_dict: of the bare network, see `bare_network`.
        graph: of a network that came as ONNX, `OnnxNetwork.graph`.
    Raises:
        ArtifactError: fields of the card contradict each other, or weights are not numbers.
    """
    _check_finite(folder, state_dict)
    content = _packed(state_dict)
    digest = hashlib.sha256(content).hexdigest()
    card = card.model_copy(update={"weights_sha256": digest})
    card = card.sealed() if card.is_imported else card
    _check_consistent(folder / CARD_FILE, card)
    files = {WEIGHTS_FILE: content, CARD_FILE: _card_content(card)}
    write_folder(folder, files if graph is None else files | {GRAPH_FILE: graph})
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
    _check_consistent(path, card)
    return card


def _model(files: FolderFiles, folder: Path) -> LoadedModel:
    card, path = _card(files, folder), folder / WEIGHTS_FILE
    graph = _graph(files, folder, card)
    try:  # its size is known before anything is built or read
        most = _byte_count(card, graph) + _MAX_HEADER_BYTES
    except ValueError as err:
        raise ArtifactError(f"{folder / CARD_FILE}: {err}") from err
    content = files.read(WEIGHTS_FILE, most)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.weights_sha256:
        raise ArtifactError(
            f"{path}: SHA-256 is {digest}, but the card names {card.weights_sha256}"
        )
    architecture = card.network.architecture
    least = (most - _MAX_HEADER_BYTES) // 2 - _MAX_HEADER_BYTES  # were all in half precision
    if len(content) < least:  # also before it is built
        raise ArtifactError(f"{path}: weights do not fit {architecture}, which has more")
    try:
        state_dict = safetensors.torch.load(content)
        network = build_from_card(card, graph)
    except (SafetensorError, ValueError) as err:
        raise ArtifactError(f"{folder}: {err}") from err
    _fill(folder, bare_network(network), state_dict, architecture)
    return LoadedModel(network=network.eval().requires_grad_(False), card=card, graph=graph)


def bare_network(network: nn.Module) -> nn.Module:
    """The network to which the weights of a folder belong, without the parts around it."""
    return network.network if isinstance(network, ImportedNetwork) else network


def build_from_card(card: ModelCard, graph: bytes | None = None) -> nn.Module:
    """The network of a card with initial weights, from pixels on the [0, 1] scale to logits.

    Args:
        graph: of a network that came as ONNX.
    Raises:
        ValueError: the card names what cannot be built here.
    """
    if isinstance(card.network, NetworkCard):
        return _own_network(NetworkSpec(**card.network.model_dump(exclude={"family"})))
    if isinstance(card.network, OnnxNetworkCard):
        imported = _onnx_network(card, graph)
        layer = imported.cam_layer or ""
        return ImportedNetwork(imported.module, card.preprocessing, card.output, layer)
    with torch.random.fork_rng(devices=[]):
        bare = build_imported(card.network, card.input.channels, card.output)
    return ImportedNetwork(bare, card.preprocessing, card.output)


def _graph(files: FolderFiles, folder: Path, card: ModelCard) -> bytes | None:
    """The graph beside the weights, where the card names one."""
    if not isinstance(card.network, OnnxNetworkCard):
        return None
    content = files.read(GRAPH_FILE, _MAX_GRAPH_BYTES)
    digest, expected = hashlib.sha256(content).hexdigest(), card.network.graph_sha256
    if digest != expected:
        raise ArtifactError(
            f"{folder / GRAPH_FILE}: SHA-256 is {digest}, but the card names {expected}"
        )
    return content


def _onnx_network(card: ModelCard, graph: bytes | None) -> OnnxNetwork:
    if graph is None:
        raise ValueError(f"network.family: expected {GRAPH_FILE} beside the card, got none")
    imported = build_onnx(graph)
    shape = card.input.shape
    outputs = 1 if card.output == "sigmoid" else card.network.class_count
    if (imported.input_shape, imported.classes) != (shape, outputs):
        raise ValueError(
            f"input, classes: expected those of the graph, {imported.input_shape} and "
            f"{imported.classes}, got {shape} and {outputs}"
        )
    return imported


def record_metrics(folder: Path, metrics: Sequence[MetricCard]) -> ModelCard:
    """Write ``metrics`` to the card, replacing those of the same name and data.

    A metric stays where the new one was measured on fewer images.
    """
    card = read_card(folder)
    known = {(metric.name, metric.data): metric for metric in map(MetricCard.named, card.metrics)}
    for metric in metrics:
        before = known.get((metric.name, metric.data))
        if before is None or metric.image_count >= before.image_count:
            known[metric.name, metric.data] = metric
    card = card.model_copy(update={"metrics": tuple(known.values())})
    write_file(folder / CARD_FILE, _card_content(card))
    return card


def _byte_count(card: ModelCard, graph: bytes | None) -> int:
    """Of the tensors of a network, which is not built."""
    if graph is not None:
        return weight_bytes(graph)
    with torch.device("meta"):
        tensors = bare_network(build_from_card(card)).state_dict().values()
    return sum(math.prod(tensor.shape) * tensor.itemsize for tensor in tensors)


def _check_consistent(path: Path, card: ModelCard) -> None:
    """Raises ArtifactError where fields of a card contradict each other."""
    network, channels = card.network, card.input.channels
    if len(card.classes) != network.class_count:
        raise ArtifactError(
            f"{path}: classes: expected {network.class_count} (network.class_count), "
            f"got {len(card.classes)}"
        )
    if isinstance(network, NetworkCard):
        if not len(network.mean) == len(network.std) == channels:
            raise ArtifactError(
                f"{path}: input.channels: disagrees with network.mean and network.std"
            )
    elif len(card.preprocessing.mean) not in (0, channels):
        raise ArtifactError(f"{path}: input.channels: disagrees with preprocessing.mean")
    if card.output == "sigmoid" and len(card.classes) != 2:
        raise ArtifactError(f"{path}: output: expected 2 classes, got {len(card.classes)}")
    if card.is_imported and (card.acceptance is None or card.digest is None):
        raise ArtifactError(
            f"{path}: acceptance, digest: expected both for an imported model; candor import "
            "writes them after its acceptance test"
        )
    if card.digest not in (None, card.computed_digest()):
        raise ArtifactError(
            f"{path}: digest: weights, preprocessing, class names or network are not those that "
            f"were written: expected {card.computed_digest()}, got {card.digest}"
        )


def _check_finite(folder: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Raises ArtifactError where not all weights are numbers."""
    for name, weight in state_dict.items():
        if not bool(weight.isfinite().all()):
            bad = weight[~weight.isfinite()]
            raise ArtifactError(
                f"{folder}: weights: {name}: expected finite numbers, got {bad[0].item()} in "
                f"{bad.numel()} of {weight.numel()}"
            )


def _own_network(spec: NetworkSpec) -> nn.Module:
    """A network of Candor's own; torch's initialisation draws are undone."""
    with torch.random.fork_rng(devices=[]):
        return build_network(spec)


def _fill(
    folder: Path, network: nn.Module, state_dict: Mapping[str, Tensor], architecture: str
) -> None:
    """Raises ArtifactError where the weights are of another network, or not all are numbers."""
    _check_finite(folder, state_dict)
    try:
        network.load_state_dict(state_dict, strict=True)
    except RuntimeError as err:
        raise ArtifactError(f"{folder}: weights do not fit {architecture}: {err}") from err


def _packed(state_dict: Mapping[str, Tensor]) -> bytes:
    """Tensors that share memory are written once for each name."""
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state_dict.items()}
    return safetensors.torch.save(tensors)


def _card_content(card: ModelCard) -> bytes:
    return (json_text(card.model_dump(mode="json"), indent=2) + "\n").encode()
