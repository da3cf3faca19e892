"""Replaces each If by the branch that it takes: exporters write them where a size decides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from candor.onnx_import.build import build
from candor.onnx_import.graph import Branch, Graph, Node
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.operators.table import BRANCHING, find_operator

_MOST = 1000


Inputs = Mapping[str, Sequence[Tensor]]


def without_branches(
    graph: Graph, inputs: Inputs, batches: Sequence[int], limits: OnnxLimits
) -> Graph:
    """
    Args:
        inputs, batches: see `candor.onnx_import.build.build`.
    Raises:
        OnnxImportError: a condition depends on the pixels or on the batch; its node is named.
    """
    for _ in range(_MOST):
        place = next((i for i, node in enumerate(graph.nodes) if node.kind in BRANCHING), None)
        if place is None:
            return graph
        graph = _resolved(graph, place, inputs, batches, limits)
    raise OnnxImportError(f"branches: expected at most {_MOST}, got more")


def _resolved(
    graph: Graph, place: int, inputs: Inputs, batches: Sequence[int], limits: OnnxLimits
) -> Graph:
    node = graph.nodes[place]
    earlier = replace(graph, nodes=graph.nodes[:place])
    holds = _condition(earlier, node, inputs, batches, limits)
    nodes, initial = _renamed(node, node.branches[0 if holds else 1])
    return replace(
        graph,
        nodes=(*graph.nodes[:place], *nodes, *graph.nodes[place + 1 :]),
        initial=graph.initial | initial,
    )


def _condition(
    graph: Graph, node: Node, inputs: Inputs, batches: Sequence[int], limits: OnnxLimits
) -> bool:
    name = node.inputs[0]
    value = build(graph.before([name]), inputs, batches, [name], limits).values[name]
    answers = {bool(tensor) for tensor in value.data} if value.is_static else set()
    if len(answers) != 1:
        raise OnnxImportError(
            f"node {node.name!r} ({node.kind}): its condition {name!r} depends on the pixels or "
            "on the batch; expected one that sizes decide"
        )
    return answers.pop()


def _renamed(node: Node, branch: Branch) -> tuple[list[Node], dict[str, Tensor]]:
    """Nodes of a branch under names of their own, and the results of the If."""
    inside = set(branch.initial) | {name for part in branch.nodes for name in part.outputs}
    names = {name: f"{node.name}/{name}" for name in inside if name}
    nodes = [_with_names(part, names) for part in branch.nodes]
    identity = find_operator("", "Identity", 1, node.name)
    for name, outer in zip(branch.outputs, node.outputs, strict=True):
        source = (names.get(name, name),)
        nodes.append(Node(f"{node.name}/{outer}", "", "Identity", identity, source, (outer,), {}))
    return nodes, {names[name]: tensor for name, tensor in branch.initial.items()}


def _with_names(node: Node, names: dict[str, str]) -> Node:
    branches = []
    for branch in node.branches:
        inside = set(branch.initial) | {name for part in branch.nodes for name in part.outputs}
        outer = {name: new for name, new in names.items() if name not in inside}
        branches.append(
            replace(
                branch,
                nodes=tuple(_with_names(part, outer) for part in branch.nodes),
                outputs=tuple(outer.get(name, name) for name in branch.outputs),
            )
        )
    return replace(
        node,
        inputs=tuple(names.get(name, name) for name in node.inputs),
        outputs=tuple(names.get(name, name) for name in node.outputs),
        branches=tuple(branches),
    )
