"""The part of an image that may change: masks and boxes go the way of the image."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from candor.contracts.api import Box, ImageInput, InputSpec, Region, TensorInput
from candor.contracts.card import DEFAULT_PREPROCESSING, Preprocessing
from candor.contracts.limits import IMAGE_FORMATS
from candor.images.decode import REQUEST_LIMITS, BadImage, decode, open_image, size_as_shown
from candor.images.region import region_mask
from tests.images.every_file import every_file

SPEC = InputSpec(channels=3, height=24, width=20, lower=0.0, upper=1.0)
WIDTH, HEIGHT = 90, 120  # of the picture as shown; both crops and a resize are needed
CARD = Preprocessing  # of an imported model
RULES = {
    "cover": DEFAULT_PREPROCESSING,
    "cover 0.8": CARD(crop=0.8),
    "crop-first": CARD(resize="crop-first", crop=0.875, interpolation="bicubic"),
    "shorter-edge": CARD(resize="shorter-edge", edge=(28,), interpolation="bilinear"),
    "exact": CARD(resize="exact", edge=(30, 26), antialias=False, interpolation="bilinear"),
    "with a border": CARD(resize="shorter-edge", edge=(16,), interpolation="nearest"),
}
# From the picture as shown to the pixels that a file of this EXIF orientation stores.
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def stored(shown: Image.Image, orientation: int) -> bytes:
    """A PNG that viewers show as ``shown``, whose pixels lie as the orientation says."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    method = _STORED[orientation]
    return saved(shown if method is None else shown.transpose(method), exif=exif)


def painted() -> Image.Image:
    """An F in white, which no flip and no turn leaves as it is."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[20:100, 25:37] = values[20:35, 25:75] = values[50:62, 25:60] = 255
    return Image.fromarray(values)


def mask_of(region: Region, image: bytes, rule: Preprocessing = DEFAULT_PREPROCESSING) -> Any:
    return region_mask(region, ImageInput(encoded=image), SPEC, rule)


def error_of(region: Region, image: ImageInput, spec: InputSpec = SPEC) -> str:
    with pytest.raises(BadImage) as caught:
        region_mask(region, image, spec)
    return str(caught.value)


@pytest.mark.parametrize("orientation", _STORED)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_mask_follows_the_image(rule: Preprocessing, orientation: int) -> None:
    # The mask is shown upright by its own orientation, which is another one.
    mask = Region(mask=stored(painted(), 9 - orientation))
    image = stored(painted().convert("RGB"), orientation)
    pixels = decode(ImageInput(encoded=image), SPEC, rule)[0]
    found = mask_of(mask, image, rule)
    assert found.shape == pixels.shape
    assert found.dtype == np.float32
    # Only edges differ, where the filter of the image is another one.
    difference = np.abs(found - pixels).mean()
    assert difference < 0.06
    assert ((found > 0.5) == (pixels > 0.5)).mean() > 0.94
    for turned in (found[::-1], found[:, ::-1], found[::-1, ::-1]):
        assert np.abs(turned - pixels).mean() > 2 * difference
    outside = mask_of(mask.model_copy(update={"outside": True}), image, rule)
    inner = slice(4, 20), slice(2, 18)  # without the border of an image that is too small
    np.testing.assert_allclose((found + outside)[inner], 1.0, atol=1 / 255)


def test_pixels_that_touch_no_white_have_zero() -> None:
    image = saved(Image.new("RGB", (WIDTH, HEIGHT)))
    found = mask_of(Region(box=Box(x=0, y=0, width=45, height=HEIGHT)), image)
    # Ninety columns make twenty: the tenth ends at column 45, and Lanczos would ring beyond it.
    np.testing.assert_array_equal(found[:, :10], 1.0)
    np.testing.assert_array_equal(found[:, 10:], 0.0)


def test_border_beside_a_small_image_may_never_change() -> None:
    image = saved(Image.new("RGB", (WIDTH, HEIGHT)))
    corner = Box(x=0, y=0, width=45, height=60)
    found = mask_of(Region(box=corner, outside=True), image, RULES["with a border"])
    assert not found[:, :2].any()
    assert not found[:, -2:].any()
    assert found[-3, 8] == 1.0


def test_tensor_has_its_own_pixels() -> None:
    shape = (3, SPEC.height, SPEC.width)
    image = ImageInput(tensor=TensorInput(shape=shape, data=bytes(4 * 3 * 24 * 20)))
    found = region_mask(Region(box=Box(x=19, y=3, width=1, height=2)), image, SPEC)
    assert found.sum() == 2.0
    assert found[3, 19] == found[4, 19] == 1.0


def _masks() -> dict[str, bytes]:
    """The left half may change, in every way that a PNG can say so."""
    grey = np.zeros((8, 6), np.uint8)
    grey[:, :3] = 255
    half = Image.fromarray(grey)
    palette = half.point(lambda level: level // 255).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    clear = palette.copy()
    clear.putpalette([90, 0, 0, 255, 0, 0])
    black = Image.new("L", half.size)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    keyed = Image.fromarray(np.where(grey == 255, 7, 9).astype(np.uint16))
    return {
        "1 bit": saved(half.convert("1")),
        "2 bits": saved(palette, bits=2),
        "4 bits": saved(palette, bits=4),
        "8 bits": saved(half),
        "16 bits": saved(deep),
        "grey, opaque alpha": saved(Image.merge("LA", [half, Image.new("L", half.size, 255)])),
        "colours that are grey": saved(half.convert("RGB")),
        "alpha": saved(Image.merge("LA", [black, half])),
        "alpha over colours": saved(Image.merge("RGBA", [half, black, black, half])),
        "palette with a clear entry": saved(clear, transparency=0),
        "1 bit with a clear level": saved(half.convert("1"), transparency=0),
        "16 bits with a clear level": saved(keyed, transparency=9),
    }


@pytest.mark.parametrize("kind", _masks())
def test_every_kind_of_png_is_a_mask(kind: str) -> None:
    spec = SPEC.model_copy(update={"height": 8, "width": 6})
    image = ImageInput(encoded=saved(Image.new("RGB", (6, 8))))
    found = region_mask(Region(mask=_masks()[kind]), image, spec)
    np.testing.assert_array_equal(found, np.tile([1, 1, 1, 0, 0, 0], (8, 1)))


def test_levels_between_are_shares() -> None:
    spec = SPEC.model_copy(update={"height": 8, "width": 6})
    image = ImageInput(encoded=saved(Image.new("RGB", (6, 8))))
    found = region_mask(Region(mask=saved(Image.new("L", (6, 8), 51))), image, spec)
    np.testing.assert_allclose(found, 0.2)


@pytest.mark.parametrize("level", [1, 128, 129, 400])
def test_only_black_itself_keeps_a_pixel_of_sixteen_bits(level: int) -> None:
    spec = SPEC.model_copy(update={"height": 8, "width": 6})
    image = ImageInput(encoded=saved(Image.new("RGB", (6, 8))))
    numbers = np.zeros((8, 6), np.uint16)
    numbers[:, :3], numbers[0, 0] = level, 65535
    found = region_mask(Region(mask=saved(Image.fromarray(numbers))), image, spec)
    np.testing.assert_array_equal(found > 0, np.tile([1, 1, 1, 0, 0, 0], (8, 1)) > 0)
    assert found[0, 0] == 1.0


_PICTURE = Image.new("RGB", (WIDTH, HEIGHT))
_ALL = Region(mask=saved(Image.new("L", (WIDTH, HEIGHT), 255)), outside=True)
_JPEG = io.BytesIO()
_PICTURE.save(_JPEG, format="JPEG")
ERRORS = {
    "empty": (
        Region(mask=saved(Image.new("L", (WIDTH, HEIGHT)))),
        "region.mask: expected pixels that may change (white or opaque), got none",
    ),
    "clear": (
        Region(mask=saved(Image.new("LA", (WIDTH, HEIGHT), (255, 0)))),
        "region.mask: expected pixels that may change (white or opaque), got none",
    ),
    "everything, outside": (
        _ALL,
        "region.outside: expected pixels beside the mask or box, got none: it covers everything",
    ),
    "object numbers, outside": (
        Region(mask=saved(Image.new("L", (WIDTH, HEIGHT), 7)), outside=True),
        "region.mask: expected white on what stays as it is, because of region.outside, got 7 of "
        "255 at most",
    ),
    "another size": (
        Region(mask=saved(Image.new("L", (HEIGHT, WIDTH), 255))),
        "region.mask: expected 90x120 pixels (width x height) as the image is shown, got 120x90",
    ),
    "no PNG": (Region(mask=_JPEG.getvalue()), "region.mask: expected PNG, got "),
    "no bytes": (Region(mask=b""), "region.mask: expected one PNG image, got 0 bytes"),
    "cut": (Region(mask=saved(painted())[:60]), "region.mask: expected PNG, got "),
    "colours": (
        Region(mask=saved(Image.new("RGB", (WIDTH, HEIGHT), "red"))),
        "region.mask: expected a PNG in grey or with transparent pixels, got one in colours",
    ),
    "box far beyond": (
        Region(box=Box(x=10**4300 - 1, y=0, width=1, height=5)),
        "region.box: expected within the 90x120 pixels (width x height) of the image as shown, got "
        "columns over 1000000000 to over 1000000000 and rows 0 to 5",
    ),
    "box beyond": (
        Region(box=Box(x=80, y=0, width=11, height=5)),
        "region.box: expected within the 90x120 pixels (width x height) of the image as shown, "
        "got columns 80 to 91 and rows 0 to 5",
    ),
    "cropped away": (
        # 90x120 at 20x24 loses six rows at the top.
        Region(box=Box(x=0, y=0, width=90, height=5)),
        "region.box: expected a part that is left after crop and resize to 20x24 pixels, got none",
    ),
}


@pytest.mark.parametrize(("region", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_region_that_cannot_be_used_is_named(region: Region, expected: str) -> None:
    assert error_of(region, ImageInput(encoded=saved(_PICTURE))).startswith(expected)


def test_size_of_every_file_is_read_from_its_head() -> None:
    for name, content in every_file().items():
        width, height = open_image(content, formats=IMAGE_FORMATS, limits=REQUEST_LIMITS).size
        assert size_as_shown(ImageInput(encoded=content)) == (height, width), name


def test_size_is_that_of_the_image_as_shown() -> None:
    image = ImageInput(encoded=stored(painted().convert("RGB"), 6))
    lying = Region(mask=saved(Image.new("L", (HEIGHT, WIDTH), 255)))
    assert "expected 90x120 pixels" in error_of(lying, image)
