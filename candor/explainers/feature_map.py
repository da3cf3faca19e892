"""Where Grad-CAM looks: the last feature map of a network, if it ends in one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from candor.nets.imported import ImportedNetwork

# Modules whose outputs are (B, C, H, W) whatever stands around them.
_SPATIAL = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


class NoFeatureMap(ValueError):
    """The network has no feature map from which its logits follow; the message says why."""


@dataclass(slots=True)
class _Seen:
    """What the modules of a network have returned so far, in the order in which they end.

    Attributes:
        sizes: heights and widths that convolutions and poolings made.
        last: the last module that returned a feature map, with nothing but sums, poolings and
            vectors after it.
        had_map: whether there was one at all, perhaps followed by tokens.
    """

    sizes: set[tuple[int, int]] = field(default_factory=set)
    last: nn.Module | None = None
    had_map: bool = False

    def add(self, module: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            return
        size = (output.shape[-2], output.shape[-1])
        if output.ndim == 4 and isinstance(module, _SPATIAL):
            self.sizes.add(size)
        if output.ndim == 4 and size in self.sizes:
            if size != (1, 1):  # a pooled map says nothing about places
                self.last, self.had_map = module, True
        elif _position_count(output) > 1:
            self.last = None  # tokens, or channels that stand last


def _position_count(tokens: Tensor) -> int:
    """Of (B, N, C) or (B, H, W, C)."""
    return int(tokens[0, ..., 0].numel())


def last_feature_layer(network: nn.Module, image: Tensor) -> nn.Module:
    """The last module whose output is a feature map (B, C, H, W) of more than one place.

    Transformers have a map of patches at their beginning, which says nothing about the class.

    Args:
        image: (1, C, H, W).
    Raises:
        NoFeatureMap: there is none, or tokens follow the last one.
    """
    for module in network.modules():
        if isinstance(module, ImportedNetwork) and module.feature_layer is not None:
            return _known_layer(module)
    seen = _Seen()
    handles = [module.register_forward_hook(seen.add) for module in network.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    if seen.last is None:
        got = "tokens after the last one, as in transformers" if seen.had_map else "none"
        raise NoFeatureMap(f"network: expected a layer with a feature map, got {got}")
    return seen.last


def _known_layer(network: ImportedNetwork) -> nn.Module:
    """The layer that the import of a graph has found."""
    if not network.feature_layer:
        raise NoFeatureMap(
            "network: expected a layer with a feature map from which the logits follow, got none, "
            "as in transformers"
        )
    return network.network.get_submodule(network.feature_layer)
