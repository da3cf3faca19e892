"""Certificates and estimates against the closed form of a linear model."""

import pytest
import torch
from scipy.stats import beta
from torch import Generator, Tensor, nn

from candor.robustness.clever import clever
from candor.robustness.smoothing import ABSTAIN, certify, lower_bound
from tests.search.linear import LinearClassifier, nearest_rmse

SHAPE = (3, 8, 6)


def _images(count: int) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=Generator().manual_seed(1))


def _exact_l2(network: LinearClassifier, images: Tensor) -> Tensor:
    labels = network(images).argmax(1)
    return nearest_rmse(network, images, labels) * images[0].numel() ** 0.5


@pytest.mark.parametrize("class_count", [2, 5])
def test_certificate_never_exceeds_the_exact_distance(class_count: int) -> None:
    network = LinearClassifier(SHAPE, class_count)
    images = _images(12)
    exact = _exact_l2(network, images)
    labels = network(images).argmax(1)
    certified = 0
    for index, image in enumerate(images):
        found = certify(
            network, image, sigma=0.05, selection_samples=50, samples=1000, alpha=0.001,
            generator=Generator().manual_seed(index),
        )  # fmt: skip
        if found.prediction == ABSTAIN:
            assert found.radius_l2 == 0
            continue
        certified += 1
        assert found.prediction == labels[index]
        assert 0 < found.radius_l2 <= exact[index]
    assert certified >= 4


def test_undecided_image_is_abstained_from() -> None:
    network = LinearClassifier(SHAPE, 2)
    found = certify(
        network, torch.full(SHAPE, 0.5), sigma=0.3, selection_samples=50, samples=200, alpha=0.001,
        generator=Generator().manual_seed(0),
    )  # fmt: skip
    assert found.prediction == ABSTAIN


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (7, 10), (10, 10), (990, 1000)])
def test_lower_bound_is_the_quantile_of_the_beta_distribution(hits: int, samples: int) -> None:
    expected = beta.ppf(0.001, hits, samples - hits + 1) if hits else 0.0
    assert lower_bound(hits, samples, 0.001) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "value"), [("sigma", 0.0), ("alpha", 0.5), ("samples", 0), ("selection_samples", 0)]
)
def test_bad_arguments_are_named(name: str, value: float) -> None:
    arguments = {"sigma": 0.1, "selection_samples": 1, "samples": 1, "alpha": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"{name}: expected"):
        certify(LinearClassifier(SHAPE, 2), _images(1)[0], generator=Generator(), **arguments)


@pytest.mark.parametrize("class_count", [2, 5])
def test_clever_of_a_linear_model_is_exact_and_no_larger(class_count: int) -> None:
    network = LinearClassifier(SHAPE, class_count)
    images = _images(6)
    for image, exact in zip(images, _exact_l2(network, images).tolist(), strict=True):
        score = clever(
            network, image, ball_l2=50.0, batches=5, samples=4, generator=Generator().manual_seed(0)
        )
        assert score.radius_l2 == pytest.approx(exact, rel=1e-4)


def test_clever_is_limited_by_its_ball_and_repeats_by_seed() -> None:
    class Curved(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            energy = images.square().flatten(1).sum(dim=1)
            return torch.stack([energy, torch.zeros_like(energy)], dim=1)

    image = _images(1)[0]

    def score(ball: float) -> float:
        generator = Generator().manual_seed(3)
        found = clever(Curved(), image, ball_l2=ball, batches=8, samples=16, generator=generator)
        return found.radius_l2

    assert score(0.05) == 0.05
    assert score(9.0) == score(9.0)
    # Only at the origin do both classes tie, and the gradient 2|x| is at least as long as at a
    # point of the ball, so the estimate stays below |x|^2 over the shortest of them.
    assert 0.0 < score(9.0) < float(image.norm())
