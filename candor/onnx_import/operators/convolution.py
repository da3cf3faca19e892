"""Convolution and its transpose, in one to three dimensions."""

from collections.abc import Sequence

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

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    kernel = tuple(weight.shape[2:])
    strides, dilations = or_ones(strides, kernel), or_ones(dilations, kernel)
    spans = spans_of(kernel, dilations)
    amounts = window_pads(x.shape[2:], spans, strides, pads, auto_pad)
    function = CONVOLUTIONS[len(kernel)]
    if is_even(amounts):
        padding = tuple(before for before, _ in amounts)
        return function(x, weight, bias, tuple(strides), padding, tuple(dilations), group)
    return function(pad_axes(x, amounts), weight, bias, tuple(strides), 0, tuple(dilations), group)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    kernel = tuple(weight.shape[2:])
    strides, dilations = or_ones(strides, kernel), or_ones(dilations, kernel)
    extra = output_padding or [0] * len(kernel)
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
    function = _TRANSPOSED[len(kernel)]
    whole = function(x, weight, None, tuple(strides), 0, 0, group, tuple(dilations))
    if output_shape is not None:
        wanted = list(output_shape)[-len(kernel) :]
        amounts = _cuts(whole.shape[2:], extra, wanted, auto_pad)
    else:
        amounts = window_pads(whole.shape[2:], kernel, strides, pads, auto_pad)
    cut = [(-before, more - after) for (before, after), more in zip(amounts, extra, strict=True)]
    y = pad_axes(whole, cut)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(kernel))


def _cuts(sizes: Sequence[int], extra: Sequence[int], wanted: Sequence[int], auto_pad: str) -> Pads:
    """What the transpose cuts off on each side so that an output of the wanted size is left."""
    amounts = []
    for size, more, goal in zip(sizes, extra, wanted, strict=True):
        total = size + more - goal
        less = total // 2
        amounts.append((less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less))
    return amounts


OPERATORS: dict[str, Versions] = {"Conv": always(conv), "ConvTranspose": always(conv_transpose)}
