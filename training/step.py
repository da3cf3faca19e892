"""One optimisation step's loss: cross-entropy and all regularisers."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from training.adversaries import (
    Adversary,
    NormMode,
    gaussian_noise,
    l2_adversary,
    l2_min_adversary,
    norm_mode,
    pgd_adversary,
    random_part,
    trades_adversary,
    trades_divergence,
)
from training.config import TrainConfig
from training.distributed import mean_over_processes, own_generator, shard, world_size
from training.finite_difference import finite_difference_penalty
from training.regularizers import (
    Pairing,
    PenaltyMode,
    draw_classes,
    input_gradient_penalty,
    output_zeroing_penalty,
    stacked_output_weights,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss:
    """Parts of one step's loss, scalars with gradient.

    Attributes:
        cross_entropy: nats, mean over the batch, weighed by class where the configuration says so.
        penalty: Eq. 9 without psi; None where the step skipped it.  By finite difference its
            gradient is an estimate, and the other parts are those of minimally shifted images.
        added: k_out L_out (Eq. 12) and TRADES' divergence, each with its weight; None where
            neither is on.
        correct: number of images classified correctly, after the adversary.
    """

    cross_entropy: Tensor
    penalty: Tensor | None
    added: Tensor | None
    correct: Tensor


def step_loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainConfig,
    is_penalised: bool,
    generator: Generator,
    class_weights: Tensor | None = None,
) -> StepLoss:
    """Cross-entropy and what the configuration adds to it.

    Args:
        network: in the mode the caller chose; in training mode its batch statistics move once
            (with TRADES once more, on attacked images), and during attack passes as
            ``config.attack_norm_mode`` says.
        images: (B, C, H, W) float32 in [0, 1]; not modified.
        labels: (B,) int64.
        is_penalised: whether this step pays for the second derivatives of L_adv (Eq. 9).
        generator: source of all that is drawn here, in the same state in every process; on the
            device of ``images``.
        class_weights: (V,) of `class_balanced_weights`; the loss is then the weighted mean.
    """
    if config.adversary != Adversary.NONE:
        generator = own_generator(generator)
    part = random_part(len(images), share=_share(config), generator=generator)
    attacked = _attacked(network, images[part], labels[part], config, generator)
    is_trades = config.adversary == Adversary.TRADES
    if len(part) and not is_trades:
        images = images.index_copy(0, part, attacked)
    penalty = None
    if is_penalised:
        images = images.detach().requires_grad_()
    logits = network(images)
    if is_penalised:
        penalty, logits = _penalty(network, logits, images, labels, config, generator)
    added = None
    if config.output_zeroing > 0.0:
        added = config.output_zeroing * output_zeroing_penalty(logits)  # Eq. 12
    if len(part) and is_trades:
        divergence = trades_divergence(logits[part], network(attacked))
        added = config.trades_weight * divergence + (0.0 if added is None else added)
    return StepLoss(
        cross_entropy=_cross_entropy(logits, labels, class_weights),
        penalty=penalty,
        added=added,
        correct=(logits.detach().argmax(1) == labels).sum(),
    )


def _cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Its mean over processes is the weighted mean over all their images."""
    loss = functional.cross_entropy(logits, labels, weight=class_weights)
    if class_weights is None:
        return loss
    own = class_weights[labels].sum()
    return loss * (own / mean_over_processes(own))


def _share(config: TrainConfig) -> float:
    return 0.0 if config.adversary == Adversary.NONE else config.adversary_share


def _attacked(
    network: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig, generator: Generator
) -> Tensor:
    """(B, C, H, W): what the configured adversary makes of ``images``."""
    if len(images) == 0:
        return images
    eps, step_count = config.adversary_eps, config.adversary_steps
    walk: dict[str, Any] = {
        "eps": eps,
        "step_size": config.adversary_step_ratio * eps / step_count,
        "step_count": step_count,
        "generator": generator,
    }
    with norm_mode(network, NormMode(config.attack_norm_mode)):
        match Adversary(config.adversary):
            case Adversary.NONE:
                return images
            case Adversary.GAUSSIAN:
                return gaussian_noise(images, eps=eps, generator=generator)
            case Adversary.L2:
                return l2_adversary(network, images, labels, eps=eps, step_count=step_count)
            case Adversary.L2_MIN:
                return l2_min_adversary(network, images, labels, eps=eps, step_count=step_count)
            case Adversary.PGD:
                return pgd_adversary(network, images, labels, **walk)
            case Adversary.TRADES:
                return trades_adversary(network, images, **walk)


def _penalty(
    network: nn.Module,
    logits: Tensor,
    images: Tensor,
    labels: Tensor,
    config: TrainConfig,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Eq. 9 without psi, and the logits that carry the gradient of all other parts."""
    batch, class_count = len(logits) * world_size(), logits.shape[1]
    classes = draw_classes(
        batch,
        class_count=class_count,
        outputs_per_image=min(config.outputs_per_image, class_count),
        generator=generator,
    )
    weights = stacked_output_weights(
        logits,
        labels,
        classes=shard(classes, dim=1),
        shares=shard(torch.rand(batch, generator=generator, device=logits.device)),
        true_class_share=config.true_class_share,
        pairing=Pairing(config.pairing),
    )
    penalty = partial(
        input_gradient_penalty,
        power=config.power,
        cross_power=config.cross_power,
        dead_zone=config.dead_zone,
    )
    if config.penalty_mode == PenaltyMode.FINITE_DIFFERENCE:
        return finite_difference_penalty(network, logits, images, weights, penalty)
    penalties = []
    for row in weights:
        (gradients,) = torch.autograd.grad((logits * row).sum(), images, create_graph=True)
        penalties.append(penalty(gradients))
    return torch.stack(penalties).mean(), logits
