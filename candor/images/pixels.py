"""Images in and out: decoding to the model's input, encoding to PNG.

Pixels are float32 (C, H, W) on the [0, 1] scale; what comes from an encoded image lies on the
8-bit grid.  Everything here computes: call it from a thread, never on the event loop.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from candor.contracts import limits
from candor.contracts.api import ImageInput, InputSpec, TensorInput
from candor.contracts.errors import FieldViolation

Pixels = NDArray[np.float32]

# Dark blue over grey to yellow: lightness rises steadily, and most colour-blind people tell it.
_HEAT = ((0.0, 0.13, 0.3), (0.34, 0.36, 0.43), (0.65, 0.61, 0.46), (1.0, 0.91, 0.27))
_HEAT_SHARE = 0.7  # of an overlay; the rest is the image

_MODES = {1: "L", 3: "RGB"}  # channels of a model to Pillow's name
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_JPEG_START, _JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
# Our own limit is far below Pillow's and is checked before any pixel is decoded; Pillow's would
# only turn the same image into a warning or into an error of another kind.
Image.MAX_IMAGE_PIXELS = None


class BadImage(Exception):
    """The image of a request cannot be used; carries the violation to report."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.violation = FieldViolation(field, description)


def decode(image: ImageInput, spec: InputSpec) -> Pixels:
    """The image as the model sees it, (C, H, W) float32 in [0, 1].

    Raises:
        BadImage: too large, not an image, cut short, or a tensor of another shape or range.
    """
    if image.tensor is not None:
        return _decode_tensor(image.tensor, spec)
    return _decode_encoded(image.encoded or b"", spec)


def _decode_tensor(tensor: TensorInput, spec: InputSpec) -> Pixels:
    allowed = (spec.channels, spec.height, spec.width)
    if tensor.shape != allowed:
        raise BadImage(
            "image.tensor.shape", f"got {_shown_shape(tensor.shape)}, allowed {list(allowed)}"
        )
    byte_count = 4 * math.prod(allowed)
    if len(tensor.data) != byte_count:
        raise BadImage(
            "image.tensor.data",
            f"got {len(tensor.data)} bytes, allowed {byte_count} (float32 of shape)",
        )
    pixels = np.frombuffer(tensor.data, "<f4").reshape(allowed).astype(np.float32)
    if not np.isfinite(pixels).all():
        raise BadImage("image.tensor.data", "got a value that is not finite, allowed [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0.0 or high > 1.0:
        raise BadImage("image.tensor.data", f"got values in [{low:g}, {high:g}], allowed [0, 1]")
    return pixels


def _shown_shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(f"{size}"[:12] for size in shape) + "]"


def _decode_encoded(encoded: bytes, spec: InputSpec) -> Pixels:
    if not encoded:
        raise BadImage("image.encoded", "got 0 bytes, allowed one PNG, JPEG or WebP image")
    if len(encoded) > limits.MAX_ENCODED_BYTES:
        raise BadImage(
            "image.encoded", f"got {len(encoded)} bytes, allowed {limits.MAX_ENCODED_BYTES}"
        )
    _check_scan_count(encoded)
    try:
        with Image.open(_MeteredFile(encoded), formats=limits.IMAGE_FORMATS) as picture:
            _check_pixel_count(picture)
            fitted = _fit(_upright_and_opaque(picture), spec)
    except BadImage:
        raise
    except Exception as err:  # Pillow's parsers raise nearly anything on hostile bytes
        raise _unreadable(encoded, err) from err
    return _to_pixels(fitted)


class _MeteredFile(io.BytesIO):
    """Ends a decoder that reads too often: an image of a million empty parts costs seconds."""

    reads_left = limits.MAX_IMAGE_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise BadImage("image.encoded", "got too many parts in one image")
        return super().read(size)


def _check_scan_count(encoded: bytes) -> None:
    """A scan of 33 bytes costs 18 ms at the largest size: 8 MiB of them are over an hour."""
    count = encoded.count(_JPEG_SCAN) if encoded.startswith(_JPEG_START) else 0
    if count > limits.MAX_JPEG_SCANS:
        raise BadImage("image.encoded", f"got {count} scans, allowed {limits.MAX_JPEG_SCANS}")


def _unreadable(encoded: bytes, err: Exception) -> BadImage:
    reason = str(err)[:100] if "truncated" in str(err) else "damaged or of another format"
    return BadImage(
        "image.encoded",
        f"got {len(encoded)} bytes that cannot be read ({reason}), allowed PNG, JPEG, WebP",
    )


def _check_pixel_count(picture: Image.Image) -> None:
    """By the header alone: no pixel is decoded yet."""
    width, height = picture.size
    if width * height > limits.MAX_PIXELS:
        raise BadImage(
            "image.encoded",
            f"got {width}x{height} = {width * height} pixels, allowed {limits.MAX_PIXELS}",
        )


def _upright_and_opaque(picture: Image.Image) -> Image.Image:
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _SIXTEEN_BIT_MODES:
        return _from_sixteen_bits(upright)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """Scaled by 257, where Pillow would clip at 255."""
    values = np.asarray(picture).astype(np.float64)
    scaled = np.clip(np.rint(values / 257.0), 0, 255).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _fit(picture: Image.Image, spec: InputSpec) -> Image.Image:
    """Centre-cropped to the input's aspect ratio and resized with Lanczos; as it is if it fits."""
    picture = picture.convert(_MODES[spec.channels])
    if picture.size == (spec.width, spec.height):
        return picture
    width, height = picture.size
    scale = min(width / spec.width, height / spec.height)
    crop_width, crop_height = scale * spec.width, scale * spec.height
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    # min(): the sum may pass the edge by a rounding error, which Pillow refuses.
    box = (left, top, min(left + crop_width, width), min(top + crop_height, height))
    return picture.resize((spec.width, spec.height), Image.Resampling.LANCZOS, box=box)


def _to_pixels(picture: Image.Image) -> Pixels:
    values = np.asarray(picture)
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255.0)


def encode_png(image: NDArray[Any]) -> bytes:
    """PNG of a (C, H, W) image in [0, 1], each value rounded to the nearest of 8 bits."""
    return _png(_levels(image))


def encode_preview(image: NDArray[Any], edge: int) -> bytes:
    """PNG of a (C, H, W) image in [0, 1], shrunk until its longer side is at most ``edge``."""
    picture = _image(_levels(image))
    picture.thumbnail((edge, edge))
    return _saved(picture)


def encode_png_toward(explained: NDArray[Any], original: NDArray[Any]) -> bytes:
    """PNG of ``explained``, every value rounded to 8 bits toward that of ``original``.

    Up where it lies below the original, down where above: no value moves away from the original's
    8-bit value, so the RMSE to `encode_png(original)` never exceeds that of the exact result.
    """
    exact = explained.astype(np.float64) * 255.0
    origin = _levels(original).astype(np.float64)
    toward = np.where(exact > origin, np.floor(exact), np.ceil(exact))
    return _png(np.clip(toward, 0, 255).astype(np.uint8))


def encode_overlay(image: NDArray[Any], saliency: NDArray[Any]) -> bytes:
    """PNG of a saliency (H, W) over the grey of a (C, H, W) image: blue least, yellow most."""
    values = saliency.astype(np.float64)
    span = np.ptp(values)
    share = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    heat = np.stack([np.interp(share, stops, channel) for channel in np.transpose(_HEAT)])
    grey = image.astype(np.float64).mean(axis=0)
    return encode_png(_HEAT_SHARE * heat + (1.0 - _HEAT_SHARE) * grey)


def _levels(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(np.clip(image.astype(np.float64), 0.0, 1.0) * 255.0).astype(np.uint8)


def _png(levels: NDArray[np.uint8]) -> bytes:
    return _saved(_image(levels))


def _image(levels: NDArray[np.uint8]) -> Image.Image:
    values = levels[0] if levels.shape[0] == 1 else levels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(values))


def _saved(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
