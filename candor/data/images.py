"""What every reader of a data set returns: images in memory or read on demand."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from candor.contracts.card import DEFAULT_PREPROCESSING, Preprocessing
from candor.data.augment import Augmentation, random_crop_flip

# For each training step: (B,) indices, and the seed of what is drawn when they are read.
Plan = Iterable[tuple[Tensor, int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step starts with.

    Attributes:
        stored: (B, C, H, W) integers as read, before `Images.augmented`.
        labels: (B,) int64.
    """

    stored: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Images(ABC):
    """Labelled images of one split.

    Attributes:
        name: registered name of the data set and split, for example "cifar10/test".
        labels: (N,) int64 in [0, len(class_names)).
        class_names: one name for each class, in the order of the labels.
        identifiers: one stable name for each image (path in the archive), length N.
        mean, std: per-channel normalisation a network for this data uses, on the [0, 1] scale.
        white: the stored integer that represents 1.
        augment: makes training images from those that were read.
        preprocessing: for the card of a model trained on these images: how a file becomes what
            `images` returns.
    """

    name: str
    labels: Tensor
    class_names: tuple[str, ...]
    identifiers: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: int = 255
    augment: Augmentation = random_crop_flip
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @abstractmethod
    def images(self, indices: Tensor | slice) -> Tensor:
        """Test views (B, C, H, W) float32 in [0, 1]; nothing in them is random."""

    @abstractmethod
    def training_batches(self, plan: Plan) -> Iterator[Batch]:
        """One batch for each step of ``plan``, in its order; the plan is read some steps ahead.

        A batch depends only on the indices and the seed of its step, so a resumed run that plans
        the remaining steps gets the batches of the uninterrupted one.
        """

    def on(self, device: torch.device) -> "Images":
        """The same images, held on ``device`` where they are held at all."""
        return self

    @abstractmethod
    def digest(self, rows: Tensor | None = None) -> str:
        """SHA-256 of what decides the images and labels, as hex; by default of all rows."""

    def augmented(self, stored: Tensor, *, padding: int, generator: Generator) -> Tensor:
        """Training images (B, C, H, W) float32 in [0, 1] from `Batch.stored`, on its device."""
        return self.augment(self._on_unit_scale(stored), padding=padding, generator=generator)

    def _on_unit_scale(self, stored: Tensor) -> Tensor:
        # Contiguous whatever the reader's layout is: `to` alone keeps strides.
        return stored.to(torch.float32, memory_format=torch.contiguous_format).div_(self.white)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet(Images):
    """Labelled images held in memory as bytes.

    Attributes:
        pixels: (N, C, H, W) uint8.
    """

    pixels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def images(self, indices: Tensor | slice) -> Tensor:
        return self._on_unit_scale(self.pixels[indices])

    def training_batches(self, plan: Plan) -> Iterator[Batch]:
        for indices, _ in plan:
            chosen = indices.to(self.pixels.device)
            yield Batch(self.pixels[chosen], self.labels[chosen])

    def on(self, device: torch.device) -> "ImageSet":
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def digest(self, rows: Tensor | None = None) -> str:
        """SHA-256 over shape, pixels and labels, as hex."""
        pixels, labels = self.pixels, self.labels
        if rows is not None:
            pixels, labels = pixels[rows], labels[rows]
        sha = hashlib.sha256(repr(tuple(pixels.shape)).encode())
        sha.update(pixels.cpu().numpy().tobytes())
        sha.update(labels.cpu().numpy().tobytes())
        return sha.hexdigest()
