"""Small ONNX files, written node by node."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


def written(
    folder: Path,
    nodes: list[onnx.NodeProto],
    tensors: dict[str, Array],
    *,
    shape: tuple[object, ...] = ("N", 3, 8, 8),
    opset: int = 17,
    outputs: tuple[str, ...] = ("logits",),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10  # what every ONNX Runtime in use reads
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


HEAD = [
    helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
    helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
]
HEAD_TENSORS = {"w": normal(5, 4), "b": normal(5)}
