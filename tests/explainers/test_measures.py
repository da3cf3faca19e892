"""Measures of explanations against closed forms."""

import pytest
import torch
from torch import Tensor, nn

from candor.audit.real_images import RealImages
from candor.explainers.measures import (
    TRANSITION_STEPS,
    nearest_distances,
    says,
    share_up_to,
    transition_score,
)
from candor.explainers.penultimate import NoPenultimateLayer, penultimate
from tests.fixtures.audit import CLASSES, SHAPE, small_data, small_network


class MeanOf(nn.Module):
    """Confidence of class 1 is the mean of the chosen pixels, of class 0 the rest."""

    def __init__(self, chosen: Tensor) -> None:
        super().__init__()
        self.chosen = chosen

    def forward(self, images: Tensor) -> Tensor:
        share = images[:, :, self.chosen].mean(dim=(1, 2)).clamp(1e-9, 1 - 1e-9)
        return torch.stack([1 - share, share], dim=1).log()


@pytest.mark.parametrize("part", [1.0, 0.5, 0.125])
def test_transition_score_counts_how_early_the_network_is_convinced(part: float) -> None:
    """Of 10 x 5 pixels one is put in a step; the first ``part`` of them alone convinces."""
    chosen = torch.zeros(10, 5, dtype=torch.bool)
    count = round(part * 50)
    chosen.view(-1)[torch.randperm(50, generator=torch.Generator().manual_seed(3))[:count]] = True
    network, image = MeanOf(chosen), torch.zeros(3, 10, 5)
    explanation = torch.where(chosen, 1.0, 0.1).expand(3, -1, -1)
    # The target's confidence rises evenly to 1 and stays, the label's falls as much.
    expected = 1 - count / TRANSITION_STEPS
    score = transition_score(network, image, explanation, target=1, label=0)
    assert score == pytest.approx(expected, abs=1e-6)
    swapped = transition_score(network, image, explanation, target=0, label=1)
    assert swapped == pytest.approx(-expected, abs=1e-6)


def test_an_explanation_that_changes_nothing_has_the_score_of_the_image() -> None:
    network, image = MeanOf(torch.ones(4, 6, dtype=torch.bool)), torch.full((3, 4, 6), 0.2)
    score = transition_score(network, image, image, target=1, label=0)
    assert score == pytest.approx(0.2 - 0.8, abs=1e-6)


def test_features_are_the_input_of_the_last_linear_layer() -> None:
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(144, 7), nn.ReLU())
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    whole = nn.Sequential(hidden, nn.Linear(7, 4), nn.Identity()).eval()
    assert torch.equal(penultimate(whole, images), hidden(images))

    class Graph(nn.Module):  # as imported graphs do it
        def forward(self, images: Tensor) -> Tensor:
            return torch.matmul(hidden(images), torch.ones(7, 4)) + 1

    assert torch.equal(penultimate(Graph(), images), hidden(images))
    for other in (nn.Sequential(nn.Conv2d(3, 4, (8, 6)), nn.Flatten()),
                  nn.Sequential(hidden, nn.Unflatten(1, (7, 1, 1)), nn.Conv2d(7, 4, 1),
                                nn.Flatten())):  # fmt: skip
        with pytest.raises(NoPenultimateLayer, match="expected logits of a linear layer"):
            penultimate(other, images)


def test_distances_and_percentiles_are_exact() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    others = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    distances = nearest_distances(points, others)
    assert distances.tolist() == pytest.approx([1.0, 4.0])
    assert [share_up_to(value, distances) for value in (0.5, 1.0, 9.0)] == [0.0, 0.5, 1.0]


def test_a_training_image_is_nearer_than_any_test_image_and_grey_is_not() -> None:
    network = small_network()
    training, test = small_data(network, 40, seed=5), small_data(network, 30, seed=6)
    real = RealImages.of(network, training, test, seed=0)
    label = int(training.labels.bincount().argmax())
    row = real.training_rows[label][:1]
    assert int(training.labels[row]) == label
    assert real.percentile(training.images(row)[0], label) == 0.0
    far = real.percentile(1000 * torch.ones(SHAPE), label)
    assert far == 1.0
    # Every class has its share, and another training image is another digest.
    assert sorted(torch.cat(real.training_rows).tolist()) == list(range(40))
    assert real.digest() != RealImages.of(network, test, training, seed=0).digest()
    empty = small_data(network, 1, seed=5)
    absent = (int(empty.labels[0]) + 1) % len(CLASSES)
    without = RealImages.of(network, empty, test, seed=0)
    assert without.percentile(test.images(slice(0, 1))[0], absent) is None


def test_says_is_the_class_of_each_image() -> None:
    network, images = small_network(), torch.rand(3, *SHAPE)
    found = network(images).argmax(1)
    assert says(network, images, found).all()
    assert not says(network, images, (found + 1) % 4).any()
