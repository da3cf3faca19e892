"""Pre-activation residual networks with normalisation inside.  Imports torch and siblings only."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, so that everything outside the network lives on [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"std: got {len(std)} values, allowed {len(mean)} (one a channel)")
        if any(value <= 0 for value in std):
            raise ValueError(f"std: got {list(std)!r}, allowed (0, inf)")
        # Not in the state dict: the card is the one place that records them.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        normalized: Tensor = (images - self.mean) / self.std
        return normalized


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and activation (He et al. 2016b).

    The shortcut of a block that changes shape is a strided 3x3 convolution of the activated input,
    as in the authors' released networks.  The last convolution starts at zero, so that a new
    network begins as a shallow one (arXiv 1812.01187).
    """

    def __init__(
        self, channels_in: int, channels: int, stride: int, activation: Callable[[], nn.Module]
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

    def forward(self, features: Tensor) -> Tensor:
        activated = self.act1(self.norm1(features))
        residual = self.conv2(self.act2(self.norm2(self.conv1(activated))))
        if self.shortcut is not None:
            features = self.shortcut(activated)
        output: Tensor = residual + features
        return output


class PreActivationResNet(nn.Module):
    """Pre-activation ResNet over [0, 1] images of any height and width.  (III-I1)

    Args:
        blocks: residual blocks of each stage.
        widths: channels of each stage; every stage but the first halves height and width.
        channels: image channels.
        class_count: V, number of outputs.
        mean, std: per-channel normalisation on the [0, 1] scale.
        activation: factory of the activation modules.
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
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        stages = []
        width_in = widths[0]
        for index, (block_count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for position in range(block_count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(PreActivationBlock(width_in, width, stride, activation))
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
        features = self.stages(self.stem(self.normalize(images)))
        logits: Tensor = self.head(self.act(self.norm(features)).mean(dim=(2, 3)))
        return logits
