"""Pre-activation residual networks with normalisation inside."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from candor.nets.drop import Drop


class Normalize(nn.Module):
    """(x - mean) / std per channel, so that images outside the network are on the [0, 1] scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"std: expected {len(mean)} values, one a channel, got {len(std)}")
        if any(value <= 0 for value in std):
            raise ValueError(f"std: expected values in (0, inf), got {list(std)!r}")
        # Not in the state dict: the model card records them.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalized: Tensor = (images - self.mean) / self.std
        return normalized


class StandardizeEach(nn.Module):
    """Each image with mean 0 and variance 1 over all its pixels and channels.  (III-I4)

    A flat image becomes 0: the variance is raised by 1e-8, a fraction of one pixel step's
    (1/255)^2, which also keeps the gradient finite there.
    """

    def forward(self, images: Tensor) -> Tensor:
        centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
        standardized: Tensor = centred / (variance + 1e-8).sqrt()
        return standardized


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and activation (He et al. 2016b).

    The shortcut of a block that changes shape is a strided 3x3 convolution of the activated input,
    as in the authors' released networks.  The last convolution starts at zero, so that a new
    network begins as a shallow one (arXiv 1812.01187).

    Args:
        drop: random regularisation of the residual, see `candor.nets.drop`, without weights; None
            leaves the residual unchanged.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        activation: Callable[[], nn.Module],
        drop: Drop | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.act1 = activation()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act2 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        activated = self.act1(self.norm1(features))
        residual = self.conv2(self.act2(self.norm2(self.conv1(activated))))
        if self.drop is not None:
            residual = self.drop(residual)
        if self.shortcut is not None:
            features = self.shortcut(activated)
        output: Tensor = residual + features
        return output


def plain_stem(channels: int, width: int) -> nn.Conv2d:
    """3x3, stride 1: height and width stay."""
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def _no_drop(depth: float) -> Drop | None:
    return None


class PreActivationResNet(nn.Module):
    """Pre-activation ResNet over [0, 1] images of any height and width.  (III-I1)

    Args:
        blocks: residual blocks of each stage.
        widths: channels of each stage; every stage but the first halves height and width.
        channels: image channels.
        class_count: V, number of outputs.
        mean, std: per-channel normalisation on the [0, 1] scale.
        activation: factory of the activation modules.
        stem: first convolution; default 3x3, stride 1, without bias.
        stem_pool: module after it; default none.
        normalize: first module of the network; default per-channel by ``mean`` and ``std``.
        drop: from a residual block's depth, l / L in (0, 1], to its regularisation; default none.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        channels: int,
        class_count: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: Callable[[], nn.Module],
        stem: Callable[[int, int], nn.Conv2d] = plain_stem,
        stem_pool: nn.Module | None = None,
        normalize: nn.Module | None = None,
        drop: Callable[[float], Drop | None] = _no_drop,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std) if normalize is None else normalize
        self.stem = stem(channels, widths[0])
        self.stem_pool = stem_pool
        stages = []
        built_count = 0
        width_in = widths[0]
        for index, (block_count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for position in range(block_count):
                stride = 2 if index > 0 and position == 0 else 1
                built_count += 1
                dropped = drop(built_count / sum(blocks))
                stage.append(PreActivationBlock(width_in, width, stride, activation, dropped))
                width_in = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(width_in)
        self.act = activation()
        self.head = nn.Linear(width_in, class_count)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, PreActivationBlock):
                nn.init.zeros_(module.conv2.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of images (B, C, H, W) on the [0, 1] pixel scale."""
        features = self.stem(self.normalize(images))
        if self.stem_pool is not None:
            features = self.stem_pool(features)
        features = self.act(self.norm(self.stages(features)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
