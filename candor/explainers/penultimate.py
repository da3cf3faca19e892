"""What a network knows of an image before it decides: the input of its last linear layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# How networks of modules, and graphs of imported files, apply their last layer.
_LINEAR = (
    functional.linear,
    torch.matmul,
    torch.mm,
    torch.addmm,
    Tensor.matmul,
    Tensor.__matmul__,
)


class NoPenultimateLayer(ValueError):
    """The logits of the network do not come from a linear layer."""


class _Watch(TorchFunctionMode):
    """Keeps the input (B, F) of the last linear layer with an output of V values, or of one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        output = func(*args, **named)
        if func in _LINEAR:
            tensors = [value for value in (*args, *named.values()) if torch.is_tensor(value)]
            features = tensors[func is torch.addmm]  # whose first one is the bias
            if features.ndim == output.ndim == 2:
                self.seen = [(features, output.shape[1])]
        return output


@torch.no_grad()
def penultimate(network: nn.Module, images: Tensor) -> Tensor:
    """Features (B, F) from which a linear layer makes the logits of images (B, C, H, W).

    Args:
        network: in evaluation mode, not compiled.
    Raises:
        NoPenultimateLayer: there is no such layer at the end.
    """
    watch = _Watch()
    with watch:
        logits = network(images)
    # The last of all, so that a layer inside a block is not taken for it; a sigmoid has one output.
    if not watch.seen or watch.seen[0][1] not in (1, logits.shape[1]):
        raise NoPenultimateLayer("network: expected logits of a linear layer, got others")
    return watch.seen[0][0]
