"""Decodes image files and tensors into the pixels that a model receives.

There is one implementation for serving, training, audits and the command line: the same file gives
the same pixels everywhere.  In this order:

1. limits on bytes, pixels (by the header), scans and parts, before anything is decoded;
2. 16-bit grey is divided by 257 and rounded;
3. transparency, as a channel, a palette entry or a colour, is blended onto white;
4. the image is rotated as its EXIF orientation says; all other metadata is left out before a
   decoder sees the file (`candor.images.metadata`);
5. the size, see `candor.images.geometry`.

Colour profiles, gamma and the chunks sRGB, cHRM, iCCP and cICP are ignored: values are taken as
sRGB, as the readers do with which public networks and data sets were made.  An image in another
space looks slightly different to a model, and the same everywhere.  Of colours with 16 bits the
higher byte counts.  Of an animated PNG and of a file with several photographs (MPO) the main image
is taken, of an animated WebP the first frame.  An orientation that stands only in XMP is ignored,
as in browsers.

Results lie on the 8-bit grid.  Everything here computes: call it from a thread, never on the event
loop.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from candor.contracts import limits
from candor.contracts.api import ImageInput, InputSpec, TensorInput
from candor.contracts.card import DEFAULT_PREPROCESSING, Preprocessing
from candor.contracts.errors import FieldViolation
from candor.contracts.pixel_range import pixel_range_error
from candor.images import metadata
from candor.images.geometry import Size
from candor.images.kinds import SUPPORTED, kind_of
from candor.images.pixels import Pixels, to_pixels
from candor.images.view import InputView

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
# From the orientation as stored to the upright image.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that are stored with height and width exchanged
# Our own limits are checked before any pixel is decoded; Pillow's would only turn the same image
# into a warning or into an error of another kind.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What a file may cost; each is checked before it is spent.

    Attributes:
        byte_count: size of the file.
        pixel_count: width times height.
        scan_count: scans of a JPEG; each costs a pass over all pixels.
        part_count: chunks and segments, and reads of the decoder.
    """

    byte_count: int
    pixel_count: int
    scan_count: int
    part_count: int


REQUEST_LIMITS = DecodeLimits(
    byte_count=limits.MAX_ENCODED_BYTES,
    pixel_count=limits.MAX_PIXELS,
    scan_count=limits.MAX_JPEG_SCANS,
    part_count=limits.MAX_IMAGE_READS,
)
FILE_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # by Pillow's names
# Files of the user's own data: far above any photograph, and still bounded.
FILE_LIMITS = DecodeLimits(
    byte_count=2**28, pixel_count=2**28, scan_count=1000, part_count=10_000_000
)


class UnusableImage(ValueError):
    """A file is not an image that can be used; the text says what was expected and what was got."""


class BadImage(Exception):
    """The image of a request cannot be used; carries the violation to report."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.violation = FieldViolation(field, description)


def decode(
    image: ImageInput, spec: InputSpec, preprocessing: Preprocessing = DEFAULT_PREPROCESSING
) -> Pixels:
    """The image of a request as the model sees it, (C, H, W) float32 in [0, 1], RGB.

    Normalisation and the order of channels are the network's: explanations are of these pixels.

    Raises:
        BadImage: too large, not an image, cut short, or a tensor of another shape or range.
    """
    if image.tensor is not None:
        return _decode_tensor(image.tensor, spec)
    try:
        opened = open_image(
            image.encoded or b"", formats=limits.IMAGE_FORMATS, limits=REQUEST_LIMITS
        )
    except UnusableImage as err:
        raise BadImage("image.encoded", str(err)) from err
    view = InputView(spec.channels, Size(spec.height, spec.width), preprocessing)
    return to_pixels(view.levels(opened))


def open_image(
    content: bytes,
    *,
    formats: tuple[str, ...],
    limits: DecodeLimits,
    is_oriented: bool = True,
) -> Image.Image:
    """An image file as opaque, upright RGB of 8 bits, in its own size.

    Args:
        formats: Pillow's names of the formats that are permitted.
        is_oriented: whether the EXIF orientation is applied; without, pixels stay as stored.
    Raises:
        UnusableImage: beyond a limit, of another format, damaged or cut short.
    """
    return _opened(content, _opaque, formats, limits, is_oriented=is_oriented)


def open_mask(content: bytes) -> Image.Image:
    """A PNG as an upright mask, mode L: 255 where it is white or opaque, 0 where black or clear.

    Its alpha channel counts where any pixel is not opaque; else its grey, of which 16 bits are
    divided by 257 and rounded, but never to black.

    Raises:
        UnusableImage: as `open_image`, and of an opaque image in colours.
    """
    return _opened(content, _mask_levels, ("PNG",), REQUEST_LIMITS)


def size_as_shown(image: ImageInput) -> Size:
    """Height and width of an image that `decode` accepts, as a viewer shows it.

    Only the head of a file is read.
    """
    if image.tensor is not None:
        return Size(*image.tensor.shape[1:])
    bare = metadata.bare(image.encoded or b"", REQUEST_LIMITS.part_count)
    with Image.open(io.BytesIO(bare.content), formats=limits.IMAGE_FORMATS) as opened:
        width, height = opened.size
    return Size(width, height) if bare.orientation in _SIDEWAYS else Size(height, width)


def _opened(
    content: bytes,
    convert: Callable[[Image.Image], Image.Image],
    formats: tuple[str, ...],
    limits: DecodeLimits,
    *,
    is_oriented: bool = True,
) -> Image.Image:
    """What ``convert`` makes of the pixels of a file, upright; raises as `open_image` does."""
    expected = " or ".join(formats)
    _check_size(content, expected, limits)
    try:
        bare = metadata.bare(content, limits.part_count)
        _check_scan_count(bare.scan_count, limits)
        file = _MeteredFile(bare.content, limits.part_count)
        with Image.open(file, formats=formats) as image:
            _check_pixel_count(image, limits)
            image.load()
            converted = convert(image)
            return _upright(converted, bare.orientation) if is_oriented else converted
    except UnusableImage:
        raise
    except metadata.TooManyParts as err:
        raise _too_many_parts(limits) from err
    except Exception as err:  # Pillow's parsers raise nearly anything on hostile bytes
        raise _unreadable(content, formats, limits) from err


def _decode_tensor(tensor: TensorInput, spec: InputSpec) -> Pixels:
    expected = (spec.channels, spec.height, spec.width)
    if tensor.shape != expected:
        raise BadImage(
            "image.tensor.shape", f"expected {list(expected)}, got {_shown_shape(tensor.shape)}"
        )
    byte_count = 4 * spec.channels * spec.height * spec.width
    if len(tensor.data) != byte_count:
        raise BadImage(
            "image.tensor.data",
            f"expected {byte_count} bytes (float32 of shape), got {len(tensor.data)}",
        )
    pixels = np.frombuffer(tensor.data, "<f4").reshape(expected).astype(np.float32)
    error = pixel_range_error(pixels)
    if error is not None:
        raise BadImage("image.tensor.data", error)
    return pixels


def _shown_shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(f"{size}"[:12] for size in shape) + "]"


class _MeteredFile(io.BytesIO):
    """Ends a decoder that reads too often: an image of a million empty parts costs seconds."""

    def __init__(self, content: bytes, reads: int) -> None:
        super().__init__(content)
        self._reads_left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise metadata.TooManyParts
        return super().read(size)


def _check_size(content: bytes, expected: str, limits: DecodeLimits) -> None:
    if not content:
        raise UnusableImage(f"expected one {expected} image, got 0 bytes")
    if len(content) > limits.byte_count:
        raise UnusableImage(f"expected at most {limits.byte_count} bytes, got {len(content)}")


def _check_scan_count(count: int, limits: DecodeLimits) -> None:
    """A scan of 33 bytes costs 18 ms at the largest size: 8 MiB of them would cost over an hour."""
    if count > limits.scan_count:
        raise UnusableImage(f"expected at most {limits.scan_count} scans, got {count}")


def _check_pixel_count(image: Image.Image, limits: DecodeLimits) -> None:
    """By the header alone: no pixel is decoded yet."""
    width, height = image.size
    if width * height > limits.pixel_count:
        raise UnusableImage(
            f"expected at most {limits.pixel_count} pixels, got {width}x{height} = {width * height}"
        )


def _too_many_parts(limits: DecodeLimits) -> UnusableImage:
    return UnusableImage(f"expected at most {limits.part_count} parts in one image, got more")


def _unreadable(content: bytes, formats: tuple[str, ...], limits: DecodeLimits) -> UnusableImage:
    """What the file is instead of an image: of another format, cut short or damaged."""
    kind = kind_of(content)
    if kind in (SUPPORTED[name] for name in formats):
        kind = f"{kind} that is {_state(content, limits.part_count)}"
    return UnusableImage(f"expected {' or '.join(formats)}, got {kind} ({len(content)} bytes)")


def _state(content: bytes, max_parts: int) -> str:
    if metadata.is_cut(content, max_parts):
        return "truncated"
    unusual = content.startswith(metadata.JPEG_START) and metadata.unusual_jpeg(content, max_parts)
    return f"{unusual}, which is not supported" if unusual else "damaged"


def _opaque(image: Image.Image) -> Image.Image:
    """RGB of 8 bits, blended onto white where the image is transparent."""
    if image.mode in _SIXTEEN_BIT_MODES:
        return _from_sixteen_bits(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Divided by 257, where Pillow would clip at 255; a transparent grey becomes white."""
    values = np.asarray(image).astype(np.float64)
    levels = np.clip(np.rint(values / 257.0), 0, 255).astype(np.uint8)
    if "transparency" in image.info:
        levels[values == image.info["transparency"]] = 255
    return Image.fromarray(levels).convert("RGB")


def _mask_levels(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        alpha = _alpha(image)
        if alpha.getextrema() != (255, 255):
            return alpha
    return _grey(image)


def _alpha(image: Image.Image) -> Image.Image:
    if image.mode not in _SIXTEEN_BIT_MODES:
        return image.convert("RGBA").getchannel("A")
    is_clear = np.asarray(image) == image.info["transparency"]
    return Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8))


def _grey(image: Image.Image) -> Image.Image:
    """Raises: UnusableImage: colours, of which nobody can say how far they are from white."""
    if image.mode in _SIXTEEN_BIT_MODES:
        levels = np.asarray(_from_sixteen_bits(image).getchannel("R"))
        return Image.fromarray(np.maximum(levels, (np.asarray(image) > 0).astype(np.uint8)))
    grey, *others = image.convert("RGB").split()
    if any(ImageChops.difference(grey, other).getbbox() is not None for other in others):
        raise UnusableImage("expected a PNG in grey or with transparent pixels, got one in colours")
    return grey


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """``image`` rotated or flipped from the orientation in which it is stored."""
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)
