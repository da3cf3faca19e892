"""Networks of public collections of robust checkpoints, by the names of their weights.

WideResNet (arXiv 1605.07146) and pre-activation ResNet-18 (1603.05027) for 32x32 images, and the
ResNets of CIFAR-10 with batch normalisation after each convolution.  The names of the parts are
those in the checkpoints of RobustBench and of MadryLab's robustness, hence their form.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


class WideBlock(nn.Module):
    """Pre-activation block of a WideResNet."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.equalInOut = width_in == width
        self.convShortcut = (
            None if self.equalInOut else nn.Conv2d(width_in, width, 1, stride, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        active = self.relu1(self.bn1(features))
        shortcut = features if self.convShortcut is None else self.convShortcut(active)
        return torch.add(shortcut, self.conv2(self.relu2(self.bn2(self.conv1(active)))))


class WideStage(nn.Module):
    """Blocks of one width."""

    def __init__(self, count: int, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        blocks = [
            WideBlock(width if index else width_in, width, 1 if index else stride)
            for index in range(count)
        ]
        self.layer = nn.Sequential(*blocks)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layer(features)
        return found


class WideResNet(nn.Module):
    """WRN-depth-width for (B, 3, 32, 32)."""

    def __init__(self, class_count: int, *, depth: int, width: int) -> None:
        super().__init__()
        widths = [16, 16 * width, 32 * width, 64 * width]
        count = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.block1 = WideStage(count, widths[0], widths[1], 1)
        self.block2 = WideStage(count, widths[1], widths[2], 2)
        self.block3 = WideStage(count, widths[2], widths[3], 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(widths[3], class_count)

    def forward(self, images: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(self.relu(self.bn1(features)).mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two convolutions; normalised after them, or before them where ``is_before``."""

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int, is_before: bool) -> None:
        super().__init__()
        self.is_before = is_before
        self.bn1 = nn.BatchNorm2d(width_in if is_before else width)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = _shortcut(width_in, width, stride, is_before)

    def forward(self, features: Tensor) -> Tensor:
        if not self.is_before:
            inner = functional.relu(self.bn1(self.conv1(features)))
            beside = features if self.shortcut is None else self.shortcut(features)
            return functional.relu(self.bn2(self.conv2(inner)) + beside)
        active = functional.relu(self.bn1(features))
        beside = features if self.shortcut is None else self.shortcut(active)
        return torch.add(self.conv2(functional.relu(self.bn2(self.conv1(active)))), beside)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, normalised after each."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int, is_before: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(width_in, 4 * width, stride, is_before)

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(features)))
        inner = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(inner)))))
        beside = features if self.shortcut is None else self.shortcut(features)
        return functional.relu(inner + beside)


class CifarResNet(nn.Module):
    """ResNet-18 or -50 whose stem keeps 32x32, widths 64 to 512."""

    def __init__(
        self,
        class_count: int,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, ...],
        is_before: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        if not is_before:
            self.bn1 = nn.BatchNorm2d(64)
        self.is_before = is_before
        width_in = 64
        for place, count in enumerate(counts):
            width, blocks = 64 * 2**place, []
            for index in range(count):
                stride = 2 if place and not index else 1
                blocks.append(block(width_in, width, stride, is_before))
                width_in = width * block.expansion
            self.add_module(f"layer{place + 1}", nn.Sequential(OrderedDict(_numbered(blocks))))
        self.linear = nn.Linear(width_in, class_count)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv1(images)
        if not self.is_before:
            features = functional.relu(self.bn1(features))
        for place in range(1, 5):
            features = self.get_submodule(f"layer{place}")(features)
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def _numbered(blocks: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(str(index), block) for index, block in enumerate(blocks)]


def _shortcut(width_in: int, width: int, stride: int, is_before: bool) -> nn.Module | None:
    if stride == 1 and width_in == width:
        return None
    convolution = nn.Conv2d(width_in, width, 1, stride, bias=False)
    if is_before:
        return nn.Sequential(convolution)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))


_BUILDERS: Mapping[str, Callable[[int], nn.Module]] = {
    "wrn-28-10": partial(WideResNet, depth=28, width=10),
    "wrn-34-10": partial(WideResNet, depth=34, width=10),
    "wrn-34-20": partial(WideResNet, depth=34, width=20),
    "wrn-70-16": partial(WideResNet, depth=70, width=16),
    "wrn-16-1": partial(WideResNet, depth=16, width=1),
    "preact-resnet18": partial(CifarResNet, block=BasicBlock, counts=(2, 2, 2, 2), is_before=True),
    "resnet18": partial(CifarResNet, block=BasicBlock, counts=(2, 2, 2, 2)),
    "resnet50": partial(CifarResNet, block=Bottleneck, counts=(3, 4, 6, 3)),
}


def robust_names() -> tuple[str, ...]:
    """Names that `build_robust` accepts, sorted."""
    return tuple(sorted(_BUILDERS))


def build_robust(name: str, class_count: int) -> nn.Module:
    """A new network from normalised images (B, 3, 32, 32) to logits (B, V).

    Raises:
        ValueError: no such name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"architecture: expected one of {robust_names()}, got {name!r}")
    return _BUILDERS[name](class_count)
