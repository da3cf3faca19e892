"""Overly confident adversarial images, on a linear classifier and on an untrained network."""

from pathlib import Path

import pytest
import torch

from candor.annotation.candidates import overly_confident
from candor.models.folder import load_model
from tests.search.linear import LinearClassifier

SHAPE = (3, 6, 5)


def grey_pixels(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(100, 156, (count, *SHAPE), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_every_number_is_that_of_the_image_in_8_bits(count: int) -> None:
    network = LinearClassifier(SHAPE, 4)
    pixels = grey_pixels(count)
    before = pixels.clone()
    labels = network(pixels / 255.0).argmax(1)
    found = overly_confident(network, pixels, labels, steps=150)
    assert torch.equal(pixels, before)
    assert len(found.indices) == count
    shares = network(found.pixels / 255.0).softmax(1)
    top = shares.topk(2).values
    assert torch.equal(found.classes, shares.argmax(1))
    assert bool((found.classes != labels[found.indices]).all())
    assert bool((found.margins > 0.5).all())
    torch.testing.assert_close(found.margins, top[:, 0] - top[:, 1])
    difference = (found.pixels.double() - pixels[found.indices].double()) / 255.0
    expected = difference.square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(found.rmse, expected, rtol=1e-5, atol=0.0)


def test_change_is_small_even_after_rounding() -> None:
    network = LinearClassifier(SHAPE, 4)
    pixels = grey_pixels(8)
    labels = network(pixels / 255.0).argmax(1)
    found = overly_confident(network, pixels, labels, steps=300)
    # The margin is a hair above the goal: no more was changed than that takes.
    assert bool((found.margins < 0.75).all())


def test_images_already_confidently_wrong_or_never_fooled_are_left_out() -> None:
    network = LinearClassifier(SHAPE, 4)
    pixels = grey_pixels(6)
    shares = network(pixels / 255.0).softmax(1)
    assert bool((shares.amax(1) > 0.9).any())
    wrong = shares.argmin(1)
    found = overly_confident(network, pixels, wrong, steps=50)
    top = shares.topk(2).values
    is_confidently_wrong = (top[:, 0] - top[:, 1]) > 0.5
    assert is_confidently_wrong[found.indices].sum() == 0
    never = overly_confident(network, pixels, shares.argmax(1), steps=1)
    assert len(never.indices) == len(never.pixels) == len(never.rmse) == 0


def test_network_with_nothing_found_gives_nothing(tiny_models_dir: Path) -> None:
    network = load_model(tiny_models_dir / "tiny").network
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    found = overly_confident(network, pixels, torch.tensor([0, 1, 2]), steps=1)
    assert found.pixels.shape == (0, 3, 32, 32)
    assert found.pixels.dtype == torch.uint8
