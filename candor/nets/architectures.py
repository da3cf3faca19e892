"""Architectures by registered name: the one way to build a network.  Imports nets only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from candor.nets.activations import HalfHuberReLU
from candor.nets.resnet import PreActivationResNet

ACTIVATIONS = ("hhrelu", "relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Everything that decides a network's shape; stored on the model card.

    Attributes:
        architecture: registered name, see `architecture_names`.
        class_count: V, outputs, >= 2.
        mean, std: per-channel normalisation on the [0, 1] scale; their length is the channel count.
        activation: "hhrelu" (Eq. 11) or "relu".
        curvature: d of Eq. 11; ignored by "relu".
        width_factor: multiplies the channels of every stage, >= 1.
    """

    architecture: str
    class_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    activation: str = "hhrelu"
    curvature: float = 1.0
    width_factor: int = 1

    def __post_init__(self) -> None:
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(
                f"architecture: got {self.architecture!r}, allowed {architecture_names()}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: got {self.activation!r}, allowed {ACTIVATIONS}")
        if self.class_count < 2:
            raise ValueError(f"class_count: got {self.class_count}, allowed [2, inf)")
        if self.width_factor < 1:
            raise ValueError(f"width_factor: got {self.width_factor}, allowed [1, inf)")


def _cifar_resnet(spec: NetworkSpec, *, depth: int) -> nn.Module:
    """ResNet of 6n + 2 layers in three stages of n blocks, widths 16, 32, 64.  (III-I1)"""
    block_count = (depth - 2) // 6
    return PreActivationResNet(
        blocks=(block_count,) * 3,
        widths=tuple(width * spec.width_factor for width in (16, 32, 64)),
        channels=len(spec.mean),
        class_count=spec.class_count,
        mean=spec.mean,
        std=spec.std,
        activation=_activation_factory(spec),
    )


def _activation_factory(spec: NetworkSpec) -> Callable[[], nn.Module]:
    if spec.activation == "relu":
        return nn.ReLU
    return partial(HalfHuberReLU, spec.curvature)


_ARCHITECTURES: Mapping[str, Callable[[NetworkSpec], nn.Module]] = {
    "cifar-resnet20": partial(_cifar_resnet, depth=20),
    "cifar-resnet44": partial(_cifar_resnet, depth=44),
    "cifar-resnet170": partial(_cifar_resnet, depth=170),
}


def architecture_names() -> tuple[str, ...]:
    """Names that `NetworkSpec.architecture` accepts, sorted."""
    return tuple(sorted(_ARCHITECTURES))


def build_network(spec: NetworkSpec) -> nn.Module:
    """New network with initial weights; draws from torch's global generator.

    Its ``forward`` maps (B, C, H, W) float32 in [0, 1] to logits (B, class_count).
    """
    return _ARCHITECTURES[spec.architecture](spec)
