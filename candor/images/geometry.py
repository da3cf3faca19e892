"""Cropping and resizing: the one rule by which an image gets the size of a model's input.

A part of the image is chosen in fractions of its pixels and resampled once.  The filter is
antialiased, which means that its support grows with the reduction; it reads pixels beside the part
where there are any.
"""

from typing import NamedTuple

from PIL import Image

from candor.contracts.card import DEFAULT_PREPROCESSING, Preprocessing

INTERPOLATION = Image.Resampling.LANCZOS
_FILTERS = {one.name.lower(): one for one in Image.Resampling}


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
    return prepare(image, DEFAULT_PREPROCESSING, size)


def prepare(image: Image.Image, rule: Preprocessing, size: Size) -> Image.Image:
    """The image at the size of a model's input, as the model's card says.

    Rules other than "cover" repeat, pixel for pixel, what the common libraries do: sizes and
    offsets are whole pixels, and an image smaller than the crop gets a black border.
    """
    if rule.resize == "cover":
        box = whole(image)
        scale = scale_to_cover(box, size) * rule.crop
        return _sampled(image, size, crop_box(box, size, scale), rule)
    if rule.resize == "crop-first":
        return _scaled(_centre(image, _largest_part(image, size, rule.crop), rule), size, rule)
    return _centre(_scaled(image, _size_before_crop(image, rule), rule), size, rule)


def _size_before_crop(image: Image.Image, rule: Preprocessing) -> Size:
    if rule.resize == "exact":
        return Size(*rule.edge)
    (edge,) = rule.edge
    shorter = min(image.size)
    # Rounded down, as torchvision, timm and transformers do.
    return Size(int(edge * image.height / shorter), int(edge * image.width / shorter))


def _largest_part(image: Image.Image, size: Size, share: float) -> Size:
    """The largest part with the aspect ratio of ``size``, times ``share``, in whole pixels."""
    scale = scale_to_cover(whole(image), size) * share
    return Size(max(1, int(scale * size.height)), max(1, int(scale * size.width)))


def _centre(image: Image.Image, size: Size, rule: Preprocessing) -> Image.Image:
    """The central part; where the image is smaller, with a black border."""
    left = _offset(image.width - size.width, rule)
    top = _offset(image.height - size.height, rule)
    return image.crop((left, top, left + size.width, top + size.height))


def _offset(room: int, rule: Preprocessing) -> int:
    """Half of the room, which may be negative; libraries differ in how they round it."""
    if rule.offset == "round":
        return round(room / 2)
    return room // 2 if rule.offset == "floor" else -(-room // 2)


def _scaled(image: Image.Image, size: Size, rule: Preprocessing) -> Image.Image:
    return _sampled(image, size, whole(image), rule)


def _sampled(image: Image.Image, size: Size, box: Box, rule: Preprocessing) -> Image.Image:
    interpolation = _FILTERS[rule.interpolation]
    if rule.antialias or (box == whole(image) and image.size == (size.width, size.height)):
        return resize(image, size, box, interpolation)
    return image.transform(
        (size.width, size.height), Image.Transform.EXTENT, tuple(box), interpolation
    )
