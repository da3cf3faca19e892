"""Image files and tensors to pixels: one result for serving, training and the command line."""

import dataclasses
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from candor.contracts import limits
from candor.contracts.api import ImageInput, InputSpec, TensorInput
from candor.contracts.errors import FieldViolation
from candor.images.decode import (
    FILE_LIMITS,
    REQUEST_LIMITS,
    BadImage,
    UnusableImage,
    decode,
    open_image,
)

SPEC = InputSpec(channels=3, height=8, width=6, lower=0.0, upper=1.0)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(height: int = 8, width: int = 6) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def decoded(encoded: bytes, spec: InputSpec = SPEC) -> np.ndarray:
    return decode(ImageInput(encoded=encoded), spec)


def error_response(image: ImageInput) -> FieldViolation:
    with pytest.raises(BadImage) as caught:
        decode(image, SPEC)
    return caught.value.violation


def huge_png(width: int, height: int) -> bytes:
    """A valid header and almost no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_image_of_the_right_size_is_not_resampled() -> None:
    image = noise()
    expected = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    pixels = decoded(saved(image))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, expected)


def test_resized_pixels_lie_on_the_eight_bit_grid() -> None:
    pixels = decoded(saved(noise(50, 70)))
    assert pixels.shape == (3, 8, 6)
    np.testing.assert_array_equal(pixels, np.rint(pixels * 255).astype(np.float32) / 255)


def test_wide_image_loses_its_sides_not_its_proportions() -> None:
    wide = Image.new("RGB", (60, 16), "red")
    wide.paste((0, 0, 255), (24, 0, 36, 16))  # the middle 12x16 has the aspect ratio 6x8
    pixels = decoded(saved(wide))
    np.testing.assert_allclose(pixels[2, :, 1:-1], 1.0, atol=0.02)
    np.testing.assert_allclose(pixels[0, :, 1:-1], 0.0, atol=0.02)


def test_transparent_pixels_are_blended_onto_white() -> None:
    half = Image.new("RGBA", (6, 8), (255, 0, 0, 128))
    red, green, _ = decoded(saved(half))[:, 0, 0]
    assert red == 1.0
    assert green == pytest.approx(127 / 255, abs=0.005)


def test_transparent_palette_entry_is_white() -> None:
    palette = Image.new("P", (6, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert decoded(saved(palette, transparency=0)).min() == 1.0


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((8, 6), 0x8080, dtype=np.uint16))
    np.testing.assert_allclose(decoded(saved(grey)), 0x80 / 255, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    assert decoded(saved(noise(9, 9).convert(mode))).shape == (3, 8, 6)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_and_cmyk_decode(kind: str) -> None:
    mode = "CMYK" if kind == "JPEG" else "RGB"
    assert decoded(saved(noise(9, 9).convert(mode), kind)).shape == (3, 8, 6)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (8, 6), "black")
    image.paste((255, 255, 255), (0, 0, 4, 6))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise to view
    pixels = decoded(saved(image, exif=exif))
    assert pixels[:, :4].min() == 1.0
    assert pixels[:, 4:].max() == 0.0


def test_one_channel_model_gets_grey() -> None:
    grey = InputSpec(channels=1, height=8, width=6, lower=0.0, upper=1.0)
    assert decoded(saved(noise()), grey).shape == (1, 8, 6)


def test_huge_png_is_rejected_by_its_header() -> None:
    tracemalloc.start()
    violation = error_response(ImageInput(encoded=huge_png(20_000, 20_000)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert violation.field == "image.encoded"
    assert "20000x20000" in violation.description
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_image_is_rejected(kind: str, share: float) -> None:
    whole = saved(noise(64, 64), kind)
    assert (
        error_response(ImageInput(encoded=whole[: int(len(whole) * share)])).field
        == "image.encoded"
    )


@pytest.mark.parametrize(
    "encoded",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n", saved(noise(), "GIF"), saved(noise(), "BMP")],
    ids=["empty", "text", "signature only", "gif", "bmp"],
)
def test_what_is_no_allowed_image_is_rejected(encoded: bytes) -> None:
    assert error_response(ImageInput(encoded=encoded)).field == "image.encoded"


def test_too_many_bytes_are_rejected_unread() -> None:
    violation = error_response(ImageInput(encoded=b"\0" * (limits.MAX_ENCODED_BYTES + 1)))
    assert str(limits.MAX_ENCODED_BYTES) in violation.description


def test_flipped_bytes_never_escape_as_another_error() -> None:
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = np.frombuffer(saved(noise(32, 32), kind), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
            try:
                pixels = decoded(damaged.tobytes())
            except BadImage:
                continue
            assert pixels.shape == (3, 8, 6)


def tensor(shape: tuple[int, ...], values: np.ndarray) -> ImageInput:
    data = values.astype("<f4").tobytes()
    return ImageInput(tensor=TensorInput(shape=shape, data=data))


def test_tensor_is_taken_as_it_is() -> None:
    values = np.random.default_rng(0).random((3, 8, 6), dtype=np.float32)
    np.testing.assert_array_equal(decode(tensor((3, 8, 6), values), SPEC), values)


@pytest.mark.parametrize("shape", [(1, 8, 6), (4, 8, 6), (3, 6, 8), (0, 8, 6), (-3, 8, 6)])
def test_tensor_of_another_shape_is_rejected_with_both_shapes(shape: tuple[int, ...]) -> None:
    violation = error_response(tensor(shape, np.zeros((3, 8, 6))))
    assert violation.field == "image.tensor.shape"
    assert str(list(shape)) in violation.description
    assert "[3, 8, 6]" in violation.description


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_tensor_outside_the_domain_is_rejected(value: float) -> None:
    values = np.full((3, 8, 6), 0.5)
    values[1, 2, 3] = value
    assert error_response(tensor((3, 8, 6), values)).field == "image.tensor.data"


def test_value_just_outside_the_domain_is_named_in_full() -> None:
    values = np.full((3, 8, 6), 1.0000001)
    description = error_response(tensor((3, 8, 6), values)).description
    assert description == "expected finite values in [0, 1], got 1.0000001192092896"


def test_tensor_of_wrong_length_is_rejected() -> None:
    assert error_response(tensor((3, 8, 6), np.zeros((3, 8, 5)))).field == "image.tensor.data"


def chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    return png[:33] + chunk(kind, body) + png[33:]


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment after its start."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


ZIPPED = zlib.compress(b"a" * 2_000_000)
PNG_METADATA = {
    "text": (b"zTXt", b"a\0\0" + ZIPPED),
    "international text": (b"iTXt", b"a\0\1\0\0\0" + ZIPPED),
    "colour profile": (b"iCCP", b"a\0\0" + ZIPPED),
    "damaged colour profile": (b"iCCP", b"a\0\0garbage"),
    "damaged EXIF": (b"eXIf", b"garbage"),
    "EXIF that ends in its header": (b"eXIf", b"II*\0"),
    "damaged physical size": (b"pHYs", b"x"),
    "damaged animation": (b"acTL", b"x"),
    "unknown": (b"abCd", bytes(1000)),
}


@pytest.mark.parametrize("extra", PNG_METADATA.values(), ids=PNG_METADATA.keys())
def test_metadata_of_a_png_decides_nothing(extra: tuple[bytes, bytes]) -> None:
    png = saved(noise(9, 9))
    np.testing.assert_array_equal(decoded(with_chunk(png, *extra)), decoded(png))
    np.testing.assert_array_equal(decoded(png + b"trailing bytes"), decoded(png))


def test_damaged_checksum_of_metadata_decides_nothing() -> None:
    png = saved(noise(9, 9))
    extra = chunk(b"tEXt", b"a\0b")[:-1] + b"!"
    np.testing.assert_array_equal(decoded(png[:33] + extra + png[33:]), decoded(png))


JPEG_METADATA = {
    "marker bytes in a comment": (0xFE, b"\xff\xda" * 100),
    "marker bytes in a thumbnail": (0xE1, b"Exif\0\0" + b"\xff\xda\0\x0c" * 100),
    "damaged EXIF": (0xE1, b"Exif\0\0garbage"),
    "damaged colour profile": (0xE2, b"ICC_PROFILE\0\1\1garbage"),
    "damaged JFIF": (0xE0, b"JFIF\0"),
    "damaged Adobe segment": (0xEE, b"Adobe"),
    "damaged XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<garbage \xff\xda"),
    "orientation in XMP": (0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'),
    "damaged list of images": (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "list of many images": (0xE2, b"MPF\0MM\0*\0\0\0\x08" + b"\xff" * 60_000),
    "Photoshop resources": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\xff\xff"),
    "unknown": (0xE7, b"\xff" * 60_000),
}
WEBP_METADATA = {
    "EXIF": (b"EXIF", b"garbage"),
    "XMP": (b"XMP ", b"<garbage " * 100_000),
    "colour profile": (b"ICCP", b"garbage"),
    "unknown": (b"abcd", b"x"),
}


@pytest.mark.parametrize("extra", JPEG_METADATA.values(), ids=JPEG_METADATA.keys())
def test_metadata_of_a_jpeg_decides_nothing(extra: tuple[int, bytes]) -> None:
    jpeg = saved(noise(9, 9), "JPEG")
    np.testing.assert_array_equal(decoded(with_segment(jpeg, *extra)), decoded(jpeg))


def extended_webp(webp: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A simple WebP of 9 x 9 pixels as an extended one with ``chunks`` behind its pixels."""
    head = b"\x2c" + bytes(3) + (8).to_bytes(3, "little") * 2
    parts = [(b"VP8X", head), *chunks[:1], (webp[12:16], webp[20:]), *chunks]
    body = b"".join(
        kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in parts
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("extra", WEBP_METADATA.values(), ids=WEBP_METADATA.keys())
def test_metadata_of_a_webp_decides_nothing(extra: tuple[bytes, bytes]) -> None:
    webp = saved(noise(9, 9), "WEBP", lossless=True)
    np.testing.assert_array_equal(decoded(extended_webp(webp, extra)), decoded(webp))
    np.testing.assert_array_equal(decoded(webp + b"trailing"), decoded(webp))


def tiff_of_overlapping_values(count: int, order: str = "II") -> bytes:
    """EXIF whose every value is the whole of it: reading them all costs ``count`` times its size.

    The last entry is the orientation 6.
    """
    form = "<" if order == "II" else ">"
    size = 8 + 2 + 12 * (count + 1)
    entries = [struct.pack(f"{form}HHII", 0x9000 + i, 7, size, 0) for i in range(count)]
    turned = struct.pack(f"{form}HHIHH", 0x0112, 3, 1, 6, 0)
    magic = struct.pack(f"{form}HI", 42, 8)
    return order.encode() + magic + struct.pack(f"{form}H", count + 1) + b"".join(entries) + turned


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_exif_that_grows_costs_nothing_and_its_orientation_holds(kind: str, order: str) -> None:
    exif = tiff_of_overlapping_values(5000, order)
    image = noise(9, 9)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    if kind == "PNG":
        encoded = with_chunk(saved(image), b"eXIf", exif)
    elif kind == "JPEG":
        encoded = with_segment(saved(image, "JPEG"), 0xE1, b"Exif\0\0" + exif)
        with Image.open(io.BytesIO(saved(image, "JPEG"))) as stored:
            upright = stored.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    else:
        encoded = extended_webp(saved(image, "WEBP", lossless=True), (b"EXIF", exif))
    tracemalloc.start()
    opened = open_image(encoded, formats=limits.IMAGE_FORMATS, limits=REQUEST_LIMITS)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened.tobytes() == upright.tobytes()
    assert peak_bytes < 2_000_000


def test_orientation_of_an_exif_chunk_with_another_checksum_is_ignored() -> None:
    png = saved(noise(9, 9))
    turned = chunk(b"eXIf", tiff_of_overlapping_values(0))[:-1] + b"!"
    np.testing.assert_array_equal(decoded(png[:33] + turned + png[33:]), decoded(png))


def test_scans_after_the_end_of_a_jpeg_do_not_count() -> None:
    jpeg = saved(noise(9, 9), "JPEG")
    trailer = b"\xff\xda\0\x0c" * 100  # a motion photo has a film there
    np.testing.assert_array_equal(decoded(jpeg + trailer), decoded(jpeg))


def repeated_scans(filler: bytes) -> bytes:
    """A progressive JPEG that repeats its last scan 100 times, each after ``filler``."""
    jpeg = saved(noise(16, 16), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + (filler + jpeg[last:-2]) * 100 + b"\xff\xd9"


@pytest.mark.parametrize("filler", [b"", b"\xff" * 9, b"garbage", b"\xff\xd0", b"\xff\x01\xff\xff"])
def test_scans_are_counted_behind_whatever_a_decoder_skips(filler: bytes) -> None:
    violation = error_response(ImageInput(encoded=repeated_scans(filler)))
    assert "expected at most 64 scans" in violation.description


@pytest.mark.parametrize(
    "extra", [chunk(b"abCd", b""), chunk(b"tEXt", b"a\0b")], ids=["empty", "text"]
)
def test_image_of_too_many_parts_is_rejected(extra: bytes) -> None:
    png = saved(noise())
    encoded = png[:33] + extra * (limits.MAX_IMAGE_READS + 1) + png[33:]
    assert "parts in one image" in error_response(ImageInput(encoded=encoded)).description
    jpeg = saved(noise(), "JPEG")
    encoded = jpeg[:2] + b"\xff\xfe\0\2" * (limits.MAX_IMAGE_READS + 1) + jpeg[2:]
    assert "parts in one image" in error_response(ImageInput(encoded=encoded)).description


def test_transparent_grey_of_sixteen_bits_is_white() -> None:
    values = np.full((8, 6), 0x1000, dtype=np.uint16)
    values[:4] = 0x2000
    png = with_chunk(saved(Image.fromarray(values)), b"tRNS", struct.pack(">H", 0x2000))
    pixels = decoded(png)
    assert pixels[:, :4].min() == 1.0
    np.testing.assert_allclose(pixels[:, 4:], 0x10 / 255, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    png = saved(noise(5, 7), exif=exif)
    upright = open_image(png, formats=("PNG",), limits=REQUEST_LIMITS)
    with Image.open(io.BytesIO(png)) as stored:
        assert upright.tobytes() == ImageOps.exif_transpose(stored).tobytes()
    as_stored = open_image(png, formats=("PNG",), limits=REQUEST_LIMITS, is_oriented=False)
    assert as_stored.tobytes() == noise(5, 7).tobytes()


@pytest.mark.parametrize("limited", ["byte_count", "pixel_count", "scan_count", "part_count"])
def test_each_limit_is_the_callers(limited: str) -> None:
    jpeg = saved(noise(9, 9), "JPEG")
    open_image(jpeg, formats=("JPEG",), limits=FILE_LIMITS)
    low = dataclasses.replace(FILE_LIMITS, **{limited: 0})
    with pytest.raises(UnusableImage, match="^expected at most 0"):
        open_image(jpeg, formats=("JPEG",), limits=low)


def test_format_that_is_not_permitted_is_named() -> None:
    with pytest.raises(UnusableImage, match=r"^expected JPEG, got a PNG \(\d+ bytes\)$"):
        open_image(saved(noise()), formats=("JPEG",), limits=REQUEST_LIMITS)
