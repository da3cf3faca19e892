"""Pre-activation ResNets: size, start, normalisation and the registry."""

import pytest
import torch
from torch import nn

from candor.nets.activations import HalfHuberReLU
from candor.nets.architectures import NetworkSpec, architecture_names, build_network
from candor.nets.resnet import Normalize, PreActivationBlock, PreActivationResNet

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def spec_of(**changes):
    values = {"architecture": "cifar-resnet20", "class_count": 10, "mean": MEAN, "std": STD}
    return NetworkSpec(**values | changes)


def tiny(**changes):
    values = {
        "blocks": (1, 2),
        "widths": (4, 6),
        "channels": 3,
        "class_count": 5,
        "mean": MEAN,
        "std": STD,
        "activation": HalfHuberReLU,
    }
    return PreActivationResNet(**values | changes)


def modules_of(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def parameters_by_hand(block_count, width=1, classes=10):
    """Convolutions 3x3 without bias, two parameters a normalised channel, a linear head."""
    widths = [16 * width, 32 * width, 64 * width]
    total, channels = 9 * 3 * widths[0], widths[0]
    for stage in widths:
        for _ in range(block_count):
            total += 2 * channels + 9 * channels * stage + 2 * stage + 9 * stage * stage
            total += 9 * channels * stage if channels != stage else 0
            channels = stage
    return total + 2 * channels + channels * classes + classes


@pytest.mark.parametrize("depth", [20, 44, 170])
def test_depth_counts_the_layers(depth):
    with torch.device("meta"):
        network = build_network(spec_of(architecture=f"cifar-resnet{depth}"))
    blocks = modules_of(network, PreActivationBlock)
    # Shortcuts are beside the path of `depth` layers.
    shortcuts = [block for block in blocks if block.shortcut is not None]
    assert len(modules_of(network, nn.Conv2d | nn.Linear)) - len(shortcuts) == depth
    assert [len(stage) for stage in network.stages] == [(depth - 2) // 6] * 3
    assert len(shortcuts) == 2
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == parameters_by_hand((depth - 2) // 6)


def test_sizes_are_those_of_the_released_networks():
    with torch.device("meta"):
        counts = [
            sum(parameter.numel() for parameter in build_network(spec).parameters())
            for spec in (spec_of(), spec_of(architecture="cifar-resnet44"))
        ]
    assert counts == [292_762, 681_626]


def test_width_factor_multiplies_every_stage():
    with torch.device("meta"):
        network = build_network(spec_of(width_factor=2))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == parameters_by_hand(3, width=2)


def test_last_convolution_of_every_block_starts_at_zero():
    blocks = modules_of(build_network(spec_of()), PreActivationBlock)
    assert len(blocks) == 9
    assert all((block.conv2.weight == 0).all() for block in blocks)
    assert all((block.conv1.weight != 0).any() for block in blocks)


def test_new_block_passes_its_input_on():
    block = PreActivationBlock(4, 4, 1, nn.ReLU)
    nn.init.zeros_(block.conv2.weight)
    features = torch.randn(3, 4, 6, 5)
    assert torch.equal(block(features), features)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_any_height_and_width_gives_one_row_of_logits_an_image(batch):
    network = tiny().eval()
    images = torch.rand(batch, 3, 12, 7)
    before = images.clone()
    logits = network(images)
    assert (logits.shape, logits.dtype) == ((batch, 5), torch.float32)
    assert torch.equal(images, before)
    torch.testing.assert_close(logits[:1], network(images[:1]))


def test_normalisation_is_inside():
    inside, outside = tiny().eval(), tiny(mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    outside.load_state_dict(inside.state_dict())
    images = torch.rand(3, 3, 8, 10)
    normalised = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(inside(images), outside(normalised))


def test_normalisation_is_not_part_of_the_weights():
    assert not [name for name in tiny().state_dict() if "normalize" in name]


@pytest.mark.parametrize(("name", "kind"), [("hhrelu", HalfHuberReLU), ("relu", nn.ReLU)])
def test_activation_is_the_one_named(name, kind):
    network = build_network(spec_of(activation=name, curvature=2.0))
    activations = modules_of(network, HalfHuberReLU | nn.ReLU)
    assert len(activations) == 19
    assert all(type(activation) is kind for activation in activations)
    assert all(getattr(activation, "curvature", 2.0) == 2.0 for activation in activations)


def test_registry_lists_its_names():
    assert architecture_names() == ("cifar-resnet170", "cifar-resnet20", "cifar-resnet44")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet-9000"}, "^architecture: got 'resnet-9000'.*cifar-resnet44"),
        ({"activation": "tanh"}, "^activation: got 'tanh'.*hhrelu"),
        ({"class_count": 1}, "^class_count: got 1"),
        ({"width_factor": 0}, "^width_factor: got 0"),
    ],
)
def test_bad_spec_is_refused_by_field(changes, message):
    with pytest.raises(ValueError, match=message):
        spec_of(**changes)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5,), (0.0,))])
def test_bad_normalisation_is_refused(mean, std):
    with pytest.raises(ValueError, match="^std: got"):
        Normalize(mean, std)
