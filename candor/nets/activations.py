"""Activation functions of the networks."""

import torch
from torch import Tensor, nn


def half_huber_relu(inputs: Tensor, curvature: float = 1.0) -> Tensor:
    """Half-Huber ReLU in closed form.  (arXiv 1906.02896, Eq. 11)

    f(x) = 0                 for x < 0
    f(x) = d x^2             for 0 <= x < 1/(2d)
    f(x) = x - 1/(4d)        otherwise

    computed as d clamp(x, 0, 1/(2d))^2 + relu(x - 1/(2d)), which is the same function without a
    branch, so that it traces, exports and differentiates twice.

    The first derivative is continuous: 0 at x = 0 and 1 at the knee x = 1/(2d).  The second one
    jumps at both points; autograd then reports the value of the quadratic piece, 2d, at both
    (``clamp`` passes the gradient at its limits, ``relu`` does not at 0).  The authors' code has
    its knee at 0.5, which is d = 1.

    Args:
        inputs: any shape, floating point.
        curvature: d of Eq. 11, > 0.
    Returns:
        Tensor of the shape and dtype of ``inputs``.
    """
    knee = 0.5 / curvature
    return curvature * inputs.clamp(0.0, knee).square() + torch.relu(inputs - knee)


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
            raise ValueError(f"curvature: expected (0, inf), got {curvature!r}")
        self.curvature = curvature

    def forward(self, inputs: Tensor) -> Tensor:
        return half_huber_relu(inputs, self.curvature)

    def extra_repr(self) -> str:
        return f"curvature={self.curvature}"
