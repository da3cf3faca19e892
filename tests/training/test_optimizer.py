"""What weight decay acts on."""

import pytest
import torch
from torch import nn

from training.optimizer import WeightDecayOn, parameter_groups


def network_of():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


@pytest.mark.parametrize("decay_on", list(WeightDecayOn))
def test_every_parameter_is_in_one_group(decay_on):
    network = network_of()
    grouped = [id(p) for group in parameter_groups(network, 0.1, decay_on) for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, network.parameters()))


@pytest.mark.parametrize("decay_on", list(WeightDecayOn))
def test_only_what_is_named_shrinks(decay_on):
    network = network_of()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    torch.optim.SGD(parameter_groups(network, 0.5, decay_on), lr=0.1).step()
    for name, parameter in network.named_parameters():
        shrinks = decay_on is WeightDecayOn.ALL or name.endswith("bias")
        assert parameter.flatten()[0].item() == pytest.approx(0.95 if shrinks else 1.0), name
