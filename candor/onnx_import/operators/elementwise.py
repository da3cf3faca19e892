"""Arithmetic, comparisons and logic, element by element with broadcasting."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Operator, Versions, always, single

Bound = float | list[float] | None
Operand = Any  # Tensor, or a number where it is known


def divide(a: Operand, b: Operand) -> Tensor:
    whole = not any(_is_floating(value) for value in (a, b))
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def power(a: Operand, b: Operand) -> Tensor:
    result = torch.pow(a, b)
    return result.to(a.dtype) if isinstance(a, Tensor) else result


def modulo(a: Operand, b: Operand, *, fmod: int = 0) -> Tensor:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def clip(x: Tensor, min: Bound = None, max: Bound = None) -> Tensor:
    """Bounds at infinity, which old files carry, are none."""
    low, high = single(min), single(max)
    low = None if low == -math.inf else low
    high = None if high == math.inf else high
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        low = high
    if low is not None and high is not None and low < high and x.is_floating_point():
        return F.hardtanh(x, low, high)  # its gradient takes a quarter of the time of clamp's
    return torch.clamp(x, low, high)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def call(*tensors: Tensor) -> Tensor:
        return functools.reduce(function, tensors)

    return call


def mean(*tensors: Tensor) -> Tensor:
    return functools.reduce(torch.add, tensors) / len(tensors)


def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    found = torch.isinf(x)
    allowed = (x < 0 if detect_negative else x > 0) | (x > 0 if detect_positive else x < 0)
    return found & allowed if detect_negative or detect_positive else torch.zeros_like(found)


def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    shift = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    return shift(a, b)


def where(condition: Tensor, a: Operand, b: Operand) -> Tensor:
    return torch.where(condition, a, b)


def _is_floating(value: Operand) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, float)


def _pair(function: Callable[[Operand, Operand], Tensor]) -> Versions:
    return ((7, Operator(function, numbers=True)),)


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
_BINARY: dict[str, Callable[[Operand, Operand], Tensor]] = {
    "Add": torch.add,
    "Div": divide,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Pow": power,
    "Sub": torch.sub,
}

OPERATORS: dict[str, Versions] = {
    **{name: always(function) for name, function in _UNARY.items()},
    **{name: _pair(function) for name, function in _BINARY.items()},
    "And": always(torch.logical_and),
    "BitShift": always(bit_shift),
    "BitwiseAnd": always(torch.bitwise_and),
    "BitwiseOr": always(torch.bitwise_or),
    "BitwiseXor": always(torch.bitwise_xor),
    "Clip": always(clip, 1, 2),
    "IsInf": always(is_inf),
    "Max": always(_fold(torch.maximum)),
    "Mean": always(mean),
    "Min": always(_fold(torch.minimum)),
    "Mod": always(modulo),
    "Or": always(torch.logical_or),
    "Sum": always(_fold(torch.add)),
    "Where": always(where),
    "Xor": always(torch.logical_xor),
}
