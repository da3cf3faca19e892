"""Batches padded to a whole number of rows, so that an image's outputs do not depend on the others.

A matrix product of one row, or of the few left over at a batch's end, runs through other machine
code than whole groups of rows, and float32 sums of another order differ in their last bits.  An
iterative attack decides by signs, so such a bit may send it another way: without padding FMN's
radii moved by up to 4.9e-4 between batches of 1 and 64 images, PGD's by 1.7e-3, and one of 128
radii was found in one batch only.  Padded, outputs and gradients were equal bit for bit
under every instruction set tried (`ATEN_CPU_CAPABILITY` default, avx2, avx512;
`ONEDNN_MAX_CPU_ISA` SSE41, AVX2, AVX512_CORE).
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

PartT = TypeVar("PartT")
ROWS = 4  # the smallest number that sufficed


class PaddedBatches(nn.Module):
    """``network`` behind batches filled up to a multiple of `ROWS` with copies of the last image.

    For networks in evaluation mode: in training mode the copies would count in batch statistics.
    Outputs and gradients of the copies are dropped.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of images (B, C, H, W), B >= 1."""
        missing = -len(images) % ROWS
        if missing == 0:
            logits: Tensor = self.network(images)
            return logits
        copies = images[-1:].expand(missing, *images.shape[1:])
        padded: Tensor = self.network(torch.cat([images, copies]))
        return padded[: len(images)]


class Spread(Protocol):
    """Work on rows, in batches of at most ``batch_size``: each batch's rows and what came of it."""

    def __call__(
        self, work: Callable[[Tensor], PartT], rows: Tensor, batch_size: int
    ) -> list[tuple[Tensor, PartT]]: ...


def in_turn(
    work: Callable[[Tensor], PartT], rows: Tensor, batch_size: int
) -> list[tuple[Tensor, PartT]]:
    """One batch after the other, in the calling thread."""
    return [(part, work(part)) for part in torch.split(rows, batch_size)]
