"""A graph as plain Python: nodes with their operators, and the tensors it starts from.

Nothing here knows the file format: `candor.onnx_import.convert` makes it of an ONNX message, and
`candor.onnx_import.description` writes and reads it as JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.operators.operator import Operator


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        name: in the file; where it has none, its operator and place.
        inputs: names of values; "" where one is left out.
        branches: of an If, what it computes where its condition holds and where it does not.
    """

    name: str
    domain: str
    kind: str
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    branches: tuple["Branch", ...] = ()

    def with_inputs(self, inputs: Sequence[str]) -> "Node":
        return replace(self, inputs=tuple(inputs))


@dataclass(frozen=True, slots=True)
class Branch:
    """A graph inside a graph, which may also use the values around it."""

    nodes: tuple[Node, ...]
    initial: dict[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphInput:
    """What a graph takes.

    Attributes:
        element_type: number of ONNX, see `candor.onnx_import.operators.dtypes`.
        sizes: None where the file leaves one open.
    """

    name: str
    element_type: int
    sizes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order of their computation, and what they start from.

    Attributes:
        initial: tensors of the file, by name.
        kept: names of those that belong to the state dict: weights and statistics.
        learned: names of those that training moves; part of ``kept``.
    """

    nodes: tuple[Node, ...]
    initial: dict[str, Tensor]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    opset: int
    kept: frozenset[str] = field(default=frozenset())
    learned: frozenset[str] = field(default=frozenset())

    def before(self, outputs: Sequence[str]) -> "Graph":
        """The part that computes the values of these names."""
        wanted, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted |= set(node.inputs)
                nodes.append(node)
        initial = {name: tensor for name, tensor in self.initial.items() if name in wanted}
        return replace(
            self,
            nodes=tuple(nodes[::-1]),
            initial=initial,
            outputs=tuple(outputs),
            kept=self.kept & set(initial),
            learned=self.learned & set(initial),
        )


def ordered(nodes: Sequence[Node], known: set[str]) -> tuple[Node, ...]:
    """ONNX asks for this order already; some tools do not keep it.

    Raises:
        OnnxImportError: a value is computed by none.
    """
    done: list[Node] = []
    waiting = list(nodes)
    while waiting:
        ready, later = [], []
        for node in waiting:
            if known.issuperset(_names_used(node)):
                ready.append(node)
                known |= set(node.outputs)
            else:
                later.append(node)
        if not ready:
            lost = sorted(_names_used(later[0]) - known)
            raise OnnxImportError(
                f"node {later[0].name!r}: its input {lost[0]!r} is computed by none"
            )
        done, waiting = done + ready, later
    return tuple(done)


def _names_used(node: Node) -> set[str]:
    """Inputs, and what branches take from around them."""
    names = set(node.inputs)
    for branch in node.branches:
        inside = set(branch.initial) | {name for part in branch.nodes for name in part.outputs}
        outer = {name for part in branch.nodes for name in _names_used(part)} | set(branch.outputs)
        names |= outer - inside - {""}
    return names
