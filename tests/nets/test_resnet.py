"""Pre-activation ResNets: size, start, normalisation and the registry."""

import pytest
import torch
from torch import nn

from candor.nets.activations import HalfHuberReLU
from candor.nets.architectures import NetworkSpec, architecture_names, build_network
from candor.nets.drop import StochasticDepth
from candor.nets.resnet import (
    Normalize,
    PreActivationBlock,
    PreActivationResNet,
    StandardizeEach,
)

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


def test_wide_resnet14_halves_the_image_in_its_stem():
    network = build_network(spec_of(architecture="cifar-resnet14-wide"))
    assert network.stem(torch.rand(1, 3, 32, 32)).shape == (1, 64, 16, 16)
    blocks = modules_of(network, PreActivationBlock)
    shortcuts = [block for block in blocks if block.shortcut is not None]
    assert len(modules_of(network, nn.Conv2d | nn.Linear)) - len(shortcuts) == 14


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


@pytest.mark.parametrize(
    ("name", "kind"), [("hhrelu", HalfHuberReLU), ("relu", nn.ReLU), ("silu", nn.SiLU)]
)
def test_activation_is_the_one_named(name, kind):
    network = build_network(spec_of(activation=name, curvature=2.0))
    activations = modules_of(network, HalfHuberReLU | nn.ReLU | nn.SiLU)
    assert len(activations) == 19
    assert all(type(activation) is kind for activation in activations)
    assert all(getattr(activation, "curvature", 2.0) == 2.0 for activation in activations)


def test_registry_lists_its_names():
    assert architecture_names() == (
        "cifar-resnet14-wide",
        "cifar-resnet170",
        "cifar-resnet20",
        "cifar-resnet44",
        "coco-resnet44",
        "imagenet-resnet18",
        "jsrt-resnet44",
        "photo-resnet18",
        "photo-resnet18-half",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "resnet-9000"},
            "^architecture: expected .*cifar-resnet44.*got 'resnet-9000'",
        ),
        ({"activation": "tanh"}, "^activation: expected .*hhrelu.*got 'tanh'"),
        ({"class_count": 1}, "^class_count: expected .*got 1"),
        ({"width_factor": 0}, "^width_factor: expected .*got 0"),
        ({"residual_drop": "dropout"}, "^residual_drop: expected .*shakedrop.*got 'dropout'"),
        ({"last_survival": 0.0}, "^last_survival: expected .*got 0.0"),
        ({"last_survival": 1.5}, "^last_survival: expected .*got 1.5"),
    ],
)
def test_bad_spec_is_refused_by_field(changes, message):
    with pytest.raises(ValueError, match=message):
        spec_of(**changes)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5,), (0.0,))])
def test_bad_normalisation_is_refused(mean, std):
    with pytest.raises(ValueError, match="^std: expected"):
        Normalize(mean, std)


def widths_by_hand(stem_parameters, blocks, widths, classes):
    """Parameters of the family from its stem's, its blocks a stage and their widths."""
    total, channels = stem_parameters, widths[0]
    for count, width in zip(blocks, widths, strict=True):
        for _ in range(count):
            total += 2 * channels + 9 * channels * width + 2 * width + 9 * width * width
            total += 9 * channels * width if channels != width else 0
            channels = width
    return total + 2 * channels + channels * classes + classes


OTHERS = {
    # stem's parameters, blocks, widths, channels, classes, image size, size of the first stage
    "imagenet-resnet18": (49 * 3 * 64, (2,) * 4, (64, 128, 256, 512), 3, 1000, 224, 56),
    "coco-resnet44": (16 * 3 * 32, (7,) * 3, (32, 64, 128), 3, 80, 96, 32),
    "jsrt-resnet44": (81 * 64, (7,) * 3, (64, 96, 128), 1, 2, 256, 32),
    "photo-resnet18": (49 * 3 * 64, (2,) * 4, (64, 128, 256, 512), 3, 10, 128, 32),
    "photo-resnet18-half": (49 * 3 * 32, (2,) * 4, (32, 64, 128, 256), 3, 10, 128, 32),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_data_sets_have_networks_of_their_sizes(name):
    stem_parameters, blocks, widths, channels, classes, size, reduced = OTHERS[name]
    changes = {"class_count": classes, "mean": MEAN[:channels], "std": STD[:channels]}
    with torch.device("meta"):
        network = build_network(spec_of(architecture=name, **changes)).eval()
        seen = []
        network.stages[0].register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
        logits = network(torch.empty(2, channels, size, size))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == widths_by_hand(stem_parameters, blocks, widths, classes)
    assert seen[0].shape == (2, widths[0], reduced, reduced)
    assert logits.shape == (2, classes)


def test_imagenet_network_averages_where_others_take_the_largest():
    with torch.device("meta"):
        network = build_network(spec_of(architecture="imagenet-resnet18"))
    assert not modules_of(network, nn.MaxPool2d)
    # A flat image stays flat: no zeros of the border are averaged in.
    assert torch.equal(network.stem_pool(torch.ones(1, 2, 12, 7)), torch.ones(1, 2, 6, 4))
    ramp = torch.arange(25.0).view(1, 1, 5, 5)
    assert network.stem_pool(ramp)[0, 0, 1, 1] == ramp[0, 0, 1:4, 1:4].mean()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_image_is_standardised_alone(batch):
    images = torch.rand(batch, 2, 6, 5) * torch.linspace(0.1, 1.0, batch)[:, None, None, None]
    standard = StandardizeEach()(images)
    assert standard.mean((1, 2, 3)).abs().max() < 1e-5
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(standard.square().mean((1, 2, 3)), torch.ones(batch), **close)
    torch.testing.assert_close(StandardizeEach()(0.5 * images + 0.2), standard, **close)


def test_flat_image_is_standardised_to_zero_with_a_finite_gradient():
    images = torch.full((1, 1, 4, 5), 0.5, requires_grad=True)
    standard = StandardizeEach()(images)
    assert (standard == 0).all()
    (gradient,) = torch.autograd.grad(standard[0, 0, 0, 0], images)
    assert gradient.isfinite().all()


def test_radiographs_of_another_exposure_get_the_same_answer():
    spec = spec_of(architecture="jsrt-resnet44", class_count=2, mean=(0.5,), std=(0.2,))
    network = build_network(spec).eval()
    images = torch.rand(1, 1, 32, 24)
    torch.testing.assert_close(network(0.3 * images + 0.4), network(images), atol=1e-4, rtol=1e-3)


def test_names_of_the_weights_are_those_that_shipped_models_have():
    block = [f"{norm}.{leaf}" for norm in ("norm1", "norm2") for leaf in NORM_LEAVES]
    block += ["conv1.weight", "conv2.weight"]
    expected = {"stem.weight", "head.weight", "head.bias", *(f"norm.{x}" for x in NORM_LEAVES)}
    expected |= {f"stages.{i}.{j}.{name}" for i in range(3) for j in range(3) for name in block}
    expected |= {"stages.1.0.shortcut.weight", "stages.2.0.shortcut.weight"}
    for drop in ("none", "stochastic-depth", "shakedrop"):
        spec = spec_of(residual_drop=drop, last_survival=0.5)
        assert build_network(spec).state_dict().keys() == expected


NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("drop", ["stochastic-depth", "shakedrop"])
def test_blocks_survive_less_the_deeper_they_are(drop):
    network = build_network(spec_of(residual_drop=drop, last_survival=0.55))
    survivals = [block.drop.survival for block in modules_of(network, PreActivationBlock)]
    assert survivals == pytest.approx([1 - 0.05 * place for place in range(1, 10)])


def test_dropped_block_keeps_its_shortcut():
    block = PreActivationBlock(4, 6, 2, nn.ReLU, StochasticDepth(1e-9))
    features = torch.randn(3, 4, 6, 5)
    expected = block.shortcut(block.act1(block.norm1(features)))
    torch.testing.assert_close(block(features), expected)
