"""The image set every dataset reader returns, and its digest.  Imports numpy and torch only."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Labelled images held in memory as bytes.

    Attributes:
        name: registered name of the data set and split, for example "cifar10/test".
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64 in [0, len(class_names)).
        class_names: one name a class, in the order of the labels.
        identifiers: one stable name an image (path in the archive), length N.
        mean, std: per-channel normalisation a network for this data uses, on the [0, 1] scale.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    identifiers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor | slice) -> Tensor:
        """Images (B, C, H, W) float32 in [0, 1]."""
        return self.pixels[indices].to(torch.float32).div_(255.0)

    def digest(self) -> str:
        """SHA-256 over shape, pixels and labels, as hex."""
        sha = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        sha.update(self.pixels.numpy().tobytes())
        sha.update(self.labels.numpy().tobytes())
        return sha.hexdigest()
