"""The part of an image that may change, at the size of a model's input.

A mask or a box lies on the image as a viewer shows it, after its EXIF orientation.  From there it
goes the way of the image: the same crop and the same resize, which gives every pixel of the input
the share of its area that may change.  Where the image has a filter that sharpens, the mask has
none: a pixel of the input that does not touch the region has 0, whatever its neighbours have.

Everything here computes: call it from a thread, never on the event loop.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from candor.contracts.api import Box, ImageInput, InputSpec, Region
from candor.contracts.card import DEFAULT_PREPROCESSING, Preprocessing
from candor.images.decode import BadImage, UnusableImage, open_mask, size_as_shown
from candor.images.geometry import Size, prepare

Mask = NDArray[np.float32]

_HALF = 128  # of the levels of a mask
_FARTHEST_SHOWN = 10**9  # pixels from an edge, in a message


def region_mask(
    region: Region,
    image: ImageInput,
    spec: InputSpec,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
) -> Mask:
    """How far every pixel of the input may change, (H, W) float32 in [0, 1], 8-bit levels.

    Args:
        image: one that `candor.images.decode.decode` accepts.
        preprocessing: how an encoded image becomes an input of the model.
    Raises:
        BadImage: no mask, one of another size than the image, a box that leaves the image, a
            region of which the model sees nothing, or the outside of a mask that is dark.
    """
    size = size_as_shown(image)
    place, painted = _painted(region, size)
    if region.outside:
        _check_keeps(painted)
        place, painted = "region.outside", ImageChops.invert(painted)
    if painted.getbbox() is None:
        raise BadImage(place, _NOTHING_MAY_CHANGE[place])
    input_size = Size(spec.height, spec.width)
    if image.tensor is None:
        painted = prepare(painted, _covering(preprocessing), input_size)
    if painted.getbbox() is None:
        expected = f"a part that is left after crop and resize to {_shown(input_size)} pixels"
        raise BadImage(place, f"expected {expected}, got none")
    return np.asarray(painted).astype(np.float32) / np.float32(255.0)


_NOTHING_MAY_CHANGE = {
    "region.mask": "expected pixels that may change (white or opaque), got none",
    "region.box": "expected pixels that may change, got none",
    "region.outside": "expected pixels beside the mask or box, got none: it covers everything",
}


def _painted(region: Region, size: Size) -> tuple[str, Image.Image]:
    """The field that names the region, and the region as levels of an image of ``size``."""
    if region.box is not None:
        return "region.box", _box(region.box, size)
    try:
        mask = open_mask(region.mask or b"")
    except UnusableImage as err:
        raise BadImage("region.mask", str(err)) from err
    got = Size(mask.height, mask.width)
    if got != size:
        expected = f"{_shown(size)} pixels (width x height) as the image is shown"
        raise BadImage("region.mask", f"expected {expected}, got {_shown(got)}")
    return "region.mask", mask


def _check_keeps(painted: Image.Image) -> None:
    """A mask of object numbers (0, 1, 2 ...) is nearly black: its inverse would keep nothing."""
    brightest = int(np.asarray(painted).max())
    if 0 < brightest < _HALF:
        expected = "white on what stays as it is, because of region.outside"
        raise BadImage("region.mask", f"expected {expected}, got {brightest} of 255 at most")


def _box(box: Box, size: Size) -> Image.Image:
    right, bottom = box.x + box.width, box.y + box.height
    if right > size.width or bottom > size.height:
        description = (
            f"expected within the {_shown(size)} pixels (width x height) of the image as shown, "
            f"got columns {_place(box.x)} to {_place(right)} "
            f"and rows {_place(box.y)} to {_place(bottom)}"
        )
        raise BadImage("region.box", description)
    painted = Image.new("L", (size.width, size.height))
    painted.paste(255, (box.x, box.y, right, bottom))
    return painted


def _place(pixel: int) -> str:
    """Short: JSON may bring thousands of digits, and Python refuses to write their sum."""
    return f"{pixel}" if pixel <= _FARTHEST_SHOWN else f"over {_FARTHEST_SHOWN}"


def _covering(rule: Preprocessing) -> Preprocessing:
    """The same crop and size; every pixel of the result is the mean over its own area."""
    return rule.model_copy(update={"interpolation": "box", "antialias": True})


def _shown(size: Size) -> str:
    return f"{size.width}x{size.height}"
