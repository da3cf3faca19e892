"""Reading and writing at indices, sums along an axis, and order."""

import torch
from torch import Tensor

from candor.onnx_import.operators.operator import Versions, always, single


def gather(x: Tensor, indices: Tensor | int, *, axis: int = 0) -> Tensor:
    if isinstance(indices, int):
        return x.select(axis, indices)
    axis = axis % x.ndim
    flat = indices.reshape(-1).long() % x.shape[axis]
    rows = x.index_select(axis, flat)
    return rows.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return x.gather(axis, indices.long() % x.shape[axis])


def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    if batch_dims == 0:
        return x[tuple(indices.long().unbind(-1))]
    rows = zip(x.unbind(0), indices.unbind(0), strict=True)
    return torch.stack([gather_nd(a, b, batch_dims=batch_dims - 1) for a, b in rows])


def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    places = indices.long() % x.shape[axis]
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    places = tuple(indices.long().unbind(-1))
    if reduction in ("none", "add"):
        return x.index_put(places, updates, accumulate=reduction == "add")
    raise ValueError(f"reduction: expected none or add, got {reduction!r}")


def cumulative_sum(
    x: Tensor, axis: int | list[int], *, exclusive: int = 0, reverse: int = 0
) -> Tensor:
    place: int = single(axis)
    turned = x.flip(place) if reverse else x
    sums = turned.cumsum(place, dtype=x.dtype)
    sums = sums - turned if exclusive else sums
    return sums.flip(place) if reverse else sums


def top_k(
    x: Tensor,
    k: list[int] | int,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # as ONNX names it
) -> tuple[Tensor, Tensor]:
    count = single(k)
    order = torch.sort(x, stable=True, dim=axis, descending=bool(largest))
    return order.values.narrow(axis, 0, count), order.indices.narrow(axis, 0, count)


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}

OPERATORS: dict[str, Versions] = {
    "CumSum": always(cumulative_sum, 1),
    "Gather": always(gather, numbers=True),
    "GatherElements": always(gather_elements),
    "GatherND": always(gather_nd),
    "Scatter": always(scatter_elements),
    "ScatterElements": always(scatter_elements),
    "ScatterND": always(scatter_nd),
    "TopK": always(top_k, 1),
}
