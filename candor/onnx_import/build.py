"""Makes steps of a graph: what does not depend on the pixels is computed now, once.

Every value is followed for a few sizes of the batch at the same time: those that come from the
image as shapes alone (torch's meta tensors), the others as numbers.  Whole numbers that differ
between the sizes (a Reshape to (B, 197, 768)) become `BatchInts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from candor.onnx_import.batch import Repair
from candor.onnx_import.graph import Graph, Node
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.module import BatchInts, Step, keywords
from candor.onnx_import.operators.constants import BY_NUMBERS, SHAPE_ONLY

# What torch and operators raise where a node does not fit its inputs.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
SMALL = 64  # elements of a learned tensor that may also decide a shape (scales of a Resize)


@dataclass(slots=True)
class Value:
    """One value of the graph for every size of the batch that is tried.

    Attributes:
        data: a tensor for each size: its numbers where they are known, else its shape ("meta").
        is_known: its numbers do not depend on the pixels.
        is_learned: computed from the state dict, so it is computed again at run time.
        outer: how many elements lie before the images along their axis, see `Repair`.
    """

    data: list[Tensor]
    is_known: bool
    is_learned: bool = False
    outer: int = 1

    @property
    def is_static(self) -> bool:
        return self.is_known and not self.is_learned

    @property
    def is_same(self) -> bool:
        """Whether it is one tensor for every size of the batch."""
        return all(tensor is self.data[0] for tensor in self.data)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(tensor.shape) for tensor in self.data]


@dataclass(slots=True)
class Built:
    """Steps of a graph, the values they start from, and the shapes on the way.

    Attributes:
        steps: all that run for the wanted outputs.
        constants: tensors that were computed now, by name.
        values: every value of the graph.
    """

    steps: list[Step]
    constants: dict[str, Tensor]
    values: dict[str, Value] = field(default_factory=dict)


def build(
    graph: Graph,
    inputs: Mapping[str, Sequence[Tensor]],
    batches: Sequence[int],
    outputs: Sequence[str],
    limits: OnnxLimits,
    repair: Repair | None = None,
) -> Built:
    """
    Args:
        inputs: for each graph input a meta tensor for every size of ``batches``.
        batches: sizes of the batch to try; those at run time may be others.
        outputs: names of the values that are wanted.
        repair: how a Reshape with a batch of the exporter in it is mended; None: as it stands.
    Raises:
        OnnxImportError: a node cannot be computed; it is named.
    """
    values = {name: Value(list(tensors), False) for name, tensors in inputs.items()}
    for name, tensor in graph.initial.items():
        values[name] = _initial(tensor, name in graph.kept, len(batches))
    writer = _StepWriter(values, batches)
    for place, node in enumerate(graph.nodes):
        mended = repair.mended(place, node, values) if repair else {}
        try:
            results, is_static = _evaluate(node, values, mended, limits)
            values |= results
            if is_static:
                writer.known |= {name: node for name in node.outputs}
            else:
                writer.write(node, mended)
        except _FAILURES as err:
            raise _named(place, node, err) from err
        if repair:
            repair.follow(place, node, values)
    for name in outputs:
        if values[name].is_static:
            writer.constants[name] = values[name].data[0]
    return Built(_needed(writer.steps, outputs), writer.constants, values)


class NodeError(OnnxImportError):
    """A node that cannot be computed, and its place."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


def _named(place: int, node: Node, err: Exception) -> NodeError:
    line = str(err).splitlines()[0] if str(err) else type(err).__name__
    return NodeError(place, f"node {node.name!r} ({node.kind}): {line[:300]}")


def _initial(tensor: Tensor, is_kept: bool, count: int) -> Value:
    if is_kept and tensor.numel() > SMALL:
        return Value([tensor.to("meta")] * count, False, True)
    return Value([tensor] * count, True, is_kept)


def _evaluate(
    node: Node, values: dict[str, Value], mended: dict[int, list[Any]], limits: OnnxLimits
) -> tuple[dict[str, Value], bool]:
    """Results of a node, and whether they are known without a step at run time."""
    used = [values[name] if name else None for name in node.inputs]
    given = [value for value in used if value is not None]
    is_shape = node.kind in SHAPE_ONLY
    is_known = is_shape or all(value.is_known for value in given)
    is_learned = not is_shape and any(value.is_learned for value in given)
    count, runs = _count(values), []
    # What is the same for every size of the batch is computed once.
    is_same = not mended and all(value.is_same for value in given)
    for trial in range(1 if is_same else count):
        arguments = [
            _argument(node, place, value, trial, mended) for place, value in enumerate(used)
        ]
        runs.append(_run(node, arguments, is_known, limits))
    runs = runs * (count // len(runs))
    results = {}
    for index, name in enumerate(node.outputs):
        if name and index < len(runs[0]):
            data = [run[index] for run in runs]
            small = not is_learned or data[0].numel() <= SMALL
            known = is_known and small
            if not known and is_same:
                data = [data[0].to("meta")] * count
            elif not known:
                data = [tensor.to("meta") for tensor in data]
            results[name] = Value(data, known, is_learned, max([v.outer for v in given] + [1]))
    return results, is_known and not is_learned


def _count(values: dict[str, Value]) -> int:
    return len(next(iter(values.values())).data)


def _argument(
    node: Node, place: int, value: Value | None, trial: int, mended: dict[int, list[Any]]
) -> Any:
    if place in mended:
        return mended[place][trial]
    if value is None:
        return None
    if place in node.operator.static:
        if not value.is_known:
            raise OnnxImportError(f"input {place} ({node.inputs[place]!r}) depends on the pixels")
        return value.data[trial].tolist()
    return value.data[trial]


def _run(
    node: Node, arguments: list[Any], is_known: bool, limits: OnnxLimits
) -> tuple[Tensor, ...]:
    """On meta tensors first: a few bytes of a file may ask for all memory."""
    if node.kind in BY_NUMBERS and not is_known:
        raise OnnxImportError(f"input 0 ({node.inputs[0]!r}) depends on the pixels")
    if node.kind in SHAPE_ONLY | BY_NUMBERS:
        return _called(node, arguments)
    shapes = [value.to("meta") if isinstance(value, Tensor) else value for value in arguments]
    with torch.device("meta"):
        results = _called(node, shapes)
    for tensor in results:
        if tensor.numel() > limits.tensor_elements * 8:
            raise OnnxImportError(f"its result of shape {tuple(tensor.shape)} is too large")
    return _called(node, arguments) if is_known else results


def _called(node: Node, arguments: list[Any]) -> tuple[Tensor, ...]:
    names = keywords(node.operator.function)
    extra: dict[str, Any] = {}
    if "outputs" in names:
        extra["outputs"] = sum(bool(name) for name in node.outputs)
    with torch.no_grad():
        result = node.operator.function(*arguments, **node.attributes, **extra)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


class _StepWriter:
    """Writes the steps of nodes that are computed at run time.

    Attributes:
        known: nodes of values that are known now, by value; a tensor that is another for every
            batch is computed at run time after all.
    """

    def __init__(self, values: dict[str, Value], batches: Sequence[int]) -> None:
        self._values, self._batches = values, batches
        self.steps: list[Step] = []
        self.constants: dict[str, Tensor] = {}
        self.known: dict[str, Node] = {}

    def write(self, node: Node, mended: dict[int, list[Any]]) -> None:
        step = Step(node, [None] * len(node.inputs))
        for place, name in enumerate(node.inputs):
            if name:
                self._give(step, place, name, mended.get(place))
        self.steps.append(step)

    def _give(self, step: Step, place: int, name: str, mended: list[Any] | None) -> None:
        value, operator = self._values[name], step.node.operator
        is_number = value.is_static and operator.numbers and _is_number(value)
        if mended or place in operator.static or is_number:
            trials = mended or [tensor.tolist() for tensor in value.data]
            _set_numbers(step, place, trials, self._batches)
            return
        if value.is_static and name not in self.constants:
            self._keep(name, value)
        step.values.append((place, name))

    def _keep(self, name: str, value: Value) -> None:
        row = _constant(value)
        if row is not None:
            self.constants[name] = row
        elif name in self.known:
            self.write(self.known.pop(name), {})


def _set_numbers(step: Step, place: int, trials: list[Any], batches: Sequence[int]) -> None:
    if all(trial == trials[0] for trial in trials):
        step.arguments[place] = trials[0]
        return
    numbers = _fit(trials, batches)
    if numbers is None:
        name = step.node.inputs[place]
        raise OnnxImportError(f"input {place} ({name!r}) depends on the batch, not linearly")
    step.sized.append((place, numbers))


def _fit(trials: list[Any], batches: Sequence[int]) -> BatchInts | None:
    is_scalar = isinstance(trials[0], int)
    rows = [[trial] if is_scalar else trial for trial in trials]
    if len({len(row) for row in rows}) > 1 or not all(isinstance(x, int) for r in rows for x in r):
        return None
    gap = batches[1] - batches[0]
    slopes = [(b - a) // gap for a, b in zip(rows[0], rows[1], strict=True)]
    constants = [a - slope * batches[0] for a, slope in zip(rows[0], slopes, strict=True)]
    fit = BatchInts(constants, slopes, is_scalar)
    return fit if all(fit.at(b) == t for b, t in zip(batches, trials, strict=True)) else None


def _is_number(value: Value) -> bool:
    first = value.data[0]
    is_same = all(torch.equal(first, other) for other in value.data)
    return first.ndim == 0 and (is_same or first.dtype == torch.int64)


def _constant(value: Value) -> Tensor | None:
    """A tensor that is the same for every batch; one of equal rows for each image gives one row."""
    first = value.data[0]
    if all(torch.equal(first, other) for other in value.data[1:]):
        return first
    axes = [
        axis for axis, sizes in enumerate(zip(*value.shapes, strict=True)) if len(set(sizes)) > 1
    ]
    if len(axes) == 1:
        row = first.narrow(axes[0], 0, 1)
        if all(bool((other == row).all()) for other in value.data):
            return row
    return None


def _needed(steps: list[Step], outputs: Sequence[str]) -> list[Step]:
    """Steps that an output needs; each is told which values it is the last to read."""
    wanted, kept, seen = set(outputs), [], set(outputs)
    for step in reversed(steps):
        if not wanted.intersection(step.node.outputs):
            continue
        names = {name for _, name in step.values}
        wanted |= names
        step.done = sorted((names | set(step.node.outputs)) - seen - {""})
        seen |= names | set(step.node.outputs)
        kept.append(step)
    return kept[::-1]
