"""Cropping and resizing."""

import numpy as np
import pytest
from PIL import Image

from candor.contracts.card import Preprocessing
from candor.images.geometry import (
    Box,
    Size,
    crop_box,
    fit,
    prepare,
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


def test_shorter_edge_repeats_the_two_steps_of_the_libraries() -> None:
    image = noise(101, 67)
    rule = Preprocessing(resize="shorter-edge", edge=(40,), interpolation="bicubic")
    resized = image.resize((int(40 * 101 / 67), 40), Image.Resampling.BICUBIC)
    expected = resized.crop((14, 4, 46, 36))
    assert prepare(image, rule, Size(32, 32)).tobytes() == expected.tobytes()


def test_crop_first_reads_nothing_beside_the_part() -> None:
    image = noise(80, 64)
    rule = Preprocessing(resize="crop-first", crop=0.875, interpolation="bicubic")
    expected = image.crop((12, 4, 68, 60)).resize((28, 28), Image.Resampling.BICUBIC)
    assert prepare(image, rule, Size(28, 28)).tobytes() == expected.tobytes()


def test_exact_resizes_before_it_crops() -> None:
    image = noise(33, 90)
    rule = Preprocessing(resize="exact", edge=(20, 24), interpolation="bilinear")
    expected = image.resize((24, 20), Image.Resampling.BILINEAR).crop((4, 2, 20, 18))
    assert prepare(image, rule, Size(16, 16)).tobytes() == expected.tobytes()


def test_without_antialias_single_pixels_are_read() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    rule = Preprocessing(interpolation="nearest", antialias=False)
    values = np.asarray(prepare(Image.fromarray(stripes), rule, Size(8, 8)))
    assert set(np.unique(values)) <= {0, 255}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"resize": "shorter-edge"}, "edge: expected 1"),
        ({"resize": "exact", "edge": (3,)}, "edge: expected 2"),
        ({"antialias": False}, "interpolation"),
        ({"normalization": "candor"}, "mean, std"),
    ],
)
def test_contradicting_rule_names_the_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Preprocessing(**changes)  # type: ignore[arg-type]
