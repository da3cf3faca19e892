"""Reductions over axes, which are an attribute in older versions and an input in later ones."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from candor.onnx_import.operators.operator import Versions, always

Axes = Sequence[int] | None


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Versions:
    def call(
        x: Tensor, axes: Axes = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            return function(x.unsqueeze(0), [0], False)
        return function(x, list(axes or range(x.ndim)), bool(keepdims))

    return always(call, 1)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep).to(x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keep) if x.is_floating_point() else x.double().mean(axes, keep).to(x.dtype)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keep)
    return norm


def _extreme(function: Callable[[Tensor, list[int], bool], Tensor], empty: float) -> Versions:
    def call(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel() == 0 and x.is_floating_point():
            shape = torch.sum(x, axes, keep).shape
            return torch.full(shape, empty, dtype=x.dtype, device=x.device)
        return function(x, axes, keep)

    return _reduction(call)


def arg_extreme(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            last: Tensor = function(x.flip(axis), axis, keepdim=bool(keepdims))
            return x.shape[axis] - 1 - last
        first: Tensor = function(x, axis, keepdim=bool(keepdims))
        return first

    return call


OPERATORS: dict[str, Versions] = {
    "ArgMax": always(arg_extreme(torch.argmax)),
    "ArgMin": always(arg_extreme(torch.argmin)),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _extreme(torch.amax, float("-inf")),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _extreme(torch.amin, float("inf")),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(_sum),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
}
