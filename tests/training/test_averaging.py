"""The moving average of the weights against its closed form, and through a run that is killed."""

import pytest
import torch
from torch import nn

from tests.training.tiny import assert_equal_runs, colours, config_of, new_network
from training.averaging import WeightAverage
from training.loop import train


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_average_is_the_weighted_sum_of_all_steps(decay):
    network = nn.Linear(3, 2)
    average = WeightAverage(network, decay)
    steps = []
    for value in (1.0, 5.0, -2.0, 0.5):
        nn.init.constant_(network.weight, value)
        average.update(network)
        steps.append(value)
    first, *others = steps
    shares = [(1 - decay) * decay**age for age in reversed(range(len(others)))]
    expected = decay ** len(others) * first + sum(
        share * value for share, value in zip(shares, others, strict=True)
    )
    kept = average.model_state(network)["weight"]
    torch.testing.assert_close(kept, torch.full((2, 3), expected))


def test_statistics_are_averaged_like_weights():
    norm = nn.BatchNorm2d(2)
    average = WeightAverage(norm, 0.5)
    for value in (2.0, 4.0):
        nn.init.constant_(norm.running_mean, value)
        average.update(norm)
    assert average.model_state(norm)["running_mean"].tolist() == [3.0, 3.0]


def test_without_a_decay_the_model_is_the_network():
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.0)
    average.update(network)
    assert average.state_dict() == {}
    assert torch.equal(average.model_state(network)["weight"], network.weight)


def run(folder, *stops, decay):
    folder.mkdir()
    for stop in stops:
        network = new_network()
        config = config_of(weight_average=decay)
        state = train(network, colours(), config, run_dir=folder, stop_after=stop)
    return network, state


def test_resumed_run_ends_with_the_average_of_a_whole_one(tmp_path):
    whole = run(tmp_path / "whole", None, decay=0.8)
    assert_equal_runs(*run(tmp_path / "resumed", 5, 6, None, decay=0.8), whole)
    last = run(tmp_path / "last", None, decay=0.0)
    assert not torch.equal(whole[0].head.weight, last[0].head.weight)
