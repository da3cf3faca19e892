"""From an ONNX message to a graph in plain Python."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from torch import Tensor

from candor.onnx_import.graph import Branch, Graph, GraphInput, Node, ordered
from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.operators.dtypes import torch_dtype
from candor.onnx_import.operators.table import BRANCHING, OWN_DOMAINS, TABLE, find_operator


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions: its own, and those that ONNX defines by simpler operators."""
    try:
        model = onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as err:  # the inliner's errors have no base of their own
        raise OnnxImportError(f"functions of the model cannot be inlined: {err}") from err
    missing = [("", name) for name in _defined_by_onnx(model)]
    if not missing:
        return model
    try:
        return onnx.inliner.inline_selected_functions(model, missing, inline_schema_functions=True)
    except Exception:  # for want of a type; the operator is then refused by its name
        return model


def _defined_by_onnx(model: onnx.ModelProto) -> list[str]:
    version = opset_of(model)
    names = {node.op_type for node in model.graph.node if node.domain in OWN_DOMAINS}
    return [name for name in sorted(names - set(TABLE)) if _has_body(name, version)]


def _has_body(name: str, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(name, version)
    except onnx.defs.SchemaError:
        return False
    kinds = ("has_function", "has_context_dependent_function")  # not in the stubs of onnx
    return any(getattr(schema, kind) for kind in kinds)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators that the model uses."""
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    return max(versions, default=1)


def graph_of(model: onnx.ModelProto) -> Graph:
    """
    Raises:
        OnnxImportError: an operator or a type is not supported, or a value is computed by none.
    """
    opset = opset_of(model)
    nodes, initial = _parts(model.graph, opset)
    inputs = tuple(_input(value) for value in model.graph.input if value.name not in initial)
    known = {*initial, *(value.name for value in inputs), ""}
    outputs = tuple(value.name for value in model.graph.output)
    return Graph(ordered(nodes, known), initial, inputs, outputs, opset)


def _input(value: onnx.ValueInfoProto) -> GraphInput:
    kind = value.type.tensor_type
    sizes = [axis.dim_value if axis.dim_value > 0 else None for axis in kind.shape.dim]
    return GraphInput(value.name, kind.elem_type, tuple(sizes))


def _parts(graph: onnx.GraphProto, opset: int) -> tuple[list[Node], dict[str, Tensor]]:
    """Nodes and initial tensors, to which constants of the graph are added."""
    if graph.sparse_initializer:
        raise OnnxImportError("sparse initial values are not supported")
    initial = {tensor.name: tensor_of(tensor) for tensor in graph.initializer}
    nodes = []
    for place, proto in enumerate(graph.node):
        node = _node(place, proto, opset)
        value = node.attributes.get("value") if node.kind == "Constant" else None
        if isinstance(value, Tensor):
            initial[node.outputs[0]] = value
        else:
            nodes.append(node)
    return nodes, initial


def _node(place: int, proto: onnx.NodeProto, opset: int) -> Node:
    name = proto.name or f"{proto.op_type}_{place}"
    operator = find_operator(proto.domain, proto.op_type, opset, name)
    domain = "" if proto.domain in OWN_DOMAINS else proto.domain
    parts = (name, domain, proto.op_type, operator, tuple(proto.input), tuple(proto.output))
    if not domain and proto.op_type in BRANCHING:
        graphs = {entry.name: entry.g for entry in proto.attribute}
        branches = [_branch(graphs[key], opset) for key in ("then_branch", "else_branch")]
        return Node(*parts, {}, tuple(branches))
    return Node(*parts, {entry.name: _attribute(name, entry) for entry in proto.attribute})


def _branch(graph: onnx.GraphProto, opset: int) -> Branch:
    nodes, initial = _parts(graph, opset)
    return Branch(tuple(nodes), initial, tuple(value.name for value in graph.output))


def _attribute(node: str, proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return tensor_of(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, int | float) for item in value):
        return list(value)
    raise OnnxImportError(f"node {node!r}: attribute {proto.name} of its kind is not supported")


def tensor_of(proto: onnx.TensorProto) -> Tensor:
    """
    Raises:
        OnnxImportError: its type is not supported, or its data does not fit its shape.
    """
    try:
        dtype = torch_dtype(proto.data_type)
        array = onnx.numpy_helper.to_array(proto)
        if dtype == torch.bfloat16:
            array = array.astype(np.float32)
        return torch.from_numpy(np.array(array)).to(dtype)
    except Exception as err:  # damaged messages fail in many ways
        raise OnnxImportError(f"tensor {proto.name!r}: {err}") from err
