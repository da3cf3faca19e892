"""Adversarial and noisy training images as pure functions, and TRADES' loss.

The networks are called in the mode they are in; `norm_mode` chooses that of their normalisation.
Every length is an RMSE on the [0, 1] pixel scale: the paper's eps = 0.01 of III-G is one, an L2
length of 0.01 sqrt(C H W).  Weights collect no gradient.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from candor.attacks.gradients import score_gradients
from candor.attacks.margin import Score
from candor.attacks.pgd import descend
from candor.attacks.projection import project
from candor.search.geometry import unit


class Adversary(StrEnum):
    """What the training images meet before the network sees them."""

    NONE = "none"
    GAUSSIAN = "gaussian"
    L2 = "l2"
    L2_MIN = "l2-min"
    PGD = "pgd"
    TRADES = "trades"


class NormMode(StrEnum):
    """Mode of batch normalisation during attack passes."""

    TRAIN = "train"
    EVAL = "eval"


@contextmanager
def norm_mode(network: nn.Module, mode: NormMode) -> Iterator[None]:
    """Batch normalisation in ``mode`` inside the block; each layer's own mode after it, always.

    In training mode every attack pass moves the running statistics towards attacked images, as in
    the authors' code; in evaluation mode it uses them and leaves them.  Other layers keep theirs.
    """
    before = {layer: layer.training for layer in network.modules() if isinstance(layer, _BatchNorm)}
    try:
        for layer in before:
            layer.train(mode is NormMode.TRAIN)
        yield
    finally:
        for layer, was_training in before.items():
            layer.train(was_training)


def gaussian_noise(images: Tensor, *, eps: float, generator: Generator) -> Tensor:
    """Independent noise on every colour of every pixel, then clipped to [0, 1].  (III-G, IV-B15d)

    Args:
        images: (B, C, H, W) in [0, 1]; not modified.
        eps: standard deviation, which is the expected RMSE before clipping.
        generator: on the device of ``images``.
    """
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (images + eps * noise).clamp(0.0, 1.0)


def l2_adversary(
    network: nn.Module, images: Tensor, labels: Tensor, *, eps: float, step_count: int = 7
) -> Tensor:
    """Adversary L2: k steps up the cross-entropy, each of length eps / k.  (III-G)

    Each step is clipped to [0, 1], so that the perturbation is the one the network really sees;
    the paper does not mention it.  An image without a gradient stays where it is.

    Args:
        network: maps (B, C, H, W) to logits (B, V).
        images: (B, C, H, W) in [0, 1]; not modified.
        labels: (B,) int64.
        eps: RMSE, >= 0.
        step_count: k.
    Returns:
        (B, C, H, W) in [0, 1], no gradient.
    """
    images = images.detach()
    attacked = images
    for _ in range(step_count):
        _, _, gradients = score_gradients(network, attacked, _losses(labels))
        attacked = (attacked + eps / step_count * _with_unit_rmse(gradients)).clamp(0.0, 1.0)
    return attacked


def l2_min_step(index: int, step_count: int) -> float:
    """psi_k,n = 2(k - n) / (k(k + 1)), the share of eps in step n of k; they sum to 1.  (III-G)"""
    return 2.0 * (step_count - index) / (step_count * (step_count + 1))


def l2_min_adversary(
    network: nn.Module, images: Tensor, labels: Tensor, *, eps: float, step_count: int = 7
) -> Tensor:
    """Adversary L2,min: examples near the boundary where the network goes wrong.  (III-G)

    Before step n the network is evaluated.  A correct example steps up the cross-entropy, a wrong
    one along its negated perturbation, both by psi_k,n eps, so a step back may pass the original.
    An example that is wrong from the start has no perturbation to negate and stays.

    Arguments, clipping and result as in `l2_adversary`.
    """
    images = images.detach()
    attacked = images
    for index in range(step_count):
        logits, _, gradients = score_gradients(network, attacked, _losses(labels))
        is_correct = (logits.argmax(1) == labels).view(-1, 1, 1, 1)
        direction = _with_unit_rmse(torch.where(is_correct, gradients, images - attacked))
        attacked = (attacked + eps * l2_min_step(index, step_count) * direction).clamp(0.0, 1.0)
    return attacked


def pgd_adversary(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    step_size: float,
    step_count: int,
    generator: Generator,
) -> Tensor:
    """Projected gradient ascent of the cross-entropy from a random start in the eps-ball.

    (Madry et al. 2018, arXiv 1706.06083, with L2 steps and an L2 ball.)

    Args:
        network, images, labels: as in `l2_adversary`.
        eps, step_size: RMSE, >= 0.
        generator: on the device of ``images``.
    Returns:
        (B, C, H, W) in [0, 1], at most eps from ``images``, no gradient.
    """
    images = images.detach()
    directions = torch.randn(
        images.shape, generator=generator, device=images.device, dtype=images.dtype
    )
    radii = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
    # The radius of a uniform draw from a ball of so many dimensions is eps but for a hair.
    start = eps * radii.pow(1.0 / images[0].numel()) * _with_unit_rmse(directions)
    return _ascend(network, images, start, _losses(labels), eps, step_size, step_count)


def trades_adversary(
    network: nn.Module,
    images: Tensor,
    *,
    eps: float,
    step_size: float,
    step_count: int,
    generator: Generator,
) -> Tensor:
    """Projected gradient ascent of TRADES' divergence from a start beside the image.

    (Zhang et al. 2019, arXiv 1901.08573, Algorithm 1, with an L2 ball.)  It starts 0.001 off, for
    at the image itself the divergence has no gradient.  Arguments and result as in `pgd_adversary`.
    """
    images = images.detach()
    with torch.no_grad():
        clean_logits = network(images)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)

    def divergence(logits: Tensor) -> Tensor:
        return _divergences(clean_logits, logits).sum(dim=1)

    return _ascend(network, images, 0.001 * noise, divergence, eps, step_size, step_count)


def trades_divergence(clean_logits: Tensor, attacked_logits: Tensor) -> Tensor:
    """Mean over the batch of KL(softmax(clean) || softmax(attacked)), nats.  (1901.08573, Eq. 5)

    Gradient flows into both, as in the authors' code.

    Args:
        clean_logits, attacked_logits: (B, V).
    """
    return _divergences(clean_logits, attacked_logits).sum() / len(clean_logits)


def _divergences(clean_logits: Tensor, attacked_logits: Tensor) -> Tensor:
    """(B, V) terms of KL(softmax(clean) || softmax(attacked)), nats."""
    attacked, clean = attacked_logits.log_softmax(1), clean_logits.log_softmax(1)
    return functional.kl_div(attacked, clean, reduction="none", log_target=True)


def random_part(batch: int, *, share: float, generator: Generator) -> Tensor:
    """Places of a random part of the batch, round(share B) of them.  (III-G: "half-half" is 0.5)

    An empty part draws nothing, so that a run without an adversary draws as if there were none.

    Returns:
        (round(share B),) int64, each place once; half places round up.
    """
    count = int(share * batch + 0.5)
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=generator.device)
    return torch.randperm(batch, generator=generator, device=generator.device)[:count]


def _ascend(
    network: nn.Module,
    images: Tensor,
    start: Tensor,
    objective: Callable[[Tensor], Tensor],
    eps: float,
    step_size: float,
    step_count: int,
) -> Tensor:
    """Up an objective (B,) from ``images`` + ``start``; lengths are RMSE."""
    root = math.sqrt(images[0].numel())
    return descend(
        network,
        images,
        project(images + start, images, eps * root),
        lambda logits: -objective(logits),
        eps=eps * root,
        step_length=step_size * root,
        steps=step_count,
    )


def _losses(labels: Tensor) -> Score:
    return lambda logits: functional.cross_entropy(logits, labels, reduction="none")


def _with_unit_rmse(delta: Tensor) -> Tensor:
    """Each image's delta at RMSE 1; 0 where it is 0."""
    return math.sqrt(delta[0].numel()) * unit(delta)
