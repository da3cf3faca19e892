"""Regularisers of the paper as pure functions.  Imports torch only."""

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


class Pairing(StrEnum):
    """What stands in for the true class' output when it is drawn on purpose.  (III-B)"""

    NONE = "none"
    DIFFERENCE = "difference"
    SUM = "sum"


def output_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    classes: Tensor,
    shares: Tensor,
    true_class_share: float,
    pairing: Pairing,
) -> Tensor:
    """Weights w so that sum_i w_i y_i is the output whose gradient Eq. 9 penalises.  (III-B)

    Usually a one-hot row at the drawn class v_k.  Where the draw ``shares`` falls below zeta, the
    true class t instead, or with a pairing y_t - max_{i != t} y_i (L_adv,tandem) or the sum of the
    two.

    Args:
        logits: (B, V); used only to find the strongest other class, no gradient flows.
        labels: (B,) int64, the true class t.
        classes: (B,) int64, uniform draws from [0, V).
        shares: (B,) float, uniform draws from [0, 1).
        true_class_share: zeta in [0, 1].
        pairing: see `Pairing`.
    Returns:
        (B, V) of the dtype of ``logits``, no gradient.
    """
    class_count = logits.shape[1]
    one_hot = functional.one_hot(classes, class_count)
    intended = functional.one_hot(labels, class_count)
    if pairing is not Pairing.NONE:
        others = logits.detach().masked_fill(intended.bool(), float("-inf"))
        rival = functional.one_hot(others.argmax(1), class_count)
        intended = intended - rival if pairing is Pairing.DIFFERENCE else intended + rival
    is_intended = (shares < true_class_share)[:, None]
    return torch.where(is_intended, intended, one_hot).to(logits.dtype)


def input_gradient_penalty(gradients: Tensor, *, power: float, dead_zone: float) -> Tensor:
    """Mean over the batch of (1/N) sum_j max(|dy/dx_j| - sigma, 0)^z.  (Eq. 9 without psi, K = 1)

    Args:
        gradients: (B, C, H, W), of one output with respect to pixels on the [0, 1] scale.
        power: z >= 1.
        dead_zone: sigma >= 0, gradients below it go unpunished.
    Returns:
        Scalar.
    """
    excess = gradients.abs()
    if dead_zone > 0:
        excess = (excess - dead_zone).clamp_min(0.0)
    return excess.pow(power).mean()
