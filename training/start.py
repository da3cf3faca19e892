"""What a run starts with: a new network, perhaps with weights of a model, or a model's network."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from candor.contracts.card import ModelCard, NetworkCard
from candor.data.images import Images
from candor.data.registry import default_data_dir, load_dataset, load_for_model
from candor.models.folder import LoadedModel, load_model, read_card
from candor.nets.architectures import NetworkSpec, build_network
from candor.search.network import has_second_derivative
from training.config import OF_START, TrainConfig
from training.regularizers import PenaltyMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A network before its first step.

    Attributes:
        digest: SHA-256 of the weights it starts with; "" where they were drawn.
        spec: builds the network; None where it is that of ``card``.
        card, graph: of the model whose network it is, else None.
    """

    network: nn.Module
    digest: str
    spec: NetworkSpec | None = None
    card: ModelCard | None = None
    graph: bytes | None = None


def load_split(config: TrainConfig, split: str, data_dir: Path | None) -> Images:
    """One split of a run's data, as its network sees it; raises as the readers do."""
    if config.architecture == OF_START:
        return load_for_model(config.data, split, data_dir, read_card(Path(config.start_from)))
    folder = data_dir or default_data_dir()
    return load_dataset(config.data, split, folder, image_size=config.image_size)


def started(config: TrainConfig, data: Images) -> Start:
    """The network of a run, on the device to train on.

    Raises:
        ValueError: the model to start from is another network, or L_adv cannot be differentiated as
            the configuration says.
    """
    torch.manual_seed(config.seed)
    start = _of_model(config) if config.architecture == OF_START else _of_spec(config, data)
    if config.has_penalty:
        _check_penalty(PenaltyMode(config.penalty_mode), start.network, data)
    start.network.to("cuda" if torch.cuda.is_available() else "cpu")
    return start


def _of_model(config: TrainConfig) -> Start:
    model = load_model(Path(config.start_from))
    model.network.requires_grad_(True)
    return Start(
        network=model.network,
        digest=model.card.weights_sha256,
        card=model.card,
        graph=model.graph,
    )


def _of_spec(config: TrainConfig, data: Images) -> Start:
    spec = NetworkSpec(
        architecture=config.architecture,
        class_count=len(data.class_names),
        mean=data.mean,
        std=data.std,
        activation=config.activation,
        curvature=config.curvature,
        width_factor=config.width_factor,
        residual_drop=config.residual_drop,
        last_survival=config.last_survival,
    )
    network, digest = build_network(spec), ""
    if config.start_from:
        model = _same_model(config.start_from, spec)
        network.load_state_dict(model.network.state_dict())
        digest = model.card.weights_sha256
    return Start(network=network, digest=digest, spec=spec)


def _same_model(folder: str, spec: NetworkSpec) -> LoadedModel:
    model = load_model(Path(folder))
    card = model.card.network
    if not isinstance(card, NetworkCard):
        raise ValueError(
            f"start_from: expected a model with {spec}, got {folder!r} with "
            f"{card.family}/{card.architecture}; set architecture={OF_START} to train its network"
        )
    held = NetworkSpec(**card.model_dump(exclude={"family"}))
    if held != spec:
        raise ValueError(f"start_from: expected a model with {spec}, got {folder!r} with {held}")
    return model


def _check_penalty(mode: PenaltyMode, network: nn.Module, data: Images) -> None:
    match mode:
        case PenaltyMode.FINITE_DIFFERENCE:
            check_no_draws(network, data.images(slice(2)))
        case PenaltyMode.DOUBLE_BACKWARD | PenaltyMode.INNER_GRADIENT:
            check_second_derivative(network, data.images(slice(1)), mode)


def check_second_derivative(network: nn.Module, images: Tensor, mode: PenaltyMode) -> None:
    """Raises ValueError where L_adv cannot be differentiated by the weights."""
    network.eval()
    if not has_second_derivative(network, images):
        raise ValueError(
            f"penalty_mode: expected {PenaltyMode.FINITE_DIFFERENCE.value!r} for a network without "
            f"a second derivative, got {mode.value!r}"
        )


def check_no_draws(network: nn.Module, images: Tensor) -> None:
    """Raises ValueError where a finite difference would compare two draws of a network."""
    if draws_in_training(network, images):
        raise ValueError(
            f"penalty_mode: expected {PenaltyMode.DOUBLE_BACKWARD.value!r} for a network that "
            f"draws numbers in training (dropout), got {PenaltyMode.FINITE_DIFFERENCE.value!r}"
        )


@torch.no_grad()
def draws_in_training(network: nn.Module, images: Tensor) -> bool:
    """Whether the same images (B, C, H, W) get different logits in training mode, as by dropout.

    Args:
        network: left in evaluation mode, its buffers as they were.
    """
    network.train()
    first, second = (
        functional_call(network, {name: buffer.clone() for name, buffer in own}, (images,))
        for own in [list(network.named_buffers())] * 2
    )
    network.eval()
    return not torch.equal(first, second)
