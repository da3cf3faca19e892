"""Regularisers of the paper as pure functions."""

import math
from enum import StrEnum

import torch
from torch import Generator, Tensor
from torch.nn import functional


class Pairing(StrEnum):
    """What stands in for the true class' output when it is drawn on purpose.  (III-B)"""

    NONE = "none"
    DIFFERENCE = "difference"
    SUM = "sum"


class PenaltyMode(StrEnum):
    """How the penalty of input gradients is differentiated by the weights."""

    DOUBLE_BACKWARD = "double-backward"
    FINITE_DIFFERENCE = "finite-difference"
    INNER_GRADIENT = "inner-gradient"


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


def draw_classes(
    batch: int, *, class_count: int, outputs_per_image: int, generator: Generator
) -> Tensor:
    """K different classes an image, uniformly.  (III-B: "without replacement")

    With K = V every class is drawn, so Eq. 9 is no longer stochastic.

    Args:
        batch: B.
        class_count: V.
        outputs_per_image: K in [1, V].
        generator: the only source of randomness; the result is on its device.
    Returns:
        (K, B) int64, no class twice in a column.
    """
    device = generator.device
    if outputs_per_image == 1:
        return torch.randint(class_count, (1, batch), generator=generator, device=device)
    keys = torch.rand(batch, class_count, generator=generator, device=device)
    return keys.argsort(1)[:, :outputs_per_image].T


def stacked_output_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    classes: Tensor,
    shares: Tensor,
    true_class_share: float,
    pairing: Pairing,
) -> Tensor:
    """`output_weights` of all K draws.  (Eq. 9, III-B)

    The paper does not say how zeta goes with K > 1.  Here the true class is drawn on purpose at
    most once an image, in the first place, and changes places with the class drawn there; so the
    draw stays one without replacement, and with K = V and no pairing an exact one.

    Args:
        classes: (K, B) int64 of `draw_classes`.
        logits, labels, shares, true_class_share, pairing: as in `output_weights`.
    Returns:
        (K, B, V) of the dtype of ``logits``, no gradient.
    """
    first = output_weights(
        logits,
        labels,
        classes=classes[0],
        shares=shares,
        true_class_share=true_class_share,
        pairing=pairing,
    )
    is_displaced = (shares < true_class_share) & (classes[1:] == labels)
    others = torch.where(is_displaced, classes[0], classes[1:])
    one_hot = functional.one_hot(others, logits.shape[1]).to(logits.dtype)
    return torch.cat([first[None], one_hot])


def input_gradient_penalty(
    gradients: Tensor, *, power: float, cross_power: float = 0.0, dead_zone: float = 0.0
) -> Tensor:
    """Mean over the batch of (1/N) sum_j (sum_l g_l)^q g_j^z.  (Eq. 9 and L_adv,z,q of III-B)

    g_j = max(|dy/dx_j| - sigma, 0); without psi, for one of the K outputs.  III-B does not say
    whether sigma applies to the inner sum over l too; here it does, so that inside the dead zone
    nothing is punished for any z and q.

    z = 0 with q = 1 is N times z = 1 with q = 0, the same penalty at another psi (Table II).

    Args:
        gradients: (B, C, H, W), of one output with respect to pixels on the [0, 1] scale.
        power: z, 0 or >= 1; 0 only where q > 0.
        cross_power: q, 0 or >= 1.
        dead_zone: sigma >= 0, gradients below it go unpunished.
    Returns:
        Scalar.
    """
    excess = gradients.abs()
    if dead_zone > 0:
        excess = (excess - dead_zone).clamp_min(0.0)
    if cross_power == 0:
        return excess.pow(power).mean()
    rows = excess.flatten(1)
    return (rows.sum(1).pow(cross_power) * rows.pow(power).mean(1)).mean()


def output_zeroing_penalty(logits: Tensor) -> Tensor:
    """Mean over the batch of sum_i y_i^2: L_out without k_out.  (III-E, Eq. 12)

    Args:
        logits: (B, V), before the softmax.
    Returns:
        Scalar.
    """
    return logits.square().sum(1).mean()


def output_zeroing_weight(class_count: int, *, confidence: float = 0.8) -> float:
    """Guideline for k_out: where L_out and cross-entropy balance at a confidence.  (III-E, Eq. 14)

    k_out = (1 - s_t) / (2 y_t (1 + (V - 1)(1 - s_t))), with y_t = ln(s_t (V - 1) / (1 - s_t)), the
    logit at which the softmax gives s_t while all others are 0 (the assumption of Eq. 13).

    At s_t = 0.8 this is 0.00997 for V = 10, 6.00e-5 for V = 1000 and 1.03e-3 for the 80 classes of
    COCO (III-I3): III-E's 0.01, 6e-5 and 1e-3 are these, rounded.  What does not agree is the
    paper's own use: IV-D2 and Table III trained ImageNet with 5e-5, which Eq. 14 gives at
    s_t = 0.95.  Eq. 13 prints one formula for every s_i; it is the softmax of i = t alone.

    Args:
        class_count: V, >= 2.
        confidence: s_t in (1/V, 1); at 1/V the logit is 0 and nothing balances.
    Raises:
        ValueError: an argument is out of range.
    """
    if class_count < 2:
        raise ValueError(f"class_count: got {class_count!r}, allowed [2, inf)")
    if not 1.0 / class_count < confidence < 1.0:
        raise ValueError(f"confidence: got {confidence!r}, allowed ({1 / class_count:g}, 1)")
    doubt = 1.0 - confidence
    logit = math.log(confidence * (class_count - 1) / doubt)
    return doubt / (2.0 * logit * (1.0 + (class_count - 1) * doubt))  # Eq. 14


def class_balanced_weights(counts: Tensor, *, beta: float) -> Tensor:
    """Weight of each class in the cross-entropy, by effective number of samples.

    w_c = (1 - beta) / (1 - beta^n_c), scaled to sum to V.  (Cui et al. 2019, arXiv 1901.05555,
    Eq. 3 and section 4)  beta = 0 weighs all classes alike.  beta = 1 is the limit 1 / n_c, the
    paper's balanced COCO training: the loss of each label divided by its share (IV-E).

    Args:
        counts: (V,) int64, training images of each class, each >= 1.
        beta: [0, 1].
    Returns:
        (V,) float32.
    Raises:
        ValueError: an argument is out of range.
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta: got {beta!r}, allowed [0, 1]")
    if len(counts) == 0 or int(counts.min()) < 1:
        raise ValueError(f"counts: got {counts.tolist()}, allowed [1, inf) for every class")
    numbers = counts.double()
    # expm1 keeps 1 - beta^n exact where beta is close to 1.
    effective = -torch.expm1(numbers * math.log(beta)) if 0.0 < beta < 1.0 else numbers**beta
    weights = 1.0 / effective
    return (weights * (len(counts) / weights.sum())).float()
