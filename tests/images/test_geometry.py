"""Cropping and resizing."""

import numpy as np
import pytest
from PIL import Image

from candor.images.geometry import (
    Box,
    Size,
    crop_box,
    fit,
    resize,
    scale_of_edge,
    scale_to_cover,
    whole,
)


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_image_of_the_size_is_returned_as_it_is() -> None:
    image = noise(6, 8)
    assert fit(image, Size(8, 6)) is image


@pytest.mark.parametrize(("across", "left"), [(0.0, 10.0), (0.5, 20.0), (1.0, 30.0)])
def test_crop_moves_over_the_room_of_its_box(across: float, left: float) -> None:
    box = Box(10.0, 5.0, 50.0, 25.0)
    part = crop_box(box, Size(32, 32), scale_to_cover(box, Size(32, 32)), across, 0.5)
    assert part == Box(left, 5.0, left + 20.0, 25.0)


def test_edge_of_the_size_is_the_largest_crop() -> None:
    box = whole(noise(90, 60))
    assert scale_of_edge(box, 20) == scale_to_cover(box, Size(20, 20)) == 3.0


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (7, 500), (1023, 511)])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 1.0 - 1e-9])
def test_no_crop_passes_the_edge_of_its_image(size: tuple[int, int], place: float) -> None:
    image, target = noise(*size), Size(17, 13)
    box = crop_box(whole(image), target, scale_to_cover(whole(image), target), place, place)
    assert resize(image, target, box).size == (13, 17)


def test_whole_pixels_at_scale_one_are_not_resampled() -> None:
    image = noise(40, 30)
    part = crop_box(whole(image), Size(20, 20), scale_of_edge(whole(image), 30))
    assert part == Box(10.0, 5.0, 30.0, 25.0)
    assert resize(image, Size(20, 20), part).tobytes() == image.crop((10, 5, 30, 25)).tobytes()


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    values = np.asarray(fit(Image.fromarray(stripes), Size(8, 8))).astype(int)
    assert abs(values - 127.5).max() < 8
