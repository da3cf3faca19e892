"""The torch module of a graph: nodes in their order, weights apart from them.

The module interprets a list; no code is made of a file.  ``torch.compile`` and the tracers of torch
see the operations of the nodes one after the other.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from candor.onnx_import.graph import Node


@dataclass(frozen=True, slots=True)
class BatchInts:
    """Whole numbers that depend on the batch: constant + slope * B, element by element."""

    constants: list[int]
    slopes: list[int]
    is_scalar: bool = False

    def at(self, batch: int) -> list[int] | int:
        pairs = zip(self.constants, self.slopes, strict=True)
        values = [constant + slope * batch for constant, slope in pairs]
        return values[0] if self.is_scalar else values


@dataclass(slots=True)
class Step:
    """A node that is computed at run time, and where each of its arguments comes from.

    Attributes:
        arguments: numbers and lists; None at the places of the rest.
        values: places of arguments that are tensors, and their names.
        sized: places of arguments that depend on the batch.
        done: names of values that no later step needs.
    """

    node: Node
    arguments: list[Any]
    values: list[tuple[int, str]] = field(default_factory=list)
    sized: list[tuple[int, BatchInts]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


class OnnxNode(nn.Module):
    """One step; a submodule so that hooks can be placed on it."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        node = step.node
        self.name, self.kind = node.name, node.kind
        self.function = node.operator.function
        self.attributes = dict(node.attributes)
        self.arguments = step.arguments
        self.sized = step.sized
        self.places = [place for place, _ in step.values]
        self.inputs = [name for _, name in step.values]
        self.outputs, self.done = list(node.outputs), step.done
        names = keywords(self.function)
        self.knows_training = "training" in names
        if "outputs" in names:
            self.attributes["outputs"] = sum(bool(name) for name in node.outputs)

    def forward(self, *tensors: Tensor, batch: int) -> Any:
        arguments = list(self.arguments)
        for place, tensor in zip(self.places, tensors, strict=True):
            arguments[place] = tensor
        for place, numbers in self.sized:
            arguments[place] = numbers.at(batch)
        if self.knows_training:
            return self.function(*arguments, **self.attributes, training=self.training)
        return self.function(*arguments, **self.attributes)

    def extra_repr(self) -> str:
        return f"{self.name}: {self.kind}"


class Values(nn.Module):
    """Named tensors of a graph.

    Attributes:
        keys_by_name: their keys in the state dict, which may have no dots.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys_by_name: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor, *, learned: bool, kept: bool) -> None:
        """Parameters are ``learned``; buffers that the graph does not know anew are ``kept``."""
        key = name.replace(".", "_") or "_"
        while hasattr(self, key):
            key += "_"
        self.keys_by_name[name] = key
        if learned:
            self.register_parameter(key, nn.Parameter(tensor))
        else:
            self.register_buffer(key, tensor, persistent=kept)

    def by_name(self) -> dict[str, Tensor]:
        return {name: getattr(self, key) for name, key in self.keys_by_name.items()}


class OnnxModule(nn.Module):
    """(B, C, H, W) to (B, V): a graph of ONNX nodes.

    Args:
        steps: in their order.
        weights: parameters and buffers that the steps name.
        channels_last: the graph takes (B, H, W, C).
        chunk: images of one run, where the graph can take no other number; None for any.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        weights: Values,
        *,
        input_name: str,
        output_name: str,
        channels_last: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.nodes = nn.ModuleList([OnnxNode(step) for step in steps])
        self.weights = weights
        self.input_name, self.output_name = input_name, output_name
        self.channels_last, self.chunk = channels_last, chunk

    def forward(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.permute(0, 2, 3, 1)
        if self.chunk is None:
            return self._logits(images)
        missing = -len(images) % self.chunk
        if missing:
            images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        parts = [self._logits(part) for part in torch.split(images, self.chunk)]
        logits = torch.cat(parts)
        return logits[: len(logits) - missing]

    def _logits(self, images: Tensor) -> Tensor:
        values = self.run({self.input_name: images}, images.shape[0])
        logits = values[self.output_name]
        return logits if logits.ndim == 2 else logits.reshape(logits.shape[0], -1)

    def run(self, inputs: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
        """Values that the steps leave, outputs among them."""
        values = self.weights.by_name() | dict(inputs)
        device = next(iter(inputs.values())).device if inputs else None
        for node in self.nodes:
            assert isinstance(node, OnnxNode)
            result = node(*[values[name] for name in node.inputs], batch=batch)
            results = result if isinstance(result, tuple | list) else (result,)
            for name, tensor in zip(node.outputs, results, strict=False):
                values[name] = tensor if node.inputs else tensor.to(device)
            for name in node.done:
                del values[name]
        return values


@functools.cache
def keywords(function: Any) -> frozenset[str]:
    """Names of the keywords of a function; none for torch's own, which have no attributes."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except ValueError:
        return frozenset()
