"""Other ways to differentiate L_adv against double backward, with batch statistics."""

import pytest
import torch
from torch import Generator

from candor.nets.architectures import NetworkSpec, build_network
from tests.training.tiny import CLASSES, colours, config_of, new_network
from training import finite_difference
from training.finite_difference import finite_difference_penalty
from training.loop import train
from training.regularizers import PenaltyMode
from training.step import step_loss

MODES = (PenaltyMode.DOUBLE_BACKWARD, PenaltyMode.FINITE_DIFFERENCE)
OTHERS = tuple(mode for mode in PenaltyMode if mode is not PenaltyMode.DOUBLE_BACKWARD)


def batch_of(batch):
    generator = torch.Generator().manual_seed(batch)
    images = torch.rand(batch, 3, 8, 6, dtype=torch.float64, generator=generator)
    return images, torch.arange(batch) % CLASSES


def losses_of(network, images, labels, **changes):
    return step_loss(
        network,
        images,
        labels,
        config=config_of(**changes),
        class_count=CLASSES,
        is_penalised=True,
        generator=Generator().manual_seed(0),
    )


def penalty_gradient(network, images, labels, **changes):
    network.zero_grad()
    losses = losses_of(network, images, labels, **changes)
    (losses.penalty + 0.0 * losses.cross_entropy).backward()
    return losses.penalty.detach(), torch.cat([w.grad.flatten() for w in network.parameters()])


@pytest.mark.parametrize("mode", OTHERS)
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"power": 1.0},
        {"power": 5.0, "pairing": "sum", "true_class_share": 1.0},
        {"cross_power": 2.0, "power": 1.0},
        {"dead_zone": 0.02},
        {"outputs_per_image": 2},
        {"outputs_per_image": CLASSES, "power": 3.0},
    ],
    ids=str,
)
def test_gradient_is_that_of_double_backward(batch, changes, mode, monkeypatch):
    """By float64's own step: in so few activations one knee crossed would show."""
    monkeypatch.setattr(finite_difference, "_STEP", 1e-8)
    network = new_network().double()
    torch.nn.init.kaiming_uniform_(network.stages[1][0].conv2.weight)
    images, labels = batch_of(batch)
    (expected_value, expected), (value, gradient) = (
        penalty_gradient(network, images, labels, penalty_mode=either, **changes)
        for either in (PenaltyMode.DOUBLE_BACKWARD, mode)
    )
    torch.testing.assert_close(value, expected_value)
    assert expected.norm() > 0
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_float32_gradient_of_a_whole_network_has_cosine_of_at_least_0_999():
    torch.manual_seed(0)
    spec = NetworkSpec(
        architecture="cifar-resnet20", class_count=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    network = build_network(spec)
    images, labels = torch.rand(32, 3, 16, 12), torch.arange(32) % CLASSES
    expected, *gradients = (
        penalty_gradient(network, images, labels, penalty_mode=mode)[1]
        for mode in (PenaltyMode.DOUBLE_BACKWARD, *OTHERS)
    )
    for gradient in gradients:
        assert torch.cosine_similarity(gradient, expected, dim=0) >= 0.999


def test_inner_gradient_moves_the_statistics_once():
    networks = [new_network().double() for _ in range(2)]
    images, labels = batch_of(8)
    for network, mode in zip(networks, ("double-backward", "inner-gradient"), strict=True):
        penalty_gradient(network, images, labels, penalty_mode=mode)
    expected, found = (dict(network.named_buffers()) for network in networks)
    for name, buffer in expected.items():
        torch.testing.assert_close(found[name], buffer)


def test_other_parts_of_the_loss_are_those_at_the_images():
    images, labels = batch_of(8)
    for part in ("cross_entropy", "added"):
        values = [
            getattr(
                losses_of(
                    new_network().double(), images, labels, penalty_mode=mode, output_zeroing=0.1
                ),
                part,
            )
            for mode in MODES
        ]
        torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("outputs_per_image", [1, 3])
def test_statistics_move_once_as_with_double_backward(outputs_per_image):
    images, labels = batch_of(8)
    moved = []
    for mode in MODES:
        network = new_network().double()
        losses_of(network, images, labels, penalty_mode=mode, outputs_per_image=outputs_per_image)
        moved.append(dict(network.named_buffers()))
    assert moved[0].keys() == moved[1].keys()
    for name, buffer in moved[0].items():
        assert torch.equal(buffer, moved[1][name]), name
    assert moved[1]["norm.num_batches_tracked"] == 1


def test_outputs_that_nothing_changes_cost_nothing():
    network = new_network().double()
    torch.nn.init.zeros_(network.head.weight)
    value, gradient = penalty_gradient(network, *batch_of(3), penalty_mode="finite-difference")
    assert value == 0
    assert gradient.abs().max() < 1e-20


def test_penalty_may_be_any_function_of_the_gradients():
    """Of a linear output g = w: P = sum |w|, whose gradient by w is its sign."""
    network = torch.nn.Linear(6, 1, bias=False).double()
    images = torch.rand(1, 6, dtype=torch.float64).view(1, 1, 2, 3).requires_grad_()
    flat = torch.nn.Sequential(torch.nn.Flatten(), network)
    penalty, logits = finite_difference_penalty(
        flat,
        flat(images),
        images,
        torch.ones(1, 1, 1).double(),
        lambda g: g.abs().sum(),
    )
    penalty.backward()
    torch.testing.assert_close(penalty.detach(), network.weight.abs().sum())
    torch.testing.assert_close(network.weight.grad, network.weight.detach().sign())
    assert logits.shape == (1, 1)


def test_run_reaches_what_double_backward_reaches(tmp_path):
    networks, states = [], []
    for mode in MODES:
        folder = tmp_path / mode
        folder.mkdir()
        networks.append(new_network())
        config = config_of(penalty_mode=mode, psi_min=20.0)
        states.append(train(networks[-1], colours(), config, run_dir=folder, stop_after=4))
    start = new_network().state_dict()
    for name, tensor in networks[0].named_parameters():
        apart = (networks[1].get_parameter(name) - tensor).norm()
        assert apart <= 0.02 * (tensor - start[name]).norm(), name
    assert states[1].integral == pytest.approx(states[0].integral, rel=1e-3)
