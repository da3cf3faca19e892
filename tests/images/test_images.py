"""Images in and out of the gateway."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from candor.contracts import limits
from candor.contracts.api import ImageInput, InputSpec, TensorInput
from candor.images import pixels as images

SPEC = InputSpec(channels=3, height=8, width=6, lower=0.0, upper=1.0)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(height: int = 8, width: int = 6) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def decoded(encoded: bytes, spec: InputSpec = SPEC) -> np.ndarray:
    return images.decode(ImageInput(encoded=encoded), spec)


def error_response(image: ImageInput) -> images.FieldViolation:
    with pytest.raises(images.BadImage) as caught:
        images.decode(image, SPEC)
    return caught.value.violation


def huge_png(width: int, height: int) -> bytes:
    """A valid header and no pixels worth naming."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_image_of_the_right_size_is_not_resampled() -> None:
    picture = noise()
    expected = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    pixels = decoded(saved(picture))
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
    picture = Image.new("RGB", (8, 6), "black")
    picture.paste((255, 255, 255), (0, 0, 4, 6))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise to view
    pixels = decoded(saved(picture, exif=exif))
    assert pixels[:, :4].min() == 1.0
    assert pixels[:, 4:].max() == 0.0


def test_one_channel_model_gets_grey() -> None:
    grey = InputSpec(channels=1, height=8, width=6, lower=0.0, upper=1.0)
    assert decoded(saved(noise()), grey).shape == (1, 8, 6)


def test_huge_png_is_refused_by_its_header() -> None:
    tracemalloc.start()
    violation = error_response(ImageInput(encoded=huge_png(20_000, 20_000)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert violation.field == "image.encoded"
    assert "20000x20000" in violation.description
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_image_is_refused(kind: str, share: float) -> None:
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
def test_what_is_no_allowed_image_is_refused(encoded: bytes) -> None:
    assert error_response(ImageInput(encoded=encoded)).field == "image.encoded"


def test_too_many_bytes_are_refused_unread() -> None:
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
            except images.BadImage:
                continue
            assert pixels.shape == (3, 8, 6)


def tensor(shape: tuple[int, ...], values: np.ndarray) -> ImageInput:
    data = values.astype("<f4").tobytes()
    return ImageInput(tensor=TensorInput(shape=shape, data=data))


def test_tensor_is_taken_as_it_is() -> None:
    values = np.random.default_rng(0).random((3, 8, 6), dtype=np.float32)
    np.testing.assert_array_equal(images.decode(tensor((3, 8, 6), values), SPEC), values)


@pytest.mark.parametrize("shape", [(1, 8, 6), (4, 8, 6), (3, 6, 8), (0, 8, 6), (-3, 8, 6)])
def test_tensor_of_another_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    violation = error_response(tensor(shape, np.zeros((3, 8, 6))))
    assert violation.field == "image.tensor.shape"
    assert str(list(shape)) in violation.description
    assert "[3, 8, 6]" in violation.description


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_tensor_outside_the_domain_is_refused(value: float) -> None:
    values = np.full((3, 8, 6), 0.5)
    values[1, 2, 3] = value
    assert error_response(tensor((3, 8, 6), values)).field == "image.tensor.data"


def test_tensor_of_wrong_length_is_refused() -> None:
    assert error_response(tensor((3, 8, 6), np.zeros((3, 8, 5)))).field == "image.tensor.data"


def test_png_rounded_toward_the_original_never_moves_away() -> None:
    random = np.random.default_rng(3)
    original = random.integers(0, 256, (3, 8, 6)).astype(np.float32) / np.float32(255)
    change = random.normal(0, 0.01, original.shape) * (random.random(original.shape) < 0.7)
    explained = np.clip(original + change, 0, 1).astype(np.float32)
    shown = decoded(images.encode_png_toward(explained, original)).astype(np.float64)
    assert (abs(shown - original) <= abs(explained - original) + 1e-6).all()
    np.testing.assert_array_equal(shown[change == 0], original[change == 0])
    assert (shown != original).any()


def test_png_of_the_input_is_exact() -> None:
    pixels = decoded(saved(noise()))
    np.testing.assert_array_equal(decoded(images.encode_png(pixels)), pixels)
