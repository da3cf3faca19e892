"""Operators of the domain com.microsoft, in which ONNX Runtime's optimiser joins others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.convolution import conv
from candor.onnx_import.operators.linear import gemm
from candor.onnx_import.operators.normalization import layer_normalization
from candor.onnx_import.operators.operator import Versions, always


def gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias)


def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # as ONNX names it
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    if transBatchA or transBatchB:
        raise ValueError("transBatchA and transBatchB are not supported")
    a, b = a.mT if transA else a, b.mT if transB else b
    product = torch.matmul(a, b)
    return product if alpha == 1 else alpha * product


def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Any,
) -> Tensor:
    y = conv(x, weight, bias, **attributes)
    return _activated(y if added is None else y + added, activation, activation_params)


def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float = 0.01,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    **attributes: Any,
) -> Tensor:
    return _activated(gemm(a, b, c, **attributes), activation, [activation_alpha, activation_beta])


_ACTIVATIONS: dict[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "": lambda x, _: x,
    "Clip": lambda x, bounds: x.clamp(bounds[0], bounds[1]),
    "HardSigmoid": lambda x, slope: (slope[0] * x + slope[1]).clamp(0.0, 1.0),
    "LeakyRelu": lambda x, slope: F.leaky_relu(x, slope[0]),
    "Relu": lambda x, _: torch.relu(x),
    "Sigmoid": lambda x, _: torch.sigmoid(x),
    "Tanh": lambda x, _: torch.tanh(x),
}


def _activated(x: Tensor, name: str, numbers: Sequence[float]) -> Tensor:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name](x, numbers)


def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """The normalised sum; its fourth output is the sum itself."""
    total = x + skip if bias is None else x + skip + bias
    (y,) = layer_normalization(total, scale, shift, epsilon=epsilon)
    return y, y.new_empty(0), y.new_empty(0), total


OPERATORS: dict[str, Versions] = {
    "BiasGelu": always(gelu),
    "FastGelu": always(fast_gelu),
    "FusedConv": always(fused_conv),
    "FusedGemm": always(fused_gemm),
    "FusedMatMul": always(fused_matmul),
    "Gelu": always(gelu),
    "QuickGelu": always(quick_gelu),
    "SkipLayerNormalization": always(skip_layer_normalization),
}
