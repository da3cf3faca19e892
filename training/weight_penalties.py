"""Constraints on the weights alone: the Lipschitz baselines of II-D, which look at no image.

A convolution counts as the matrix of its flattened kernels, (out, in * height * width); the norm of
the whole layer is at most the square root of height * width times that of the matrix, since a pixel
enters so many patches.  Batch normalisation scales every row anew, so no constraint of this kind
bounds a network that has it; the baselines show that.
"""

import torch
from torch import Tensor, nn

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_ITERATIONS = 10


def weight_matrices(network: nn.Module) -> list[Tensor]:
    """(rows, columns) of every convolution and linear layer, with gradient, in order."""
    layers = [layer for layer in network.modules() if isinstance(layer, _LAYERS)]
    return [layer.weight.flatten(1) for layer in layers]


def parseval_penalty(network: nn.Module) -> Tensor:
    """Sum over the layers of ||W W^T - I||_F^2 / 2, without its weight.

    (Cisse et al. 2017, "Parseval networks", arXiv 1704.08847, the regulariser of 4.2.)  It asks for
    orthonormal rows.  Of more rows than columns there are none; there the columns are meant, W^T W,
    which differs by a constant and has the same gradient.

    Returns:
        Scalar; 0 of a network without such layers.
    """
    losses = [torch.zeros(())]
    for matrix in weight_matrices(network):
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        gram = wide @ wide.T
        unit = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        losses.append(0.5 * (gram - unit).square().sum())
    return _total(losses)


def spectral_penalty(network: nn.Module) -> Tensor:
    """Sum over the layers of sigma(W)^2 / 2, without its weight.

    (Yoshida and Miyato 2017, arXiv 1705.10941; sigma by `spectral_norm`.)

    Returns:
        Scalar; 0 of a network without such layers.
    """
    norms = [spectral_norm(matrix) for matrix in weight_matrices(network)]
    return _total([torch.zeros(()), *(0.5 * norm.square() for norm in norms)])


def spectral_norm(matrix: Tensor, *, iterations: int = _ITERATIONS) -> Tensor:
    """Largest singular value by power iteration, a lower bound that rises with the iterations.

    It begins with the same direction at every call, so that it is a function of the weights alone
    and a resumed run computes the same; gradient flows through u^T W v, whose u and v are held.

    Args:
        matrix: (rows, columns).
    Returns:
        Scalar with gradient.
    """
    with torch.no_grad():
        # No row of weights is orthogonal to this by construction, as it may be to all ones.
        vector = torch.arange(
            1, matrix.shape[1] + 1, device=matrix.device, dtype=matrix.dtype
        ).cos()
        for _ in range(iterations):
            left = nn.functional.normalize(matrix @ vector, dim=0)
            vector = nn.functional.normalize(matrix.T @ left, dim=0)
    return left @ (matrix @ vector)


@torch.no_grad()
def limit_spectral_norms(network: nn.Module, limit: float) -> None:
    """Scale every layer whose norm exceeds ``limit`` down to it, in place, after a step.

    W <- W min(1, c / sigma(W)): the spectral normalisation of invertible residual networks.
    (Behrmann et al. 2019, arXiv 1811.00995, 2.1; there with c below 1.)

    Args:
        limit: c > 0.
    """
    for matrix in weight_matrices(network):
        norm = spectral_norm(matrix).clamp_min(1e-30)
        matrix.mul_((limit / norm).clamp_max(1.0))  # a view of the weight


def _total(losses: list[Tensor]) -> Tensor:
    return torch.stack([loss.to(losses[-1]) for loss in losses]).sum()
