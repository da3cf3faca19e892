"""Tensors that do not come from the image, and their types and shapes."""

from typing import Any

import torch
from torch import Tensor

from candor.onnx_import.operators.dtypes import torch_dtype
from candor.onnx_import.operators.operator import Versions, always, single

_LONGEST = 1 << 24
Number = Tensor | int | float


def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Tensor:
    floats = value_float if value_float is not None else value_floats
    if value is not None:
        return value
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_int if value_int is not None else value_ints, dtype=torch.int64)


def constant_of_shape(shape: list[int], *, value: Tensor | None = None) -> Tensor:
    if value is None:
        return torch.zeros(shape)
    return torch.full(shape, value.reshape(-1)[0].item(), dtype=value.dtype)


def arange(start: Number, limit: Number, delta: Number) -> Tensor:
    first, last, step = (_number(value) for value in (start, limit, delta))
    if step == 0 or abs((last - first) / step) > _LONGEST:
        raise ValueError(f"expected a range of at most {_LONGEST}, got {first} to {last} by {step}")
    return torch.arange(first, last, step, dtype=_dtype(start))


def _number(value: Number) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _dtype(value: Number) -> torch.dtype:
    if isinstance(value, Tensor):
        return value.dtype
    return torch.float32 if isinstance(value, float) else torch.int64


def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device="cpu")


def size_of(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device="cpu")


def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(torch_dtype(to))


def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = x.dtype if dtype is None else torch_dtype(dtype)
    rows, columns = torch.arange(x.shape[0])[:, None], torch.arange(x.shape[1])
    return (columns - rows == k).to(kind)


def one_hot(indices: Tensor, depth: Any, values: Tensor, *, axis: int = -1) -> Tensor:
    count = int(single(depth))
    axis = axis % (indices.ndim + 1)
    places = torch.arange(count).reshape(-1, *[1] * (indices.ndim - axis))
    wanted = indices.unsqueeze(axis)
    hit = (wanted == places) | (wanted + count == places)
    return torch.where(hit, values[1], values[0])


def identity(x: Tensor) -> Tensor:
    return x


def non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T


def branch(condition: Tensor) -> Tensor:
    """Never computed: one of its branches has taken its place before."""
    raise ValueError("expected a graph without branches")


OPERATORS: dict[str, Versions] = {
    "Cast": always(cast),
    "CastLike": always(cast_like),
    "Constant": always(constant),
    "ConstantOfShape": always(constant_of_shape, 0),
    "EyeLike": always(eye_like),
    "Identity": always(identity),
    "If": always(branch),
    "NonZero": always(non_zero),
    "OneHot": always(one_hot, 1),
    "Range": always(arange, numbers=True),
    "Shape": always(shape_of),
    "Size": always(size_of),
}
SHAPE_ONLY = frozenset({"Shape", "Size"})  # their result needs no values, only a shape
BY_NUMBERS = frozenset({"NonZero", "Range"})  # the shape of their result needs the values
