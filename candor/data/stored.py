"""Images of a data set that are held in memory, as a model sees them."""

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from torch import Tensor

from candor.data.images import Images, ImageSet
from candor.data.lazy import LazyImages
from candor.images.pixels import image_of
from candor.images.view import InputView


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecoder:
    """Prepares stored images as the service prepares files of them; a `candor.data.lazy.Decoder`.

    Attributes:
        pixels: (N, C, H, W) uint8.
        view: of the model.
    """

    pixels: Tensor
    view: InputView

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every view."""
        return self.view.shape

    def central(self, index: int) -> np.ndarray:
        """What the model sees of the image, (C, H, W) uint8."""
        return self.view.levels(image_of(self.pixels[index].numpy()))

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        """The same; nothing is drawn."""
        return self.central(index)

    def fingerprint(self, index: int) -> str:
        """Digest of the pixels, and how they are cut."""
        digest = hashlib.sha256(self.pixels[index].numpy().tobytes()).hexdigest()
        return f"{digest} {self.view.rule.model_dump_json(exclude_defaults=True)}"


def seen(images: ImageSet, view: InputView) -> Images:
    """``images`` through ``view``: themselves where it changes nothing, else computed on demand."""
    if view.keeps(images.shape):
        return images
    own = {field.name: getattr(images, field.name) for field in fields(Images)}
    return LazyImages(**own, decoder=StoredDecoder(pixels=images.pixels, view=view))
