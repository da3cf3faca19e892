"""Saliencies held against explanations: closed forms on a linear network, and what maps share."""

import numpy as np
import pytest
import torch
from torch import Generator

from candor.contracts.api import Method
from candor.contracts.worker import COMPARED_ARRAYS, CompareItem
from candor.explainers.compare import compare_item
from candor.explainers.overlap import TOP_SHARE, cosine, energy_share, rank_correlation
from candor.explainers.saliency import gradient_size, integrated_gradients
from tests.search.linear import LinearClassifier

SHAPE = (3, 8, 6)


@pytest.fixture(scope="module")
def network() -> LinearClassifier:
    return LinearClassifier(SHAPE, 4)


def test_integrated_gradients_and_gradient_are_the_closed_forms(network: LinearClassifier) -> None:
    images = torch.rand(3, *SHAPE, generator=Generator().manual_seed(2))
    targets = torch.tensor([0, 3, 1])
    weights = network.head.weight[targets].view(3, *SHAPE)
    path = integrated_gradients(network, images, targets)
    assert torch.allclose(path, (weights * images).sum(dim=1), atol=1e-5)
    assert torch.allclose(gradient_size(network, images, targets), weights.abs().amax(dim=1))


def test_energy_share_counts_the_top_fifth_and_ties_in_proportion() -> None:
    saliency = np.arange(20.0).reshape(4, 5)
    energy = np.zeros((4, 5))
    energy[3, 1:], energy[0, 0] = 1.0, 1.0
    assert energy_share(energy, saliency) == pytest.approx(4 / 5)
    assert energy_share(energy, np.zeros((4, 5))) == pytest.approx(TOP_SHARE)
    assert energy_share(np.zeros((4, 5)), saliency) == TOP_SHARE


def test_correlations_of_maps() -> None:
    first = np.random.default_rng(3).random((4, 5))
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1.0)
    assert cosine(first, 3 * first) == pytest.approx(1.0)
    assert rank_correlation(first, -first) == pytest.approx(-1.0)
    assert cosine(first, -first) == pytest.approx(-1.0)
    assert rank_correlation(first, np.ones((4, 5))) == 0.0
    assert cosine(first, np.zeros((4, 5))) == 0.0


@pytest.mark.parametrize("method", [Method.EXPLANATION, Method.GRADIENT, Method.LIME])
def test_an_item_is_scored_by_its_maps(network: LinearClassifier, method: Method) -> None:
    generator = np.random.default_rng(4)
    arrays = {name: generator.random(SHAPE, np.float32) for name in COMPARED_ARRAYS}
    kept = {name: array.copy() for name, array in arrays.items()}
    item = CompareItem(method=method, target=2, seed=5)
    scores, maps = compare_item(network, item, arrays)
    before, after = (maps[name].astype(np.float64) for name in ("saliency", "perturbed_saliency"))
    energy = np.square(arrays["explanation"].astype(np.float64) - arrays["image"]).sum(axis=0)
    assert scores.energy_share == pytest.approx(energy_share(energy, before), abs=1e-5)
    assert scores.rank_correlation == pytest.approx(rank_correlation(before, after))
    assert scores.cosine == pytest.approx(cosine(before, after))
    if method is Method.EXPLANATION:
        np.testing.assert_allclose(before, energy, atol=1e-5)
    if method is Method.GRADIENT:  # a linear network's does not know the image
        assert scores.cosine == pytest.approx(1.0)
    again, _ = compare_item(network, item, arrays)
    assert again == scores
    for name, array in kept.items():
        np.testing.assert_array_equal(arrays[name], array)
