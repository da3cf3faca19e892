"""A graph as JSON without its weights, from which the module is built again.

It holds what the file said and how it was read, so that a model folder needs neither the file nor
the package ``onnx``.  Tensors of the state dict are named with their shapes alone; small ones stand
here as well, because a size may depend on them, and so do constants, as base64 of their bytes.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from candor.contracts import strict_json
from candor.contracts.json_text import json_text
from candor.onnx_import.assembly import Draft, Plan
from candor.onnx_import.build import SMALL
from candor.onnx_import.classifier import ImageInput
from candor.onnx_import.graph import Graph, Node
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.operators.table import find_operator

_VERSION = 1
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}
_DTYPES |= {"int32": torch.int32, "int16": torch.int16, "int8": torch.int8}
_DTYPES |= {"uint8": torch.uint8, "bool": torch.bool}
_DTYPES |= {"float16": torch.float16}
_MOST_RANK = 16


@dataclass(frozen=True, slots=True)
class Description:
    """What the JSON holds.

    Attributes:
        metadata: free texts of the file.
        producer: name and version of the exporter.
    """

    draft: Draft
    plan: Plan
    metadata: Mapping[str, str]
    producer: str


def written(description: Description) -> bytes:
    """Deterministic JSON."""
    draft, plan = description.draft, description.plan
    graph, image = draft.graph, draft.image
    document = {
        "version": _VERSION,
        "producer": description.producer,
        "metadata": dict(description.metadata),
        "opset": graph.opset,
        "input": {
            "name": image.name,
            "shape": image.shape,
            "channels_last": image.channels_last,
            "batch": image.batch,
        },
        "logits": draft.logits,
        "activation": draft.activation,
        "plan": {"own": plan.own, "choices": plan.choices, "chunk": plan.chunk},
        "tensors": {name: _tensor(graph, name) for name in graph.initial},
        "nodes": [_node(node) for node in graph.nodes],
    }
    return json_text(document, is_compact=True).encode()


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    tensor, is_kept = graph.initial[name], name in graph.kept
    role = "constant" if not is_kept else "learned" if name in graph.learned else "fixed"
    entry = {"role": role} | _with_data(tensor)
    if is_kept and tensor.numel() > SMALL:
        del entry["data"]
    return entry


def _with_data(tensor: Tensor) -> dict[str, Any]:
    array = tensor.detach().cpu().contiguous().numpy()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    data = base64.b64encode(little.tobytes()).decode()
    return {"type": str(tensor.dtype).removeprefix("torch."), "shape": tensor.shape, "data": data}


def _node(node: Node) -> list[Any]:
    attributes = {name: _attribute(value) for name, value in node.attributes.items()}
    return [node.name, node.domain, node.kind, node.inputs, node.outputs, attributes]


def _attribute(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": _with_data(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    return value


def read(content: bytes, limits: OnnxLimits) -> Description:
    """
    Raises:
        OnnxImportError: these bytes are no description of a graph, or name an unknown operator.
    """
    try:
        return _description(strict_json.loads(content), limits)
    except OnnxImportError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as err:
        raise OnnxImportError(
            f"graph: expected what the import of an ONNX file wrote ({type(err).__name__}: {err})"
        ) from err


def _description(document: Any, limits: OnnxLimits) -> Description:
    if document["version"] != _VERSION:
        raise OnnxImportError(f"graph: expected version {_VERSION}, got {document['version']}")
    given, plan = document["input"], document["plan"]
    channels, height, width = map(int, given["shape"])
    last = bool(given["channels_last"])
    image = ImageInput(given["name"], (channels, height, width), last, given["batch"])
    choices = tuple((int(place), int(choice)) for place, choice in plan["choices"])
    draft = Draft(
        _graph(document, limits), image, document["logits"], document["activation"], limits
    )
    return Description(
        draft,
        Plan(plan["own"], choices, plan["chunk"]),
        document["metadata"],
        document["producer"],
    )


def _graph(document: Any, limits: OnnxLimits) -> Graph:
    nodes, tensors, opset = document["nodes"], document["tensors"], int(document["opset"])
    if len(nodes) > limits.nodes:
        raise OnnxImportError(f"graph: nodes: expected at most {limits.nodes}, got {len(nodes)}")
    initial = {name: _read_tensor(name, entry, limits) for name, entry in tensors.items()}
    weights = sum(tensor.numel() * tensor.itemsize for tensor in initial.values())
    if weights > limits.file_bytes:
        raise OnnxImportError(
            f"graph: weights: expected at most {limits.file_bytes} bytes, got {weights}"
        )
    learned = {name for name, entry in tensors.items() if entry["role"] == "learned"}
    fixed = {name for name, entry in tensors.items() if entry["role"] == "fixed"}
    return Graph(
        tuple(_read_node(opset, *node) for node in nodes),
        initial,
        (),
        (document["logits"],),
        opset,
        frozenset(learned | fixed),
        frozenset(learned),
    )


def _read_tensor(name: str, entry: Any, limits: OnnxLimits) -> Tensor:
    dtype, shape = _DTYPES[entry["type"]], [int(size) for size in entry["shape"]]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or len(shape) > _MOST_RANK or count > limits.tensor_elements:
        raise OnnxImportError(f"graph: tensor {name!r}: shape {shape[:_MOST_RANK]} is too large")
    if "data" not in entry:
        return torch.zeros((), dtype=dtype).expand(shape)  # its memory is that of one number
    try:
        data = base64.b64decode(entry["data"], validate=True)
    except binascii.Error as err:
        raise OnnxImportError(f"graph: tensor {name!r}: expected base64: {err}") from err
    kind = torch.empty(0, dtype=dtype).numpy().dtype.newbyteorder("<")
    array = np.frombuffer(data, dtype=kind).reshape(shape)
    return torch.from_numpy(array.astype(kind.newbyteorder("=")))


def _read_node(
    opset: int,
    name: str,
    domain: str,
    kind: str,
    inputs: list[str],
    outputs: list[str],
    attributes: dict[str, Any],
) -> Node:
    operator = find_operator(domain, kind, opset, name)
    values = {key: _read_attribute(name, value) for key, value in attributes.items()}
    return Node(name, domain, kind, operator, tuple(inputs), tuple(outputs), values)


def _read_attribute(node: str, value: Any) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return _read_tensor(node, value["tensor"], OnnxLimits())
        return float(value["number"])
    return value
