"""Pixels as arrays, and between arrays and Pillow's images.

`Pixels` are float32 (C, H, W) on the [0, 1] scale, `Levels` the same image as uint8 (C, H, W) on
the 8-bit scale.  C is 1 (grey) or 3 (RGB).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
Levels = NDArray[np.uint8]

MODES = {1: "L", 3: "RGB"}  # number of channels to Pillow's name


def to_levels(pixels: NDArray[Any]) -> Levels:
    """The nearest 8-bit level of every value, which is first clipped to [0, 1]."""
    return np.rint(np.clip(pixels.astype(np.float64), 0.0, 1.0) * 255.0).astype(np.uint8)


def to_pixels(levels: Levels) -> Pixels:
    """Float32 values on the [0, 1] scale."""
    return levels.astype(np.float32) / np.float32(255.0)


def levels_of(image: Image.Image) -> Levels:
    """Contiguous levels (C, H, W) of an image of mode L or RGB."""
    values = np.asarray(image)
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def image_of(levels: Levels) -> Image.Image:
    """Pillow's image, mode L or RGB, of levels (C, H, W)."""
    values = levels[0] if levels.shape[0] == 1 else levels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(values))
