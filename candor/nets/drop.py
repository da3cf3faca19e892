"""Random regularisation of residual blocks: stochastic depth and ShakeDrop.

Both draw from torch's global generator in training mode, once an image, and keep no weights.  In
evaluation mode nothing is drawn: the residual is multiplied by its survival probability, its mean
over the draws, as in both papers.
"""

import torch
from torch import Tensor, nn


def survival_probability(depth: float, last_survival: float) -> float:
    """p_l = 1 - (l / L)(1 - p_L), linear decay.  (Huang et al. 2016, Eq. 4)

    Args:
        depth: l / L in (0, 1], place of the block among all.
        last_survival: p_L in (0, 1].
    """
    return 1.0 - depth * (1.0 - last_survival)


class Drop(nn.Module):
    """Base of both kinds.

    Args:
        survival: probability that an image keeps the residual in a training step, (0, 1].
    Raises:
        ValueError: ``survival`` is out of range.
    """

    def __init__(self, survival: float) -> None:
        super().__init__()
        if not 0.0 < survival <= 1.0:
            raise ValueError(f"survival: expected (0, 1], got {survival!r}")
        self.survival = survival

    def forward(self, residual: Tensor) -> Tensor:
        if not self.training:
            return self.survival * residual
        is_kept = _uniform(residual) < self.survival
        return self._dropped(residual, is_kept.to(residual.dtype))

    def _dropped(self, residual: Tensor, is_kept: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"survival={self.survival}"


class StochasticDepth(Drop):
    """b F(x) with b ~ Bernoulli(p).  (Huang et al. 2016, arXiv 1603.09382)

    The paper draws one b for the whole batch; here every image has its own, which has the same
    mean and less noise in a step.
    """

    def _dropped(self, residual: Tensor, is_kept: Tensor) -> Tensor:
        return is_kept * residual


class ShakeDrop(Drop):
    """(b + alpha - b alpha) F(x), backward (b + beta - b beta).  (Yamada et al., arXiv 1802.02375)

    With alpha = 0, as in Table I: forward b F(x), so a dropped residual adds nothing, but its
    backward pass goes on with beta ~ U[0, 1].  Input gradients are therefore not those of the
    forward function where b = 0; with L_adv it is these that Eq. 9 sees.
    """

    def _dropped(self, residual: Tensor, is_kept: Tensor) -> Tensor:
        backward = is_kept + (1.0 - is_kept) * _uniform(residual)
        # A value of is_kept F and a derivative of backward F', which differentiates twice.
        return backward * residual + ((is_kept - backward) * residual).detach()


def _uniform(residual: Tensor) -> Tensor:
    return torch.rand(len(residual), 1, 1, 1, device=residual.device, dtype=residual.dtype)
