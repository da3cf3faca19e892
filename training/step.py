"""One optimisation step's loss: cross-entropy and all regularisers."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from training.engine import Engine
from training.finite_difference import finite_difference_penalty
from training.inner_gradient import inner_gradients
from training.mixing import cut_mix, soft_targets
from training.psi import PsiFollows
from training.regularizers import (
    Pairing,
    PenaltyMode,
    draw_classes,
    input_gradient_penalty,
    output_zeroing_penalty,
    stacked_output_weights,
)
from training.weight_penalties import parseval_penalty, spectral_penalty


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss:
    """Parts of one step's loss, scalars with gradient.

    Attributes:
        cross_entropy: nats, mean over the batch, weighed by class where the configuration says so.
        penalty: Eq. 9 without psi; None where the step skipped it.  By finite difference its
            gradient is an estimate, and the other parts are those of minimally shifted images.
        added: k_out L_out (Eq. 12), the penalties of weights and TRADES' divergence, each with its
            weight; None where none is on.
        followed: the cross-entropy that psi follows, no gradient; see `PsiFollows`.
        correct: number of images classified correctly, after the adversary.
    """

    cross_entropy: Tensor
    penalty: Tensor | None
    added: Tensor | None
    followed: Tensor
    correct: Tensor


def step_loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainConfig,
    class_count: int,
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
        class_count: V.
        is_penalised: whether this step pays for the second derivatives of L_adv (Eq. 9).
        generator: source of all that is drawn here, in the same state in every process; on the
            device of ``images``.
        class_weights: (V,) of `class_balanced_weights`; the loss is then the weighted mean.
    """
    images, labels, targets = _mixed(images, labels, config, class_count, generator)
    if config.adversary != Adversary.NONE:
        generator = own_generator(generator)
    part = random_part(len(images), share=_share(config), generator=generator)
    attacked = _attacked(network, images[part], labels[part], config, generator)
    is_trades = config.adversary == Adversary.TRADES
    if len(part) and not is_trades:
        images = images.index_copy(0, part, attacked)
    penalty = None
    if is_penalised:
        logits, penalty = _penalised(network, images, labels, config, class_count, generator)
    else:
        logits = network(images)
    added = _added(network, logits, config)
    if len(part) and is_trades:
        divergence = trades_divergence(logits[part], network(attacked))
        added = config.trades_weight * divergence + (0.0 if added is None else added)
    cross_entropy = _cross_entropy(logits, targets, class_weights, config.label_smoothing)
    followed = cross_entropy.detach()
    if 0 < len(part) < len(labels) and config.psi_follows == PsiFollows.CLEAN:
        is_clean = torch.ones_like(labels, dtype=torch.bool).index_fill(0, part, value=False)
        clean_logits, clean_targets = logits.detach()[is_clean], targets[is_clean]
        followed = _cross_entropy(
            clean_logits, clean_targets, class_weights, config.label_smoothing
        )
    return StepLoss(
        cross_entropy=cross_entropy,
        penalty=penalty,
        added=added,
        followed=followed,
        correct=(logits.detach().argmax(1) == labels).sum(),
    )


def _mixed(
    images: Tensor, labels: Tensor, config: TrainConfig, class_count: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, the class that each shows most of, and what its outputs are to be: (B,) or (B, V)."""
    if config.cutmix_share == 0.0:
        return images, labels, labels
    draw = torch.rand((), generator=generator, device=images.device)
    if draw >= config.cutmix_share:
        return images, labels, labels
    mixed = cut_mix(images, labels, generator=generator)
    return mixed.images, mixed.labels, soft_targets(mixed, class_count)


def _added(network: nn.Module, logits: Tensor, config: TrainConfig) -> Tensor | None:
    """What punishes outputs and weights, each with its weight; None where nothing does."""
    parts = []
    if config.output_zeroing > 0.0:
        parts.append(config.output_zeroing * output_zeroing_penalty(logits))  # Eq. 12
    with torch.autocast(logits.device.type, enabled=False):
        if config.parseval > 0.0:
            parts.append(config.parseval * parseval_penalty(network))
        if config.spectral > 0.0:
            parts.append(config.spectral * spectral_penalty(network))
    return torch.stack(parts).sum() if parts else None


def _cross_entropy(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """Its mean over processes is the weighted mean over all their images."""
    loss = functional.cross_entropy(
        logits, targets, weight=class_weights, label_smoothing=smoothing
    )
    if class_weights is None:
        return loss
    own = class_weights[targets].sum()
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
    is_compiled = config.engine == Engine.COMPILED
    with (
        norm_mode(network, NormMode(config.attack_norm_mode)),
        _fixed(network, is_fixed=is_compiled),
    ):
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


@contextmanager
def _fixed(network: nn.Module, *, is_fixed: bool) -> Iterator[None]:
    """Inside the block no weight requires a gradient.

    A compiled backward computes the gradients of everything that requires one, asked for or not.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad and is_fixed]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _penalised(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: TrainConfig,
    class_count: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """The logits that carry the gradient of all other parts, and Eq. 9 without psi."""
    classes, shares = _drawn(len(images), class_count, config, generator)
    weights = partial(
        stacked_output_weights,
        true_class_share=config.true_class_share,
        pairing=Pairing(config.pairing),
    )
    penalty = partial(
        input_gradient_penalty,
        power=config.power,
        cross_power=config.cross_power,
        dead_zone=config.dead_zone,
    )
    images = images.detach()
    if config.penalty_mode == PenaltyMode.INNER_GRADIENT:
        differentiated = inner_gradients(Engine(config.engine))
        logits, gradients = differentiated(network, images, labels, classes, shares, weights)
        at_least_float32 = torch.promote_types(gradients.dtype, torch.float32)
        return logits, torch.stack(
            [penalty(of_one.to(at_least_float32)) for of_one in gradients]
        ).mean()
    images.requires_grad_()
    logits = network(images)
    rows = weights(logits, labels, classes=classes, shares=shares)
    if config.penalty_mode == PenaltyMode.FINITE_DIFFERENCE:
        value, logits = finite_difference_penalty(network, logits, images, rows, penalty)
        return logits, value
    penalties = []
    for row in rows:
        (of_pixels,) = torch.autograd.grad((logits * row).sum(), images, create_graph=True)
        penalties.append(penalty(of_pixels))
    return logits, torch.stack(penalties).mean()


def _drawn(
    own_count: int, class_count: int, config: TrainConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Of this process: classes (K, B), and numbers (B,) that decide on the true one."""
    batch = own_count * world_size()
    classes = draw_classes(
        batch,
        class_count=class_count,
        outputs_per_image=min(config.outputs_per_image, class_count),
        generator=generator,
    )
    shares = torch.rand(batch, generator=generator, device=generator.device)
    return shard(classes, dim=1), shard(shares)
