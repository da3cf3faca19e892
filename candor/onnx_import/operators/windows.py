"""Padding of windows that slide: convolution and pooling."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

Pads = list[tuple[int, int]]  # before and after, one pair an axis


CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the number of spatial axes


def or_ones(values: Sequence[int] | None, kernel: Sequence[int]) -> Sequence[int]:
    """Strides or dilations, which are 1 where the file has none."""
    return values or [1] * len(kernel)


def window_pads(
    sizes: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Pads:
    """Padding of each spatial axis.

    Args:
        sizes: of the input.
        spans: of the window, dilation included.
    """
    count = len(sizes)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, span, stride in zip(sizes, spans, strides, strict=True)
        ]
        return [_split(total, auto_pad == "SAME_LOWER") for total in totals]
    if auto_pad == "VALID" or pads is None:
        return [(0, 0)] * count
    if auto_pad not in ("NOTSET", ""):
        raise ValueError(f"auto_pad: expected NOTSET, SAME_UPPER, SAME_LOWER, VALID: {auto_pad!r}")
    return list(zip(pads[:count], pads[count:], strict=True))


def _split(total: int, more_before: bool) -> tuple[int, int]:
    less, more = total // 2, total - total // 2
    return (more, less) if more_before else (less, more)


def is_even(pads: Pads) -> bool:
    """Whether both sides of every axis have the same, as torch's own padding."""
    return all(before == after for before, after in pads)


def spans_of(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Pixels from the first to the last of a window."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def pad_axes(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad (or, by negative numbers, cut) the last axes."""
    if not any(before or after for before, after in pads):
        return x
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)
