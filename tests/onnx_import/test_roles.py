"""What training may move in an imported graph: weights, but no statistics and no preprocessing."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.network import OnnxNetwork, build_onnx
from candor.onnx_import.reader import read_onnx
from tests.onnx_import.graphs import HEAD, HEAD_TENSORS, Array, normal, written

LAYERS = [
    helper.make_node("Conv", ["images", "kernel", "zero"], ["first"], pads=[1, 1, 1, 1]),
    helper.make_node("BatchNormalization", ["first", "one", "zero", "mean", "var"], ["second"]),
    helper.make_node("Conv", ["second", "kernel2", "zero"], ["third"], pads=[1, 1, 1, 1]),
    helper.make_node("BatchNormalization", ["third", "one", "zero", "mean", "var"], ["maps"]),
]
KERNELS = {"kernel": normal(4, 3, 3, 3), "kernel2": normal(4, 4, 3, 3)}
ZERO, ONE = np.zeros(4, np.float32), np.ones(4, np.float32)


def identity(name: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [f"{name}_source"], [name])


CHAINS: dict[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "direct": ([], {"mean": ZERO, "var": ONE}),
    "one tensor for bias and mean, scale and variance": (
        [
            helper.make_node("Identity", ["zero"], ["mean"]),
            helper.make_node("Identity", ["one"], ["var"]),
        ],
        {},
    ),
    "Identity": (
        [identity("mean"), identity("var")],
        {"mean_source": ZERO, "var_source": ONE},
    ),
    "Cast": (
        [
            helper.make_node("Cast", ["half"], ["mean"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["double"], ["var"], to=TensorProto.FLOAT),
        ],
        {"half": ZERO.astype(np.float16), "double": ONE.astype(np.float64)},
    ),
    "Reshape and Squeeze": (
        [
            helper.make_node("Reshape", ["map", "four"], ["mean"]),
            helper.make_node("Squeeze", ["row", "first_axis"], ["var"]),
        ],
        {
            "map": ZERO.reshape(1, 4, 1, 1),
            "four": np.array([4]),
            "row": ONE[None],
            "first_axis": np.array([0]),
        },
    ),
    "Constant": (
        [
            helper.make_node("Constant", [], ["mean"], value=numpy_helper.from_array(ZERO)),
            helper.make_node("Constant", [], ["var"], value_floats=[1.0] * 4),
        ],
        {},
    ),
    "Unsqueeze, Transpose, Slice, Mul": (
        [
            helper.make_node("Slice", ["long", "zero_i", "four"], ["mean"]),
            helper.make_node("Mul", ["twos", "half"], ["var"]),
        ],
        {
            "long": np.zeros(9, np.float32),
            "zero_i": np.array([0]),
            "four": np.array([4]),
            "twos": 2 * ONE,
            "half": np.float32(0.5) * ONE,
        },
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_statistics_of_batch_normalization_are_buffers_of_each_layer(
    chain: str, tmp_path: Path, generator: torch.Generator
) -> None:
    """As torch's own layers: training moves their statistics by the batch, each its own."""
    nodes, tensors = CHAINS[chain]
    shared = {"zero": ZERO, "one": ONE}
    path = written(tmp_path, [*nodes, *LAYERS, *HEAD], HEAD_TENSORS | KERNELS | shared | tensors)
    network = read_onnx(path)
    expected = native()
    images = torch.rand(6, 3, 8, 8, generator=generator)
    torch.testing.assert_close(network.module(images), expected(images), rtol=1e-4, atol=1e-5)
    counts = sorted(weight.numel() for weight in network.module.parameters())
    assert counts == sorted(weight.numel() for weight in expected.parameters())
    assert sorted(b.numel() for b in network.module.buffers() if b.numel() > 1) == [4] * 4
    for _ in range(2):
        trained_once(expected, images)
        trained_once(network.module, images)
    torch.testing.assert_close(network.module(images), expected(images), rtol=1e-3, atol=1e-4)
    again = build_onnx(network.graph)
    again.module.load_state_dict(network.module.state_dict(), strict=True)
    assert torch.equal(again.module(images), network.module(images))


def native() -> nn.Module:
    """The same network in torch."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)]
    head = [nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    network = nn.Sequential(*layers, *head).eval()
    with torch.no_grad():
        for place, name in ((0, "kernel"), (2, "kernel2")):
            network[place].weight.copy_(torch.from_numpy(KERNELS[name]))
            network[place].bias.zero_()
        network[6].weight.copy_(torch.from_numpy(HEAD_TENSORS["w"]))
        network[6].bias.copy_(torch.from_numpy(HEAD_TENSORS["b"]))
    return network


def trained_once(network: nn.Module, images: Tensor) -> None:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    nn.functional.cross_entropy(network(images), torch.arange(len(images)) % 5).backward()
    optimizer.step()
    optimizer.zero_grad()
    network.eval()


def test_untrained_network_with_many_equal_tensors(
    tmp_path: Path, generator: torch.Generator
) -> None:
    """Exporters write the zeros of a hundred biases and means once, with Identity nodes."""

    class Dense(nn.Module):
        def __init__(self, has_bias: bool) -> None:
            super().__init__()
            norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(6), nn.BatchNorm2d(9)]
            self.norms = nn.ModuleList(norms)
            self.convs = nn.ModuleList(
                nn.Conv2d(width, 3, 3, 1, 1, bias=has_bias) for width in (3, 6, 9)
            )
            self.head = nn.Linear(12, 5)
            for conv in self.convs if has_bias else ():
                nn.init.zeros_(conv.bias)

        def forward(self, maps: Tensor) -> Tensor:
            for norm, conv in zip(self.norms, self.convs, strict=True):
                maps = torch.cat([maps, conv(norm(maps).relu())], 1)
            return self.head(maps.mean((2, 3)))

    for dynamo in (False, True):  # the second leaves biases of zeros out
        torch.manual_seed(1)
        network, path = Dense(not dynamo).eval(), tmp_path / f"{dynamo}.onnx"
        images = torch.rand(6, 3, 8, 8, generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (images,), str(path), dynamo=dynamo, opset_version=18, verbose=False
            )
        imported = read_onnx(path).module
        trained_once(network, images)
        trained_once(imported, images)
        torch.testing.assert_close(imported(images), network(images), rtol=1e-3, atol=1e-4)


PREPROCESSING: dict[str, Callable[[], tuple[list[onnx.NodeProto], dict[str, Array]]]] = {
    "through nodes": lambda: (
        [
            helper.make_node("Unsqueeze", ["mean3", "axes"], ["mean"]),
            helper.make_node("Identity", ["deviation_source"], ["deviation"]),
            helper.make_node("Sub", ["images", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "deviation"], ["inputs"]),
        ],
        {
            "mean3": np.array([0.4, 0.5, 0.6], np.float32),
            "axes": np.array([1, 2]),
            "deviation_source": np.full((3, 1, 1), 0.25, np.float32),
        },
    ),
    "each channel by itself": lambda: (
        [
            helper.make_node("Split", ["images"], ["r", "g", "b_"], axis=1),
            *[
                helper.make_node("Sub", [name, f"mean_{name}"], [f"{name}_centred"])
                for name in ("r", "g", "b_")
            ],
            helper.make_node("Concat", [f"{n}_centred" for n in ("b_", "g", "r")], ["c"], axis=1),
            helper.make_node("Mul", ["c", "scale"], ["inputs"]),
        ],
        {f"mean_{name}": np.full((1, 1, 8, 8), 0.3, np.float32) for name in ("r", "g", "b_")}
        | {"scale": np.array([2, 3, 4], np.float32).reshape(1, 3, 1, 1)},
    ),
    "a mean that is the bias of the first layer as well": lambda: (
        [
            helper.make_node("Reshape", ["shared", "three"], ["mean"]),
            helper.make_node("Sub", ["images", "mean"], ["centred"]),
            helper.make_node("Conv", ["centred", "one_by_one", "shared"], ["inputs"]),
        ],
        {
            "shared": np.array([0.2, 0.3, 0.4], np.float32),
            "three": np.array([3, 1, 1]),
            "one_by_one": normal(3, 3, 1, 1),
        },
    ),
}


@pytest.mark.parametrize("kind", PREPROCESSING)
def test_preprocessing_is_not_learned(kind: str, tmp_path: Path) -> None:
    nodes, tensors = PREPROCESSING[kind]()
    rest = [
        helper.make_node("Conv", ["inputs", "kernel", "bias"], ["maps"]),
        *HEAD,
    ]
    weights = HEAD_TENSORS | {"kernel": KERNELS["kernel"], "bias": normal(4)}
    network = read_onnx(written(tmp_path, [*nodes, *rest], weights | tensors))
    learned = sorted(tuple(weight.shape) for weight in network.module.parameters())
    expected = [(4,), (4, 3, 3, 3), (5,), (5, 4)]
    own = [(3,), (3, 3, 1, 1)] if "bias" in kind else []
    assert learned == sorted(expected + own)


def test_weights_of_one_element_are_learned_and_factors_are_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "one"], ["maps"]),
        helper.make_node("Mul", ["maps", "half"], ["halved"]),
        helper.make_node("Add", ["halved", "third"], ["gated"]),
        helper.make_node("Flatten", ["gated"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
    ]
    tensors = {
        "kernel": normal(1, 3, 1, 1),
        "one": np.ones(1, np.float32),
        "half": np.array([0.5], np.float32),
        "third": np.float32(3).reshape(()),
        "w": normal(64, 1),
        "b": np.array([0.25], np.float32),
    }
    network = read_onnx(written(tmp_path, nodes, tensors))
    assert network.classes == 1
    learned = sorted(tuple(weight.shape) for weight in network.module.parameters())
    assert learned == [(1,), (1,), (1, 3, 1, 1), (64, 1)]


def masked(folder: Path, low: float) -> OnnxNetwork:
    """Attention between four tokens of which each sees those before it."""
    mask = np.triu(np.full((12, 12), low, np.float32), 1)
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["tokens"]),
        helper.make_node("MatMul", ["tokens", "w1"], ["queries"]),
        helper.make_node("Transpose", ["queries"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["mask3"]),
        helper.make_node("Add", ["scores", "mask3"], ["seen"]),
        helper.make_node("Softmax", ["seen"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "tokens"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed"], ["flat"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["flat", "w2"], ["logits"]),
    ]
    tensors = {
        "shape": np.array([0, 12, 16]), "axis": np.array([0]), "mask": mask,
        "w1": normal(16, 6), "w2": normal(16, 5),
    }  # fmt: skip
    return read_onnx(written(folder, nodes, tensors))


@pytest.mark.parametrize("low", [-100.0, -np.inf, -3.4028235e38])
def test_masks_of_attention_are_not_learned(low: float, tmp_path: Path) -> None:
    network = masked(tmp_path, low)
    assert sorted(weight.numel() for weight in network.module.parameters()) == [80, 96]
    assert all(bool(t.isfinite().all()) for t in network.module.state_dict().values())
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(network.module(images)[:, 0].sum(), images)
    assert bool(slope.isfinite().all())
    again = build_onnx(network.graph)
    again.module.load_state_dict(network.module.state_dict(), strict=True)
    assert torch.equal(again.module(images), network.module(images))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_weight_is_refused_with_its_node(value: float, tmp_path: Path) -> None:
    kernel = KERNELS["kernel"].copy()
    kernel[1, 2] = value
    nodes = [helper.make_node("Conv", ["images", "kernel"], ["maps"], "first"), *HEAD]
    path = written(tmp_path, nodes, HEAD_TENSORS | {"kernel": kernel})
    with pytest.raises(OnnxImportError, match=r"'kernel' of node 'first'.*got 9 infinite"):
        read_onnx(path)


def test_a_group_norm_written_as_instance_norm_has_no_weights_of_its_own(
    tmp_path: Path, generator: torch.Generator
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
    ).eval()
    path = tmp_path / "group.onnx"
    images = torch.rand(2, 3, 8, 8, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), str(path), dynamo=False, opset_version=13)
    imported = read_onnx(path).module
    torch.testing.assert_close(imported(images), network(images), rtol=1e-4, atol=1e-5)
    learned = sum(weight.numel() for weight in imported.parameters())
    assert learned == sum(weight.numel() for weight in network.parameters())
