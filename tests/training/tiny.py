"""A run so small that a test can afford several: data, network, configuration."""

import torch

from candor.data.images import ImageSet
from candor.nets.activations import HalfHuberReLU
from candor.nets.resnet import PreActivationResNet
from training.config import TrainConfig

CLASSES = 3


def config_of(**changes):
    values = {
        "architecture": "cifar-resnet20",
        "epochs": 4,
        "batch_size": 8,
        "crop_padding": 2,
        "psi_min": 0.1,
        "loss_target": 1.0,
    }
    return TrainConfig(**values | changes)


def new_network(drop=None):
    torch.manual_seed(3)
    return PreActivationResNet(
        blocks=(1, 1),
        widths=(4, 6),
        channels=3,
        class_count=CLASSES,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        activation=HalfHuberReLU,
        drop=lambda depth: drop and drop(0.5),
    )


def colours():
    """Images of one colour each, with noise; the colour is the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(21) % CLASSES
    shades = torch.eye(3)[labels][:, :, None, None] * 150
    noise = torch.rand(21, 3, 8, 6, generator=generator) * 100
    return ImageSet(
        name="colours",
        pixels=(shades + noise).to(torch.uint8),
        labels=labels,
        class_names=("red", "green", "blue"),
        identifiers=tuple(map(str, range(21))),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def assert_equal_runs(network, state, whole):
    expected_network, expected = whole
    for name, tensor in expected_network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert (state.step, state.integral) == (expected.step, expected.integral)
    for entry, expected_entry in zip(state.history, expected.history, strict=True):
        assert entry | {"seconds": 0} == expected_entry | {"seconds": 0}
