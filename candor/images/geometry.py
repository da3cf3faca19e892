"""Cropping and resizing: the one rule by which an image gets the size of a model's input.

A part of the image is chosen in fractions of its pixels and resampled once.  The filter is
antialiased, which means that its support grows with the reduction; it reads pixels beside the part
where there are any.
"""

from typing import NamedTuple

from PIL import Image

INTERPOLATION = Image.Resampling.LANCZOS


class Box(NamedTuple):
    """A part of an image, in pixels from its upper left corner; fractions are permitted."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


class Size(NamedTuple):
    """Height and width of a result, pixels."""

    height: int
    width: int


def whole(image: Image.Image) -> Box:
    """The box of the whole image."""
    return Box(0.0, 0.0, float(image.width), float(image.height))


def scale_to_cover(box: Box, size: Size) -> float:
    """Pixels of the image for each pixel of ``size`` where the crop is as large as possible."""
    return min(box.width / size.width, box.height / size.height)


def scale_of_edge(box: Box, edge: int) -> float:
    """Pixels of the image for each pixel of the result where the shorter edge becomes ``edge``."""
    return min(box.width, box.height) / edge


def crop_box(box: Box, size: Size, scale: float, across: float = 0.5, down: float = 0.5) -> Box:
    """The part of ``box`` that becomes ``size``.

    Args:
        scale: see `scale_to_cover` and `scale_of_edge`.
        across, down: position of the part in the room that is left, [0, 1]; 0.5 is the centre.
    """
    width, height = scale * size.width, scale * size.height
    left = box.left + across * (box.width - width)
    top = box.top + down * (box.height - height)
    # min(): a sum may pass the edge by a rounding error, which Pillow rejects.
    return Box(left, top, min(left + width, box.right), min(top + height, box.bottom))


def resize(
    image: Image.Image,
    size: Size,
    box: Box,
    interpolation: Image.Resampling = INTERPOLATION,
) -> Image.Image:
    """The part ``box`` of an image at ``size``; unchanged where it already has that size."""
    if box == whole(image) and image.size == (size.width, size.height):
        return image
    return image.resize((size.width, size.height), interpolation, box=box)


def fit(image: Image.Image, size: Size) -> Image.Image:
    """The largest centred part with the aspect ratio of ``size``, resized to it."""
    box = whole(image)
    return resize(image, size, crop_box(box, size, scale_to_cover(box, size)))
