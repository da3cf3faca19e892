"""The Lipschitz baselines against matrices whose singular values are known."""

import pytest
import torch
from torch import Generator, nn

from tests.training.tiny import colours, config_of, new_network
from training.loop import train
from training.step import step_loss
from training.weight_penalties import (
    limit_spectral_norms,
    parseval_penalty,
    spectral_norm,
    spectral_penalty,
    weight_matrices,
)

VALUES = torch.tensor([3.0, 1.5, 0.5])


def matrix_of(rows, columns):
    """With the singular values 3, 1.5 and 0.5."""
    generator = torch.Generator().manual_seed(1)
    left, right = (
        torch.linalg.qr(torch.randn(size, 3, generator=generator, dtype=torch.float64))[0]
        for size in (rows, columns)
    )
    return left @ torch.diag(VALUES.double()) @ right.T


def network_of(matrix):
    """One convolution and one linear layer whose matrix is this one, and one that counts not."""
    rows, columns = matrix.shape
    network = nn.Sequential(
        nn.Conv2d(columns // 6, rows, (2, 3)), nn.BatchNorm2d(rows), nn.Linear(columns, rows)
    ).double()
    with torch.no_grad():
        network[0].weight.copy_(matrix.view_as(network[0].weight))
        network[2].weight.copy_(matrix)
    return network


@pytest.mark.parametrize(("rows", "columns"), [(3, 12), (3, 6), (12, 6)])
def test_penalties_follow_from_the_singular_values(rows, columns):
    network = network_of(matrix_of(rows, columns))
    squares = VALUES.double().square()
    missing = min(rows, columns) - 3  # singular values of 0, each of which costs 1/2
    expected = 2 * 0.5 * ((squares - 1).square().sum() + missing)
    torch.testing.assert_close(parseval_penalty(network), expected)
    torch.testing.assert_close(spectral_penalty(network), 2 * 0.5 * squares[0], rtol=1e-4, atol=0)


def test_gradients_are_those_of_the_closed_forms():
    matrix = matrix_of(3, 12)
    network = network_of(matrix)
    gradient = torch.autograd.grad(parseval_penalty(network), network[2].weight)[0]
    torch.testing.assert_close(gradient, 2 * (matrix @ matrix.T - torch.eye(3)) @ matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    gradient = torch.autograd.grad(spectral_penalty(network), network[2].weight)[0]
    expected = values[0] * torch.outer(left[:, 0], right[0])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0.02)


def test_power_iteration_never_exceeds_the_norm_and_reaches_it():
    matrix = matrix_of(20, 30)
    found = [spectral_norm(matrix, iterations=count).item() for count in (1, 3, 10, 40)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(3.0, rel=1e-6)
    assert spectral_norm(matrix * 0).item() == 0.0


def test_layers_above_the_limit_are_scaled_down_to_it_and_others_stay():
    network = network_of(matrix_of(3, 12))
    with torch.no_grad():
        network[2].weight.mul_(0.1)
    small, scale = network[2].weight.clone(), network[1].weight.clone()
    limit_spectral_norms(network, 0.9)
    norms = [torch.linalg.matrix_norm(matrix, 2).item() for matrix in weight_matrices(network)]
    assert norms == pytest.approx([0.9, 0.3], rel=1e-4)
    assert torch.equal(network[2].weight, small)
    assert torch.equal(network[1].weight, scale)
    assert network[0].weight.requires_grad


def test_of_a_network_without_layers_nothing_is_punished():
    assert parseval_penalty(nn.Flatten()).item() == spectral_penalty(nn.ReLU()).item() == 0.0


def test_a_step_adds_each_with_its_weight():
    network, data = new_network(), colours()
    found = step_loss(
        network,
        data.images(slice(4)),
        data.labels[:4],
        config=config_of(parseval=0.5, spectral=0.25, output_zeroing=0.1),
        class_count=3,
        is_penalised=False,
        generator=Generator().manual_seed(0),
    )
    outputs = network(data.images(slice(4))).square().sum(1).mean()
    expected = 0.1 * outputs + 0.5 * parseval_penalty(network) + 0.25 * spectral_penalty(network)
    torch.testing.assert_close(found.added, expected)


def test_a_run_keeps_every_layer_below_the_limit(tmp_path):
    network = new_network()
    config = config_of(spectral_limit=0.4, psi_mode="fixed", epochs=1)
    train(network, colours(), config, run_dir=tmp_path)
    norms = [torch.linalg.matrix_norm(matrix, 2).item() for matrix in weight_matrices(network)]
    assert max(norms) <= 0.4 * 1.1  # ten power iterations
    assert max(norms) >= 0.4 * 0.99
