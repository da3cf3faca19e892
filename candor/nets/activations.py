"""Activation functions of the networks.  Imports torch only."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def half_huber_relu(inputs: Tensor, curvature: float = 1.0) -> Tensor:
    """Half-Huber ReLU in closed form.  (arXiv 1906.02896, Eq. 11)

    f(x) = 0                 for x < 0
    f(x) = d x^2             for 0 <= x < 1/(2d)
    f(x) = x - 1/(4d)        otherwise

    This is the smooth L1 distance of relu(x) from 0 with its knee at 1/(2d), which torch computes
    in one pass over memory; it traces, exports and differentiates twice.

    The first derivative is continuous: 0 at x = 0 and 1 at the knee.  The second one is 2d between
    the two and 0 elsewhere; at both singular points autograd reports 0, the value outside.  The
    authors' code has its knee at 0.5, which is d = 1.

    Args:
        inputs: any shape, floating point.
        curvature: d of Eq. 11, > 0.
    Returns:
        Tensor of the shape and dtype of ``inputs``.
    """
    positive = torch.relu(inputs)
    zeros = positive.new_zeros(()).expand_as(positive)
    return functional.smooth_l1_loss(positive, zeros, reduction="none", beta=0.5 / curvature)


class HalfHuberReLU(nn.Module):
    """Module form of `half_huber_relu`.

    Args:
        curvature: d of Eq. 11, > 0.
    Raises:
        ValueError: ``curvature`` is not a positive finite number.
    """

    def __init__(self, curvature: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < curvature < float("inf"):
            raise ValueError(f"curvature: got {curvature!r}, allowed (0, inf)")
        self.curvature = curvature

    def forward(self, inputs: Tensor) -> Tensor:
        return half_huber_relu(inputs, self.curvature)

    def extra_repr(self) -> str:
        return f"curvature={self.curvature}"
