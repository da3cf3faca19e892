"""Products of matrices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Versions, always


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | float | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # as ONNX names it
    transB: int = 0,
    broadcast: int = 1,
) -> Tensor:
    a, weight = a.T if transA else a, b if transB else b.T
    is_bias = isinstance(c, Tensor) and c.ndim == 1 and len(c) == len(weight)
    if alpha == beta == 1 and is_bias:
        assert isinstance(c, Tensor)
        return F.linear(a, weight, c)
    product = F.linear(a, weight) if alpha == 1 else alpha * F.linear(a, weight)
    return product if c is None else product + (c if beta == 1 else beta * c)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def einsum(*tensors: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation.replace(" ", ""), *tensors)


OPERATORS: dict[str, Versions] = {
    "Einsum": always(einsum),
    "Gemm": always(gemm, numbers=True),
    "MatMul": always(matmul),
}
