"""Pooling over windows and over whole maps."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Versions, always
from candor.onnx_import.operators.windows import (
    CONVOLUTIONS,
    Pads,
    is_even,
    or_ones,
    pad_axes,
    spans_of,
    window_pads,
)

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_Ints = Sequence[int]


def max_pool(
    x: Tensor,
    *,
    kernel_shape: _Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: _Ints | None = None,
    pads: _Ints | None = None,
    storage_order: int = 0,
    strides: _Ints | None = None,
    outputs: int = 1,
) -> Tensor:
    if outputs > 1:
        raise ValueError("output Indices is not supported")
    strides, dilations = or_ones(strides, kernel_shape), or_ones(dilations, kernel_shape)
    amounts, tail = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    function = _MAX[len(kernel_shape)]
    fits = all(2 * before <= size for (before, _), size in zip(amounts, kernel_shape, strict=True))
    if is_even(amounts) and fits and not any(tail):
        padding = [before for before, _ in amounts]
        return function(x, list(kernel_shape), list(strides), padding, list(dilations))
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = pad_axes(x, _with_tail(amounts, tail), lowest)
    return function(padded, list(kernel_shape), list(strides), 0, list(dilations))


def average_pool(
    x: Tensor,
    *,
    kernel_shape: _Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: _Ints | None = None,
    pads: _Ints | None = None,
    strides: _Ints | None = None,
) -> Tensor:
    strides, dilations = or_ones(strides, kernel_shape), or_ones(dilations, kernel_shape)
    amounts, tail = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if len(kernel_shape) == 2 and is_even(amounts) and not any(tail) and max(dilations) == 1:
        padding = [before for before, _ in amounts]
        if all(2 * amount <= size for amount, size in zip(padding, kernel_shape, strict=True)):
            return F.avg_pool2d(
                x,
                list(kernel_shape),
                list(strides),
                padding,
                count_include_pad=bool(count_include_pad),
            )
    ones = x.new_ones(1, 1, *x.shape[2:])
    counted = pad_axes(ones, amounts, float(count_include_pad))
    counts = _window_sums(
        pad_axes(counted, [(0, more) for more in tail]), kernel_shape, strides, dilations
    )
    padded = pad_axes(x, _with_tail(amounts, tail))
    return _window_sums(padded, kernel_shape, strides, dilations) / counts


def lp_pool(
    x: Tensor,
    *,
    kernel_shape: _Ints,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: _Ints | None = None,
    p: int = 2,
    pads: _Ints | None = None,
    strides: _Ints | None = None,
) -> Tensor:
    strides, dilations = or_ones(strides, kernel_shape), or_ones(dilations, kernel_shape)
    amounts, tail = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    padded = pad_axes(x.abs() ** p, _with_tail(amounts, tail))
    return _window_sums(padded, kernel_shape, strides, dilations) ** (1 / p)


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(_spatial(x), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(_spatial(x), keepdim=True)


def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)
    return norm


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def _windows(
    x: Tensor,
    kernel: _Ints,
    strides: _Ints,
    dilations: _Ints,
    pads: _Ints | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[Pads, list[int]]:
    """Padding, and the pixels that a last, incomplete window needs beyond it (``ceil_mode``)."""
    sizes, spans = x.shape[2:], spans_of(kernel, dilations)
    amounts = window_pads(sizes, spans, strides, pads, auto_pad)
    tail = [0] * len(kernel)
    if ceil_mode:
        rows = zip(sizes, spans, strides, amounts, strict=True)
        tail = [_tail(size, span, stride, pair) for size, span, stride, pair in rows]
    return amounts, tail


def _tail(size: int, span: int, stride: int, pair: tuple[int, int]) -> int:
    room = size + sum(pair) - span
    steps = -(-room // stride)
    if steps * stride >= size + pair[0]:  # a window may not start behind the image
        steps -= 1
    return max(steps * stride - room, 0)


def _with_tail(amounts: Pads, tail: list[int]) -> Pads:
    return [(before, after + more) for (before, after), more in zip(amounts, tail, strict=True)]


def _window_sums(x: Tensor, kernel: _Ints, strides: _Ints, dilations: _Ints) -> Tensor:
    ones = x.new_ones(1, 1, *kernel)
    single = x.reshape(-1, 1, *x.shape[2:])
    sums = CONVOLUTIONS[len(kernel)](single, ones, None, list(strides), 0, list(dilations))
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


OPERATORS: dict[str, Versions] = {
    "AveragePool": always(average_pool),
    "GlobalAveragePool": always(global_average_pool),
    "GlobalLpPool": always(global_lp_pool),
    "GlobalMaxPool": always(global_max_pool),
    "LpPool": always(lp_pool),
    "MaxPool": always(max_pool),
}
