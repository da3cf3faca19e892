"""Mends graphs that were exported for one size of the batch: theirs is in every Reshape.

A Reshape to (1, 197, 768) becomes one to (B, 197, 768).  Which of the sizes takes the images is
found by where they lie in the order of the elements: their axis may have been merged with others
before (the windows of a Swin transformer) or after (tokens by images).  Where two places are
possible, the likelier is tried first; a later node that does not fit, and in the end equal logits
for an image alone and among others, decide.
"""

import math
from typing import Any


class Repair:
    """One attempt at mending.

    Args:
        shapes: of every value of the graph for the exporter's own batch.
        own: that batch.
        batches: sizes of the batch that are tried.
        choices: by place of a node, which of its possibilities to take; 0 where it is missing.

    Attributes:
        counts: by place, how many possibilities a mended node has.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        own: int,
        batches: tuple[int, ...],
        choices: dict[int, int],
    ) -> None:
        self._shapes, self._own, self._batches = shapes, own, batches
        self._choices = choices
        self.counts: dict[int, int] = {}
        self._outer: dict[int, int] = {}

    def again(self, choices: dict[int, int]) -> "Repair":
        """Another attempt."""
        return Repair(self._shapes, self._own, self._batches, choices)

    def mended(self, place: int, node: Any, values: dict[str, Any]) -> dict[int, list[Any]]:
        """For a Reshape of images: its new shape at every size of the batch, by input 1."""
        if node.kind != "Reshape":
            return {}
        data = values[node.inputs[0]]
        axes = _batch_axes(data.shapes)
        if len(axes) != 1 or len(data.shapes) != len(self._batches):
            return {}
        old, target = self._shapes[node.inputs[0]], self._shapes[node.outputs[0]]
        position = math.prod(old[: axes[0]]) * data.outer
        places = _candidates(target, position, self._own)
        if not places:
            return {}
        self.counts[place] = len(places)
        axis = places[min(self._choices.get(place, 0), len(places) - 1)]
        self._outer[place] = max(position // math.prod(target[:axis]), 1)
        return {1: [_scaled(target, axis, batch, self._own) for batch in self._batches]}

    def follow(self, place: int, node: Any, values: dict[str, Any]) -> None:
        """Note where the images lie after a mended Reshape."""
        if place in self._outer:
            values[node.outputs[0]].outer = self._outer[place]


def _batch_axes(shapes: list[tuple[int, ...]]) -> list[int]:
    return [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]


def _candidates(target: tuple[int, ...], position: int, own: int) -> list[int]:
    """Axes that may take the images, the likeliest first.

    Args:
        position: elements of the order that lie before the images.
    """
    found = []
    for axis, size in enumerate(target):
        before = math.prod(target[:axis])
        if size % own or before > position or position % before:
            continue
        inner = position // before
        if (size // own) % inner == 0:
            rank = (size != own, axis == len(target) - 1, inner > 1, axis)
            found.append((rank, axis))
    return [axis for _, axis in sorted(found)]


def _scaled(target: tuple[int, ...], axis: int, batch: int, own: int) -> list[int]:
    return [size // own * batch if a == axis else size for a, size in enumerate(target)]
