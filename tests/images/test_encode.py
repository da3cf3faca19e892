"""Images as PNG files."""

import io

import numpy as np
import pytest
from PIL import Image

from candor.images.encode import (
    encode_overlay,
    encode_png,
    encode_png_toward,
    encode_preview,
    png_of,
)
from candor.images.pixels import levels_of, to_pixels


def noise(channels: int = 3, height: int = 8, width: int = 6) -> np.ndarray:
    """Pixels on the 8-bit grid."""
    shape = (channels, height, width)
    return to_pixels(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def shown(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return to_pixels(levels_of(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_pixels_on_the_grid_is_exact(channels: int) -> None:
    np.testing.assert_array_equal(shown(encode_png(noise(channels))), noise(channels))


def test_values_are_clipped_and_rounded_to_the_nearest_level() -> None:
    image = np.full((1, 1, 4), [-0.5, 100.4 / 255, 100.6 / 255, 1.5], np.float32)
    levels = shown(encode_png(image)) * 255
    np.testing.assert_allclose(levels[0, 0], [0, 100, 101, 255], atol=1e-4)


def test_png_rounded_towards_the_original_never_moves_away() -> None:
    random = np.random.default_rng(3)
    original = noise()
    change = random.normal(0, 0.01, original.shape) * (random.random(original.shape) < 0.7)
    explained = np.clip(original + change, 0, 1).astype(np.float32)
    rounded = shown(encode_png_toward(explained, original)).astype(np.float64)
    assert (abs(rounded - original) <= abs(explained - original) + 1e-6).all()
    np.testing.assert_array_equal(rounded[change == 0], original[change == 0])
    assert (rounded != original).any()


def test_preview_keeps_the_aspect_ratio_and_never_enlarges() -> None:
    assert shown(encode_preview(noise(3, 200, 100), 96)).shape == (3, 96, 48)
    assert shown(encode_preview(noise(), 96)).shape == (3, 8, 6)


def test_overlay_is_yellow_where_the_saliency_is_largest() -> None:
    saliency = np.zeros((8, 6), np.float32)
    saliency[2, 3] = 1.0
    overlay = shown(encode_overlay(np.full((3, 8, 6), 0.5, np.float32), saliency))
    assert overlay[0, 2, 3] > 0.8 > 0.4 > overlay[2, 2, 3]
    assert overlay[2, 0, 0] > overlay[0, 0, 0]
    flat = encode_overlay(noise(), np.zeros((8, 6), np.float32))
    assert shown(flat).shape == (3, 8, 6)


def test_png_of_an_image_keeps_its_mode() -> None:
    with Image.open(io.BytesIO(png_of(Image.new("LA", (3, 2))))) as image:
        assert (image.mode, image.size) == ("LA", (3, 2))
