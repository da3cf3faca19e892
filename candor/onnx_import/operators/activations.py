"""Activation functions and dropout."""

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Operator, Versions, always, single


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def selu(x: Tensor, *, alpha: float = 1.6732632, gamma: float = 1.0507010) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return F.hardtanh(alpha * x + beta, 0.0, 1.0)


def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(x if alpha == 1 else alpha * x)


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    index = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, index, 1.0)


def flat_softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    """Until version 12: over all axes from ``axis`` on."""
    return torch.softmax(x.flatten(axis), -1).reshape(x.shape) if axis < x.ndim else softmax(x)


def flat_log_softmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return torch.log_softmax(x.flatten(axis % x.ndim), -1).reshape(x.shape)


def flat_hardmax(x: Tensor, *, axis: int = 1) -> Tensor:
    return hardmax(x.flatten(axis % x.ndim)).reshape(x.shape)


def dropout(
    x: Tensor,
    ratio: float | list[float] | None = 0.5,
    training_mode: bool | list[bool] | None = False,
    *,
    seed: int = 0,
    outputs: int = 1,
    training: bool = False,
) -> Tensor:
    """Drops while the module is in training mode, whatever the file says."""
    if outputs > 1 or single(training_mode):
        raise ValueError("expected a graph for inference, got a mask or training_mode")
    share = single(ratio)
    return F.dropout(x, 0.5 if share is None else share, training)


def mish(x: Tensor) -> Tensor:
    return F.mish(x)


OPERATORS: dict[str, Versions] = {
    "Celu": always(celu),
    "Dropout": always(dropout, 1, 2),
    "Elu": always(elu),
    "Gelu": always(gelu),
    "HardSigmoid": always(hard_sigmoid),
    "HardSwish": always(hard_swish),
    "Hardmax": ((1, Operator(flat_hardmax)), (13, Operator(hardmax))),
    "LeakyRelu": always(leaky_relu),
    "LogSoftmax": ((1, Operator(flat_log_softmax)), (13, Operator(log_softmax))),
    "Mish": always(mish),
    "PRelu": always(prelu),
    "Relu": always(torch.relu),
    "Selu": always(selu),
    "Shrink": always(shrink),
    "Sigmoid": always(torch.sigmoid),
    "Softmax": ((1, Operator(flat_softmax)), (13, Operator(softmax))),
    "Softplus": always(softplus),
    "Softsign": always(F.softsign),
    "Swish": always(swish),
    "Tanh": always(torch.tanh),
    "ThresholdedRelu": always(thresholded_relu),
}
