"""A network compiled for a few fixed batch sizes.  Imports torch only.

Every new batch size would be compiled anew, so a batch is padded to the next of a few sizes.
"""

import copy
import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)


class FixedBatchNetwork(nn.Module):
    """A network that only ever sees batches of a few sizes; its outputs are those of the input.

    Args:
        network: maps (B, C, H, W) to (B, V), each image on its own (evaluation mode).
        sizes: batch sizes; a larger batch is split by the largest.
    """

    def __init__(self, network: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes: got {list(sizes)!r}, allowed one or more of [1, inf)")
        self.network = network
        self.sizes = tuple(sorted(sizes))

    def forward(self, images: Tensor) -> Tensor:
        parts = [self._padded(part) for part in torch.split(images, self.sizes[-1])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _padded(self, images: Tensor) -> Tensor:
        count = len(images)
        size = next(size for size in self.sizes if size >= count)
        padding = images.new_zeros(size - count, *images.shape[1:])
        batch = torch.cat([images, padding]).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(batch)
        return logits[:count]


def compile_network(
    network: nn.Module, sizes: Sequence[int], input_shape: tuple[int, int, int]
) -> nn.Module:
    """A compiled copy of ``network`` in float32, warmed for ``sizes``; the original is left alone.

    Where there is no compiler a warning is logged and the network comes back as it is: slower,
    never wrong.

    Args:
        network: in evaluation mode, weights without gradient.
        sizes: batch sizes to compile for, each takes about a minute; torch caches them on disk.
        input_shape: (C, H, W).
    """
    fast = copy.deepcopy(network)
    # torch's stubs do not know this form of `to`.
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = cast(nn.Module, torch.compile(fast, dynamic=False))
    fixed = FixedBatchNetwork(compiled, sizes).train(network.training)
    device = next(network.parameters()).device
    try:
        for size in sizes:
            images = torch.zeros(size, *input_shape, device=device, requires_grad=True)
            torch.autograd.grad(fixed(images).sum(), images)
            with torch.no_grad():
                fixed(images.detach())
    except Exception as err:  # the compiler's failures have no common base
        _LOG.warning("network not compiled, running it as it is: %s", str(err)[:200])
        return network
    return fixed
