"""Brings a model into the form that the rest reads: no functions, and float32 throughout.

Weights in half or double precision become float32, in which a search computes.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import torch

from candor.onnx_import.convert import inlined, opset_of, tensor_of
from candor.onnx_import.files import tensors_of
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.operators.dtypes import FLOAT, FLOATS

OPSETS = (9, 22)


def normalized(model: onnx.ModelProto, source: str, limits: OnnxLimits) -> onnx.ModelProto:
    """
    Raises:
        OnnxImportError: the opset is another, there are too many nodes, or a weight is NaN.
    """
    opset = opset_of(model)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise OnnxImportError(
            f"{source}: opset: expected {OPSETS[0]} to {OPSETS[1]}, got {opset}; "
            "onnx.version_converter changes it"
        )
    model = inlined(model)
    nodes = list(_nodes(model.graph))
    if len(nodes) > limits.nodes:
        raise OnnxImportError(f"{source}: nodes: expected at most {limits.nodes}, got {len(nodes)}")
    for tensor in tensors_of(model):
        _to_float32(tensor)
        _check_numbers(tensor, source)
    for node in nodes:
        _name_float32(node.attribute if node.op_type in ("Cast", "EyeLike") else ())
    return model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of those inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _to_float32(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in FLOATS - {FLOAT}:
        array = tensor_of(tensor).to(torch.float32).numpy()
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _name_float32(attributes: Iterable[onnx.AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.name in ("to", "dtype") and attribute.i in FLOATS:
            attribute.i = FLOAT


def _check_numbers(tensor: onnx.TensorProto, source: str) -> None:
    if tensor.data_type != FLOAT:
        return
    count = int(tensor_of(tensor).isnan().sum())
    if count:
        raise OnnxImportError(
            f"{source}: weight {tensor.name!r}: expected numbers, got {count} NaN"
        )
