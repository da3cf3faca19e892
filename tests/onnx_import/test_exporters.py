"""How other exporters and older opsets write a classifier; ONNX Runtime is the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.network import build_onnx
from candor.onnx_import.reader import read_onnx
from tests.onnx_import.graphs import HEAD, HEAD_TENSORS, Array, normal, written

make = helper.make_node
CONV = make("Conv", ["images", "kernel"], ["first"], pads=[1, 1, 1, 1])
KERNEL: dict[str, Array] = {"kernel": normal(4, 3, 3, 3)}
Case = tuple[int, list[onnx.NodeProto], dict[str, Array]]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: float, *shape: int) -> Array:
    return np.full(shape, value, np.float32)


CASES: dict[str, Case] = {
    "Upsample, Pad and Split with attributes (opset 9)": (
        9,
        [
            make("Pad", ["first"], ["padded"], pads=[0, 0, 1, 1, 0, 0, 2, 0], value=0.5),
            make("Upsample", ["padded", "scales"], ["larger"], mode="nearest"),
            make("Split", ["larger"], ["left", "right"], axis=1, split=[1, 3]),
            make("Concat", ["right", "left"], ["maps"], axis=1),
        ],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Squeeze, Unsqueeze, ReduceMean and Clip with attributes (opset 10)": (
        10,
        [
            make("Clip", ["first"], ["clipped"], min=0.0, max=0.7),
            make("ReduceMean", ["clipped"], ["row"], axes=[2], keepdims=1),
            make("Squeeze", ["row"], ["flat_row"], axes=[2]),
            make("Unsqueeze", ["flat_row"], ["column"], axes=[2]),
            make("Mul", ["clipped", "column"], ["maps"]),
        ],
        {},
    ),
    "linear Resize of the sizes of another map (opset 13)": (
        13,
        [
            make("MaxPool", ["first"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
            make("Shape", ["first"], ["shape"]),
            make(
                "Resize", ["small", "", "", "shape"], ["maps"], mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
        ],
        {},
    ),
    "layer normalisation in parts, GELU by Erf (opset 12)": (
        12,
        [
            make("ReduceMean", ["first"], ["m"], axes=[1]),
            make("Sub", ["first", "m"], ["d"]),
            make("Pow", ["d", "two"], ["d2"]),
            make("ReduceMean", ["d2"], ["v"], axes=[1]),
            make("Add", ["v", "eps"], ["ve"]),
            make("Sqrt", ["ve"], ["s"]),
            make("Div", ["d", "s"], ["n"]),
            make("Div", ["n", "root"], ["e0"]),
            make("Erf", ["e0"], ["e1"]),
            make("Add", ["e1", "one"], ["e2"]),
            make("Mul", ["n", "e2"], ["e3"]),
            make("Mul", ["e3", "half"], ["maps"]),
        ],
        {
            "two": scalar(2), "eps": scalar(1e-5), "root": scalar(2**0.5), "one": scalar(1),
            "half": scalar(0.5),
        },
    ),
    "numbers of shape (1,), as PaddlePaddle writes them": (
        13,
        [
            make("Clip", ["first", "low", "high"], ["clipped"]),
            make("Pad", ["clipped", "pads", "value"], ["padded"]),
            make("Mul", ["padded", "factor"], ["product"]),
            make("HardSigmoid", ["product"], ["maps"], alpha=0.2, beta=0.5),
        ],
        {
            "low": scalar(-0.5, 1), "high": scalar(0.5, 1), "factor": scalar(1.5, 1),
            "pads": ints(0, 0, 1, 0, 0, 0, 1, 0), "value": scalar(0.25, 1),
        },
    ),
    "a Reshape by way of Shape, Gather and Concat": (
        13,
        [
            make("Shape", ["first"], ["shape"]),
            make("Gather", ["shape", "zero"], ["count"], axis=0),
            make("Unsqueeze", ["count", "axis0"], ["count1"]),
            make("Concat", ["count1", "rest"], ["wanted"], axis=0),
            make("Reshape", ["first", "wanted"], ["rows"]),
            make("Softmax", ["rows"], ["soft"], axis=2),
            make("Reshape", ["soft", "back"], ["maps"]),
        ],
        {"zero": np.array(0), "axis0": ints(0), "rest": ints(2, -1), "back": ints(0, 4, 8, -1)},
    ),
    "Einsum, HardSwish and Gelu (opset 20)": (
        20,
        [
            make("HardSwish", ["first"], ["swish"]),
            make("Einsum", ["swish", "mix"], ["mixed"], equation="bchw,cd->bdhw"),
            make("Gelu", ["mixed"], ["maps"], approximate="tanh"),
        ],
        {"mix": normal(4, 4)},
    ),
    "Mish, LayerNormalization, GroupNormalization (opset 21)": (
        21,
        [
            make("Mish", ["first"], ["mish"]),
            make("LayerNormalization", ["mish", "g8", "b8"], ["layer"], axis=-1),
            make("GroupNormalization", ["layer", "g4", "b4"], ["maps"], num_groups=2),
        ],
        {"g8": normal(8), "b8": normal(8), "g4": normal(4), "b4": normal(4)},
    ),
    "average pooling with padding, LRN and PRelu": (
        9,
        [
            make("LRN", ["first"], ["even"], size=3),
            make("PRelu", ["even", "slope"], ["bent"]),
            make(
                "AveragePool", ["bent"], ["maps"], kernel_shape=[3, 3], strides=[2, 2],
                auto_pad="SAME_UPPER",
            ),
        ],
        {"slope": normal(4, 1, 1)},
    ),
}  # fmt: skip


def check(path: Path, shape: tuple[int, ...] = (3, 3, 8, 8), tolerance: float = 1e-4) -> None:
    """The same logits as ONNX Runtime, and as the module built again, for three images."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(4))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    network = read_onnx(path)
    logits = network.module(images)
    fed = images.permute(0, 2, 3, 1) if given.shape[3] == 3 else images
    parts = fed if not isinstance(given.shape[0], int) else fed[: given.shape[0]]
    (expected,) = session.run(None, {given.name: parts.contiguous().numpy()})
    expected = torch.from_numpy(expected).reshape(len(parts), -1)
    torch.testing.assert_close(logits[: len(parts)], expected, rtol=tolerance, atol=tolerance)
    again = build_onnx(network.graph)
    again.module.load_state_dict(network.module.state_dict(), strict=True)
    assert torch.equal(again.module(images), logits)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    opset, nodes, tensors = CASES[name]
    check(written(tmp_path, [CONV, *nodes, *HEAD], KERNEL | HEAD_TENSORS | tensors, opset=opset))


def test_keras_as_tf2onnx_writes_it(tmp_path: Path) -> None:
    """Images with channels last, a transpose, padding of TensorFlow, and a softmax at the end."""
    nodes = [
        make("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2]),
        make("Conv", ["turned", "kernel"], ["c"], auto_pad="SAME_LOWER", strides=[2, 2]),
        make("BatchNormalization", ["c", "one", "zero", "zero", "one"], ["n"], epsilon=1e-3),
        make("Clip", ["n", "low", "high"], ["relu6"]),
        make("Transpose", ["relu6"], ["last"], perm=[0, 2, 3, 1]),
        make("ReduceMean", ["last"], ["flat"], axes=[1, 2], keepdims=0),
        make("MatMul", ["flat", "w"], ["product"]),
        make("Add", ["product", "b"], ["z"]),
        make("Softmax", ["z"], ["logits"], axis=-1),
    ]
    tensors = KERNEL | {
        "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32), "low": scalar(0),
        "high": scalar(6), "w": normal(4, 5), "b": normal(5),
    }  # fmt: skip
    path = written(tmp_path, nodes, tensors, shape=("batch", 8, 8, 3))
    network = read_onnx(path)
    assert (network.input_shape, network.output_activation) == ((3, 8, 8), "softmax")
    images = torch.rand(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(str(path))
    (expected,) = session.run(None, {"images": images.permute(0, 2, 3, 1).contiguous().numpy()})
    torch.testing.assert_close(
        network.module(images).softmax(1), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
    )
    learned = sorted(weight.numel() for weight in network.module.parameters())
    assert learned == [4, 4, 5, 20, 108]


def test_bytes_are_computed_as_numbers(tmp_path: Path) -> None:
    nodes = [
        make("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        make("Mul", ["numbers", "scale"], ["scaled"]),
        make("Conv", ["scaled", "kernel"], ["maps"]),
        *HEAD,
    ]
    path = written(tmp_path, nodes, KERNEL | HEAD_TENSORS | {"scale": scalar(1 / 255)})
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    path.write_bytes(model.SerializeToString())
    levels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    session = onnxruntime.InferenceSession(str(path))
    (expected,) = session.run(None, {"images": levels})
    images = torch.from_numpy(levels).float().requires_grad_()
    logits = read_onnx(path).module(images)
    torch.testing.assert_close(logits.detach(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(logits.sum(), images)
    assert float(slope.abs().max()) > 0


def branching(folder: Path, condition: list[onnx.NodeProto], **shape: Any) -> Path:
    """As torch writes a squeeze of an axis that may have another size than 1."""
    value = helper.make_tensor_value_info
    branches = {}
    for name, slope in (("then_branch", "steep"), ("else_branch", "flat_slope")):
        inner = numpy_helper.from_array(scalar(3.0 if name[0] == "t" else 0.5), "slope")
        nodes = [make("Mul", ["first", "slope"], ["inside"])]
        outputs = [value("inside", TensorProto.FLOAT, None)]
        branches[name] = helper.make_graph(nodes, slope, [], outputs, [inner])
    nodes = [CONV, *condition, make("If", ["holds"], ["maps"], "choice", **branches), *HEAD]
    tensors = {"width": np.array(8), "three": np.array(3), "half": scalar(0.5)}
    return written(folder, nodes, KERNEL | HEAD_TENSORS | tensors, **shape)


SHAPE = [make("Shape", ["images"], ["sizes"])]


@pytest.mark.parametrize(("number", "name"), [("width", "then"), ("three", "else")])
def test_a_branch_that_a_size_decides_is_taken(number: str, name: str, tmp_path: Path) -> None:
    condition = [
        *SHAPE,
        make("Gather", ["sizes", "three"], ["size"]),
        make("Equal", ["size", number], ["holds"]),
    ]
    check(branching(tmp_path, condition))


@pytest.mark.parametrize("by", ["batch", "pixels"])
def test_a_branch_that_images_decide_is_refused(by: str, tmp_path: Path) -> None:
    decide = {
        "batch": [
            make("Size", ["images"], ["size"]),
            make("Less", ["size", "big"], ["holds"]),
        ],
        "pixels": [
            make("ReduceMax", ["images"], ["largest"], keepdims=0),
            make("Greater", ["largest", "half"], ["holds"]),
        ],
    }  # fmt: skip
    path = branching(tmp_path, decide[by])
    model = onnx.load(str(path))
    model.graph.initializer.append(numpy_helper.from_array(np.array(500), "big"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(OnnxImportError, match="node 'choice' .If.: its condition 'holds' depends"):
        read_onnx(path)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_of_the_exporter_in_every_reshape(batch: int, tmp_path: Path) -> None:
    nodes = [
        CONV,
        make("Reshape", ["first", "tokens"], ["rows"]),
        make("MatMul", ["rows", "mix"], ["mixed"]),
        make("Reshape", ["mixed", "back"], ["maps"]),
        *HEAD[:1],
        make("Reshape", ["pooled", "features"], ["flat"]),
        *HEAD[2:],
    ]
    tensors = {
        "tokens": ints(batch * 4, 64), "mix": normal(64, 64), "back": ints(batch, 4, 8, 8),
        "features": ints(batch, 4),
    }  # fmt: skip
    path = written(tmp_path, nodes, KERNEL | HEAD_TENSORS | tensors, shape=(batch, 3, 8, 8))
    assert read_onnx(path).module.chunk is None
    check(path)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("QuickGelu", ["first"], {"alpha": 1.5}),
        ("Gelu", ["first"], {}),
        ("FastGelu", ["first"], {}),
        ("BiasGelu", ["first", "bias"], {}),
        ("FusedMatMul", ["first", "square"], {"alpha": 0.5, "transB": 1}),
        ("FusedConv", ["first", "kernel4", "bias4"], {"activation": "Relu"}),
    ],
)
def test_operators_of_onnx_runtimes_optimiser(
    kind: str, inputs: list[str], attributes: dict[str, Any], tmp_path: Path
) -> None:
    node = make(kind, inputs, ["maps"], domain="com.microsoft", **attributes)
    tensors = {
        "bias": normal(8), "square": normal(8, 8), "kernel4": normal(4, 4, 1, 1),
        "bias4": normal(4),
    }  # fmt: skip
    path = written(tmp_path, [CONV, node, *HEAD], KERNEL | HEAD_TENSORS | tensors)
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(model.SerializeToString())
    check(path, tolerance=1e-3)


@pytest.mark.parametrize("last", ["Flatten", "Squeeze", "Reshape", "Identity", "Cast"])
def test_an_activation_before_a_change_of_shape_is_cut_off(last: str, tmp_path: Path) -> None:
    """As Caffe's and SqueezeNet's files end."""
    attributes: dict[str, Any] = {"Cast": {"to": TensorProto.FLOAT}}.get(last, {})
    extra = ["axes"] if last == "Squeeze" else ["shape"] if last == "Reshape" else []
    nodes = [
        make("Conv", ["images", "kernel"], ["maps"]),
        make("GlobalAveragePool", ["maps"], ["z"]),
        make("Softmax", ["z"], ["p"], axis=1),
        make(last, ["p", *extra], ["logits"], **attributes),
    ]
    tensors = KERNEL | {"axes": ints(2, 3), "shape": ints(0, -1)}
    network = read_onnx(written(tmp_path, nodes, tensors))
    assert (network.output_activation, network.classes) == ("softmax", 4)
    logits = network.module(torch.rand(2, 3, 8, 8)).detach()
    assert logits.shape == (2, 4)
    assert float((logits.sum(1) - 1).abs().min()) > 1e-3
