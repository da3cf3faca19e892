"""Random crop and flip against a slow one written with slices."""

import pytest
import torch
from torch import Generator
from torch.nn import functional

from candor.data.augment import random_crop_flip

BATCHES = pytest.mark.parametrize("batch", [1, 3, 8])


@BATCHES
def test_every_image_is_a_crop_of_its_reflected_self(batch, generator):
    images = torch.rand(batch, 3, 6, 9)
    cropped = random_crop_flip(images, padding=2, generator=generator)
    assert (cropped.shape, cropped.dtype) == (images.shape, images.dtype)
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    for image, source in zip(cropped, padded, strict=True):
        crops = [
            source[:, row : row + 6, column : column + 9] for row in range(5) for column in range(5)
        ]
        matches = [crop for crop in crops + [c.flip(2) for c in crops] if torch.equal(crop, image)]
        assert len(matches) == 1


@BATCHES
def test_without_padding_images_are_only_flipped(batch, generator):
    images = torch.rand(batch, 1, 4, 7)
    for image, source in zip(
        random_crop_flip(images, padding=0, generator=generator), images, strict=True
    ):
        assert torch.equal(image, source) or torch.equal(image, source.flip(2))


def test_half_are_flipped_and_every_shift_occurs(generator):
    row = torch.arange(9.0).expand(2000, 1, 9, 9)
    pixels = row * 10 + row.transpose(2, 3)
    cropped = random_crop_flip(pixels, padding=1, generator=generator)
    is_flipped = cropped[:, 0, 4, 0] > cropped[:, 0, 4, 8]
    assert is_flipped.float().mean().item() == pytest.approx(0.5, abs=0.05)
    centres, counts = cropped[:, 0, 4, 4].unique(return_counts=True)
    assert sorted(centres.tolist()) == [33, 34, 35, 43, 44, 45, 53, 54, 55]
    assert counts.min() > 2000 / 9 * 0.7


def test_same_seed_gives_the_same_images_and_the_input_stays():
    images = torch.rand(8, 3, 8, 10)
    before = images.clone()
    first, second, other = (
        random_crop_flip(images, padding=3, generator=Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
