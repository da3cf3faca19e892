"""Images as PNG files.

Arrays are (C, H, W) on the [0, 1] scale, C 1 or 3.  Everything here computes: call it from a
thread, never on the event loop.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from candor.images.pixels import Levels, image_of, to_levels

# Dark blue over grey to yellow: the lightness rises steadily, and most colour-blind people can
# distinguish the ends.
_HEAT = ((0.0, 0.13, 0.3), (0.34, 0.36, 0.43), (0.65, 0.61, 0.46), (1.0, 0.91, 0.27))
_HEAT_SHARE = 0.7  # of an overlay; the rest is the image


def png_of(image: Image.Image) -> bytes:
    """PNG of a Pillow image, in its own mode."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_png(image: NDArray[Any]) -> bytes:
    """PNG of an image, each value rounded to the nearest of 8 bits."""
    return png_of(image_of(to_levels(image)))


def encode_preview(image: NDArray[Any], edge: int) -> bytes:
    """PNG of an image, reduced until its longer side is at most ``edge`` pixels."""
    preview = image_of(to_levels(image))
    preview.thumbnail((edge, edge))
    return png_of(preview)


def levels_toward(explained: NDArray[Any], original: NDArray[Any]) -> Levels:
    """``explained`` with every value rounded to 8 bits towards that of ``original``.

    A value below the original is rounded up, one above it down: no value moves away from the
    original's 8-bit value, so the RMSE to `to_levels` of the original never exceeds that of the
    exact result.
    """
    exact = explained.astype(np.float64) * 255.0
    origin = to_levels(original).astype(np.float64)
    toward = np.where(exact > origin, np.floor(exact), np.ceil(exact))
    return np.clip(toward, 0, 255).astype(np.uint8)


def encode_png_toward(explained: NDArray[Any], original: NDArray[Any]) -> bytes:
    """PNG of `levels_toward`."""
    return png_of(image_of(levels_toward(explained, original)))


def encode_overlay(image: NDArray[Any], saliency: NDArray[Any]) -> bytes:
    """PNG of a saliency (H, W) over the grey image, from blue (least) to yellow (most)."""
    values = saliency.astype(np.float64)
    span = np.ptp(values)
    share = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    heat = np.stack([np.interp(share, stops, channel) for channel in np.transpose(_HEAT)])
    grey = image.astype(np.float64).mean(axis=0)
    return encode_png(_HEAT_SHARE * heat + (1.0 - _HEAT_SHARE) * grey)
