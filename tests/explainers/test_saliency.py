"""Grad-CAM, LIME and input gradients on a network that looks at one corner."""

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from candor.explainers.feature_map import last_feature_layer
from candor.explainers.saliency import grad_cam, input_gradient, lime
from tests.search.linear import LinearClassifier

HEIGHT, WIDTH = 24, 16


class Corner(nn.Module):
    """Class 1 is the brightness of the upper left quarter, as a feature map says it."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 27)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blur(images)
        corner = maps[:, 0, : HEIGHT // 2, : WIDTH // 2].mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(corner), 10 * corner], dim=1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth images, so that segments are patches."""
    coarse = torch.rand(3, 3, 6, 4, generator=Generator().manual_seed(0))
    return functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")


def _share_in_corner(saliency: Tensor) -> Tensor:
    saliency = saliency.clamp_min(0)
    corner = saliency[:, : HEIGHT // 2, : WIDTH // 2].sum(dim=(1, 2))
    return corner / saliency.sum(dim=(1, 2))


def test_lime_finds_the_corner_and_repeats_by_seed(images: Tensor) -> None:
    targets = torch.ones(3, dtype=torch.int64)
    found = [lime(Corner(), images, targets, samples=200, seeds=[1, 2, 3]) for _ in range(2)]
    assert found[0].shape == (3, HEIGHT, WIDTH)
    assert torch.equal(found[0], found[1])
    assert bool((_share_in_corner(found[0]) > 0.5).all())


def test_lime_leaves_the_global_generator_alone(images: Tensor) -> None:
    network = Corner()
    before = torch.random.get_rng_state()
    lime(network, images[:1], torch.tensor([1]), samples=50, seeds=[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_input_gradient_is_the_closed_form() -> None:
    network = LinearClassifier((3, 8, 6), 4)
    images = torch.rand(3, 3, 8, 6, generator=Generator().manual_seed(1))
    targets = torch.tensor([0, 2, 3])
    expected = network.head.weight[targets].view(3, 3, 8, 6)
    assert torch.allclose(input_gradient(network, images, targets), expected)


def test_grad_cam_has_the_size_of_the_image(images: Tensor) -> None:
    maps = grad_cam(Corner(), images, torch.ones(3, dtype=torch.int64))
    assert maps.shape == (3, HEIGHT, WIDTH)
    # One channel with one positive weight: the map is the blurred image itself.
    blurred = Corner().blur(images)[:, 0]
    for saliency, expected in zip(maps, blurred, strict=True):
        stacked = torch.stack([saliency.flatten(), expected.flatten()])
        assert float(torch.corrcoef(stacked)[0, 1]) == pytest.approx(1.0, abs=1e-5)


def test_network_without_a_feature_map_is_refused() -> None:
    network = LinearClassifier((3, 8, 6), 4)
    with pytest.raises(ValueError, match="expected a layer with a feature map, got none"):
        last_feature_layer(network, torch.rand(1, 3, 8, 6))
