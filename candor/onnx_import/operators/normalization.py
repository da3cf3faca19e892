"""Normalisation: batch, instance, layer, group, and those of older networks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Operator, Versions, always


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
    outputs: int = 1,
    training: bool = False,
) -> Tensor:
    """In training mode by the statistics of the batch, as torch's own layer; updates mean, var."""
    if training_mode or outputs > 1 or not spatial:
        raise ValueError("expected a graph for inference, got training_mode or spatial=0")
    return F.batch_norm(x, mean, variance, scale, bias, training, 1 - momentum, epsilon)


def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    shape = x.shape[axis % x.ndim :]
    fits = scale.shape == shape and (bias is None or bias.shape == shape)
    y = F.layer_norm(x, shape, scale if fits else None, bias if fits else None, epsilon)
    if not fits:
        y = y * scale if bias is None else y * scale + bias
    if outputs == 1:
        return (y,)
    axes = list(range(axis % x.ndim, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return y, mean, torch.rsqrt(variance + epsilon)


def rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    axes = list(range(axis % x.ndim, x.ndim))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + epsilon) * scale


def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def group_normalization_18(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Until version 20 scale and bias were one a group."""
    repeats = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm))


def local_response(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad(x.square().movedim(1, -1), (before, after)).unfold(-1, size, 1).sum(-1)
    return x / (bias + alpha / size * squares.movedim(-1, 1)) ** beta


def mean_variance(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    variance, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


OPERATORS: dict[str, Versions] = {
    "BatchNormalization": always(batch_normalization),
    "GroupNormalization": (
        (18, Operator(group_normalization_18)),
        (21, Operator(group_normalization)),
    ),
    "InstanceNormalization": always(instance_normalization),
    "LRN": always(local_response),
    "LayerNormalization": always(layer_normalization),
    "LpNormalization": always(lp_normalization),
    "MeanVarianceNormalization": always(mean_variance),
    "RMSNormalization": always(rms_normalization),
}
