"""Reshaping, permuting, joining and cutting of tensors."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Versions, always, single

Ints = Sequence[int]


def reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    kept = [
        x.shape[axis] if size == 0 and not allowzero else size for axis, size in enumerate(shape)
    ]
    return x.reshape(kept)


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1 and x.ndim > 1:
        return x.flatten(1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def transpose(x: Tensor, *, perm: Ints | None = None) -> Tensor:
    return x.permute(list(perm) if perm else list(range(x.ndim))[::-1])


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    if axes is None:
        return x.squeeze()
    wrong = [axis for axis in axes if x.shape[axis] != 1]
    if wrong:
        raise ValueError(f"axes: expected axes of size 1, got {wrong} of shape {tuple(x.shape)}")
    return x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    axes = [axes] if isinstance(axes, int) else axes
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Ints) -> Tensor:
    """Both sides broadcast: a 1 of ``shape`` keeps the axis as it is."""
    missing = len(shape) - x.ndim
    x = x.reshape([1] * missing + list(x.shape)) if missing > 0 else x
    sizes = [1] * -missing + list(shape) if missing < 0 else list(shape)
    wanted = [-1 if size == 1 else size for size in sizes]
    return x.expand(wanted)


def tile(x: Tensor, repeats: Ints) -> Tensor:
    return x.repeat(*repeats) if x.ndim else x


def concat(*tensors: Tensor, axis: int) -> Tensor:
    """A constant of one row (a class token) is repeated for every image of the batch."""
    axis = axis % tensors[0].ndim
    sizes = [max(column) for column in zip(*(tensor.shape for tensor in tensors), strict=True)]
    return torch.cat([_widened(tensor, sizes, axis) for tensor in tensors], axis)


def _widened(x: Tensor, sizes: list[int], axis: int) -> Tensor:
    wanted = [x.shape[a] if a == axis else size for a, size in enumerate(sizes)]
    return x if list(x.shape) == wanted else x.expand(wanted)


def split(
    x: Tensor,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    if split is not None:
        return torch.split(x, list(split), axis)
    count = num_outputs or outputs
    return torch.split(x, -(-x.shape[axis] // count), axis)


def cut(
    x: Tensor,
    starts: Ints,
    ends: Ints,
    axes: Ints | None = None,
    steps: Ints | None = None,
) -> Tensor:
    for place, start in enumerate(starts):
        axis = (axes[place] if axes else place) % x.ndim
        step = steps[place] if steps else 1
        x = _cut_axis(x, axis, slice(start, ends[place], step))
    return x


def _cut_axis(x: Tensor, axis: int, window: slice) -> Tensor:
    size = x.shape[axis]
    if window.step > 0:
        return x[(slice(None),) * axis + (window,)]
    start = min(window.start + size if window.start < 0 else window.start, size - 1)
    end = max(window.stop + size if window.stop < 0 else window.stop, -1)
    kept = list(range(start, end, window.step))  # torch has no negative steps
    return x.index_select(axis, torch.tensor(kept, dtype=torch.int64, device=x.device))


def pad(
    x: Tensor,
    pads: Ints | None = None,
    value: float | list[float] | None = 0.0,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
    paddings: Ints | None = None,
) -> Tensor:
    amounts = list(pads if pads is not None else paddings or [])
    places = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    pairs = dict(
        zip(places, zip(amounts[: len(places)], amounts[len(places) :], strict=True), strict=True)
    )
    if mode == "constant":
        flat = [amount for axis in reversed(range(x.ndim)) for amount in pairs.get(axis, (0, 0))]
        return F.pad(x, flat, value=single(value) or 0.0)
    for axis, (before, after) in pairs.items():
        if before or after:
            x = x.index_select(axis, _sources(x, axis, before, after, mode))
    return x


def _sources(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Which row of the axis each row of the padded one repeats."""
    size = x.shape[axis]
    places = torch.arange(-before, size + after, device=x.device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        places = places % period
        return torch.where(places < size, places, period - places)
    raise ValueError(f"mode: expected constant, edge, reflect or wrap, got {mode!r}")


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    batch, channels, height, width = x.shape
    depth = channels // blocksize**2
    if mode == "DCR":
        parts = x.reshape(batch, blocksize, blocksize, depth, height, width)
        parts = parts.permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(batch, depth, blocksize, blocksize, height, width)
        parts = parts.permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, depth, height * blocksize, width * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    batch, channels, height, width = x.shape
    parts = x.reshape(
        batch, channels, height // blocksize, blocksize, width // blocksize, blocksize
    )
    parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, -1, height // blocksize, width // blocksize)


def triangle(x: Tensor, k: int | list[int] | None = 0, *, upper: int = 1) -> Tensor:
    diagonal = single(k) or 0
    return x.triu(diagonal) if upper else x.tril(diagonal)


OPERATORS: dict[str, Versions] = {
    "Concat": always(concat),
    "DepthToSpace": always(depth_to_space),
    "Expand": always(expand, 1),
    "Flatten": always(flatten),
    "Pad": always(pad, 1, 2, 3),
    "Reshape": always(reshape, 1),
    "Slice": always(cut, 1, 2, 3, 4),
    "SpaceToDepth": always(space_to_depth),
    "Split": always(split, 1),
    "Squeeze": always(squeeze, 1),
    "Tile": always(tile, 1),
    "Transpose": always(transpose),
    "Trilu": always(triangle, 1),
    "Unsqueeze": always(unsqueeze, 1),
}
