"""What each tensor of a file is: a weight that training moves, a statistic, or a constant.

A file says none of it.  The place where a tensor is used does: the mean of a BatchNormalization is
a statistic, what is subtracted from the pixels is preprocessing, a bias is learned.  Exporters
write tensors with equal numbers once, and put nodes (Identity, Cast, Reshape) between a tensor and
its use, so every use is looked at by itself, and those that differ get tensors of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from candor.onnx_import.build import build
from candor.onnx_import.graph import Graph, Node
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.operators.constants import SHAPE_ONLY

# Other operands of these, on the way from the pixels to the first layer, are the preprocessing.
_PREPROCESSING = frozenset(
    {
        "Add", "Cast", "Clip", "Concat", "Div", "Gather", "Identity", "Mul", "Pad", "Reshape",
        "Resize", "Slice", "Split", "Sub", "Sum", "Transpose", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
# Inputs from the second on are weights, even of one element.
_LAYERS = frozenset(
    {
        "BatchNormalization", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "Gemm",
        "GroupNormalization", "InstanceNormalization", "LayerNormalization", "MatMul", "PRelu",
        "RMSNormalization",
    }
)  # fmt: skip
_MASKED = -10.0  # what an attention mask adds at least, where it takes something out
Use = tuple[int, int]  # place of a node, index of its input


def with_roles(graph: Graph, image: str, limits: OnnxLimits) -> Graph:
    """The graph with `Graph.kept` and `Graph.learned`, and one tensor for each role.

    Raises:
        OnnxImportError: a weight is infinite, or what fixes a statistic cannot be computed.
    """
    draft = _Draft(list(graph.nodes), dict(graph.initial))
    for use in _fixed_uses(graph, image):
        tensor = _constant(graph, graph.nodes[use[0]].inputs[use[1]], limits)
        if tensor is not None:
            draft.fixed.add(draft.give(use, tensor))
    _untie(draft)
    uses = _uses(draft.nodes)
    kept = {name for name in draft.initial if _is_kept(name, draft, uses.get(name, []))}
    learned = {name for name in kept - draft.fixed if not _is_mask(draft.initial[name])}
    return replace(
        graph,
        nodes=tuple(draft.nodes),
        initial=draft.initial,
        kept=frozenset(kept),
        learned=frozenset(learned),
    )


@dataclass(slots=True)
class _Draft:
    nodes: list[Node]
    initial: dict[str, Tensor]
    fixed: set[str] = field(default_factory=set)

    def give(self, use: Use, tensor: Tensor) -> str:
        """A tensor for this use alone; its name."""
        place, index = use
        node = self.nodes[place]
        name = f"{node.inputs[index]}@{node.name}"
        while name in self.initial:
            name += f".{index}"
        self.initial[name] = tensor.clone()
        inputs = list(node.inputs)
        inputs[index] = name
        self.nodes[place] = node.with_inputs(inputs)
        return name


def _fixed_uses(graph: Graph, image: str) -> Iterator[Use]:
    """Where training may not move a tensor by its gradient."""
    raw = {image}
    for place, node in enumerate(graph.nodes):
        if node.kind == "BatchNormalization":
            yield from ((place, index) for index in range(3, len(node.inputs)))
        elif node.kind == "InstanceNormalization" and _has_no_weights(graph, node):
            yield from ((place, 1), (place, 2))
        elif node.kind in _PREPROCESSING and raw.intersection(node.inputs):
            rest = (i for i, name in enumerate(node.inputs) if name and name not in raw)
            yield from ((place, index) for index in rest)
            raw |= set(node.outputs)


def _has_no_weights(graph: Graph, node: Node) -> bool:
    """Exporters write ones and zeros where a layer has no scale and bias (parts of GroupNorm)."""
    scale, bias = (graph.initial.get(name) for name in node.inputs[1:3])
    if scale is None or bias is None:
        return False
    return bool((scale == 1).all()) and bool((bias == 0).all())


def _constant(graph: Graph, name: str, limits: OnnxLimits) -> Tensor | None:
    """The numbers of a value that depends on the file alone; None where it depends on the pixels.

    Whole numbers and single ones need no role.
    """
    part = replace(graph.before([name]), kept=frozenset(), learned=frozenset())
    inputs = {value.name for value in graph.inputs}
    used = {name} | {source for node in part.nodes for source in node.inputs}
    if inputs & used:
        return None
    tensor = build(part, {"": [torch.empty(0)]}, (1,), [name], limits).constants[name]
    return tensor if tensor.is_floating_point() else None


def _untie(draft: _Draft) -> None:
    """Equal numbers everywhere (zeros of biases, ones of scales) are shared by chance alone."""
    for name, uses in _uses(draft.nodes).items():
        tensor = draft.initial.get(name)
        if tensor is not None and len(uses) > 1 and _is_uniform(tensor):
            for use in uses[1:]:
                draft.give(use, tensor)


def _is_uniform(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() < 2:
        return False
    flat = tensor.reshape(-1)
    return bool((flat == flat[0]).all())


def _uses(nodes: list[Node]) -> dict[str, list[Use]]:
    uses: dict[str, list[Use]] = {}
    for place, node in enumerate(nodes):
        for index, name in enumerate(node.inputs):
            is_read = bool(name) and node.kind not in SHAPE_ONLY
            if is_read and index not in node.operator.static:
                uses.setdefault(name, []).append((place, index))
    return uses


def _is_kept(name: str, draft: _Draft, uses: list[Use]) -> bool:
    """Whether a tensor belongs to the state dict.

    Raises:
        OnnxImportError: it is a weight, and infinite.
    """
    tensor = draft.initial[name]
    if not tensor.is_floating_point() or not uses:
        return False
    if not bool(tensor.isfinite().all()):
        _check_mask(name, tensor, [draft.nodes[place] for place, _ in uses])
        return False
    return tensor.numel() > 1 or (name not in draft.fixed and _is_single_weight(draft, uses))


def _check_mask(name: str, tensor: Tensor, nodes: list[Node]) -> None:
    wrong = [node for node in nodes if node.kind in _LAYERS]
    if wrong:
        count = int((~tensor.isfinite()).sum())
        raise OnnxImportError(
            f"weight {name!r} of node {wrong[0].name!r} ({wrong[0].kind}): expected finite "
            f"numbers, got {count} infinite ones"
        )


def _is_single_weight(draft: _Draft, uses: list[Use]) -> bool:
    """One element is a weight of a layer, or a bias behind a MatMul, but no factor of a formula."""
    makers = {name: node for node in draft.nodes for name in node.outputs}
    for place, index in uses:
        node = draft.nodes[place]
        if node.kind in _LAYERS and index > 0:
            return True
        others = [makers.get(name) for name in node.inputs]
        is_behind = any(maker is not None and maker.kind == "MatMul" for maker in others)
        if node.kind == "Add" and is_behind and draft.initial[node.inputs[index]].ndim == 1:
            return True
    return False


def _is_mask(tensor: Tensor) -> bool:
    """Zeros and one number far below: what attention may not see."""
    if tensor.numel() < 2 or float(tensor.min()) > _MASKED or float(tensor.max()) != 0:
        return False
    return bool(((tensor == 0) | (tensor == tensor.min())).all())
