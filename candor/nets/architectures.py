"""Architectures by registered name: the one way to build a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from candor.nets.activations import HalfHuberReLU
from candor.nets.drop import Drop, ShakeDrop, StochasticDepth, survival_probability
from candor.nets.resnet import PreActivationResNet, StandardizeEach, plain_stem

ACTIVATIONS = ("hhrelu", "relu", "silu")
RESIDUAL_DROPS = ("none", "shakedrop", "stochastic-depth")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Everything that decides a network's shape; stored on the model card.

    Attributes:
        architecture: registered name, see `architecture_names`.
        class_count: V, outputs, >= 2.
        mean, std: per-channel normalisation on the [0, 1] scale; their length is the channel count.
        activation: "hhrelu" (Eq. 11), "relu" or "silu" (x sigmoid(x), arXiv 1702.03118), which is
            smooth, too.
        curvature: d of Eq. 11; ignored by the others.
        width_factor: multiplies the channels of every stage, >= 1.
        residual_drop: "none", "stochastic-depth" or "shakedrop" (alpha = 0), see
            `candor.nets.drop`.
        last_survival: p_L, probability that the last residual block survives a training step, in
            (0, 1]; earlier ones survive more often, linearly.  Ignored by "none".
    """

    architecture: str
    class_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    activation: str = "hhrelu"
    curvature: float = 1.0
    width_factor: int = 1
    residual_drop: str = "none"
    last_survival: float = 1.0

    def __post_init__(self) -> None:
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(
                f"architecture: expected one of {architecture_names()}, got {self.architecture!r}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {ACTIVATIONS}, got {self.activation!r}")
        if self.class_count < 2:
            raise ValueError(f"class_count: expected [2, inf), got {self.class_count}")
        if self.width_factor < 1:
            raise ValueError(f"width_factor: expected [1, inf), got {self.width_factor}")
        if self.residual_drop not in RESIDUAL_DROPS:
            raise ValueError(
                f"residual_drop: expected one of {RESIDUAL_DROPS}, got {self.residual_drop!r}"
            )
        if not 0.0 < self.last_survival <= 1.0:
            raise ValueError(f"last_survival: expected (0, 1], got {self.last_survival!r}")


def _resnet(
    spec: NetworkSpec,
    *,
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    stem: Callable[[int, int], nn.Conv2d] = plain_stem,
    stem_pool: nn.Module | None = None,
    normalize: nn.Module | None = None,
) -> nn.Module:
    return PreActivationResNet(
        blocks=blocks,
        widths=tuple(width * spec.width_factor for width in widths),
        channels=len(spec.mean),
        class_count=spec.class_count,
        mean=spec.mean,
        std=spec.std,
        activation=_activation_factory(spec),
        stem=stem,
        stem_pool=stem_pool,
        normalize=normalize,
        drop=partial(_drop, spec),
    )


def _cifar_resnet(spec: NetworkSpec, *, depth: int) -> nn.Module:
    """ResNet of 6n + 2 layers in three stages of n blocks, widths 16, 32, 64.  (III-I1)"""
    return _resnet(spec, blocks=((depth - 2) // 6,) * 3, widths=(16, 32, 64))


def _cifar_resnet14_wide(spec: NetworkSpec) -> nn.Module:
    """ResNet-14 of widths 64, 128, 256 whose stem of kernel 4, stride 2 makes 32x32 to 16x16.

    Wide layers of few pixels are what CPUs are fast at.
    """
    return _resnet(
        spec,
        blocks=(2, 2, 2),
        widths=(64, 128, 256),
        stem=partial(nn.Conv2d, kernel_size=4, stride=2, padding=1, bias=False),
    )


def _imagenet_resnet18(spec: NetworkSpec) -> nn.Module:
    """ResNet-18 with average instead of max pooling after the stem.  (III-I2)

    The pool's 3x3 window, stride 2 and padding 1 are those of the max pool it replaces; windows at
    the border average the pixels they have.  224x224 images reach the stages as 56x56.
    """
    return _resnet(
        spec,
        blocks=(2, 2, 2, 2),
        widths=(64, 128, 256, 512),
        stem=partial(nn.Conv2d, kernel_size=7, stride=2, padding=3, bias=False),
        stem_pool=nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    )


def _coco_resnet44(spec: NetworkSpec) -> nn.Module:
    """ResNet-44 of double width whose stem of kernel 4, stride 3 makes 96x96 to 32x32.  (III-I3)

    Without padding it would give 31x31, so one pixel is padded on each side.
    """
    return _resnet(
        spec,
        blocks=(7, 7, 7),
        widths=(32, 64, 128),
        stem=partial(nn.Conv2d, kernel_size=4, stride=3, padding=1, bias=False),
    )


def _jsrt_resnet44(spec: NetworkSpec) -> nn.Module:
    """ResNet-44 for radiographs: stem 9x9, average pool 8, each image standardised.  (III-I4)

    256x256 images reach the stages as 32x32.  ``mean`` and ``std`` only count the channels: what
    they do to a whole image is undone by its standardisation.
    """
    return _resnet(
        spec,
        blocks=(7, 7, 7),
        widths=(64, 96, 128),
        stem=partial(nn.Conv2d, kernel_size=9, padding=4, bias=False),
        stem_pool=nn.AvgPool2d(8),
        normalize=StandardizeEach(),
    )


def _photo_resnet18(spec: NetworkSpec, *, width: int) -> nn.Module:
    """ResNet-18 for photographs of 96 to 160 pixels: stem 7x7, stride 4, no pool after it.

    128x128 images reach the stages as 32x32 and the average pool at the end as 4x4.
    """
    return _resnet(
        spec,
        blocks=(2, 2, 2, 2),
        widths=(width, 2 * width, 4 * width, 8 * width),
        stem=partial(nn.Conv2d, kernel_size=7, stride=4, padding=3, bias=False),
    )


def _activation_factory(spec: NetworkSpec) -> Callable[[], nn.Module]:
    if spec.activation == "relu":
        return nn.ReLU
    if spec.activation == "silu":
        return nn.SiLU
    return partial(HalfHuberReLU, spec.curvature)


def _drop(spec: NetworkSpec, depth: float) -> Drop | None:
    if spec.residual_drop == "none":
        return None
    kind = ShakeDrop if spec.residual_drop == "shakedrop" else StochasticDepth
    return kind(survival_probability(depth, spec.last_survival))


_ARCHITECTURES: Mapping[str, Callable[[NetworkSpec], nn.Module]] = {
    "cifar-resnet14-wide": _cifar_resnet14_wide,
    "cifar-resnet20": partial(_cifar_resnet, depth=20),
    "cifar-resnet44": partial(_cifar_resnet, depth=44),
    "cifar-resnet170": partial(_cifar_resnet, depth=170),
    "coco-resnet44": _coco_resnet44,
    "imagenet-resnet18": _imagenet_resnet18,
    "jsrt-resnet44": _jsrt_resnet44,
    "photo-resnet18": partial(_photo_resnet18, width=64),
    "photo-resnet18-half": partial(_photo_resnet18, width=32),
}


def architecture_names() -> tuple[str, ...]:
    """Names that `NetworkSpec.architecture` accepts, sorted."""
    return tuple(sorted(_ARCHITECTURES))


def build_network(spec: NetworkSpec) -> nn.Module:
    """New network with initial weights; draws from torch's global generator.

    Its ``forward`` maps (B, C, H, W) float32 in [0, 1] to logits (B, class_count).
    """
    return _ARCHITECTURES[spec.architecture](spec)
