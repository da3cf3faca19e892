"""One optimisation step's loss: cross-entropy and L_adv.  Imports candor and siblings."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from training.config import TrainConfig
from training.regularizers import Pairing, input_gradient_penalty, output_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss:
    """Parts of one step's loss, scalars with gradient.

    Attributes:
        cross_entropy: nats, mean over the batch.
        penalty: Eq. 9 without psi; None where the step skipped it.
        correct: number of images classified correctly.
    """

    cross_entropy: Tensor
    penalty: Tensor | None
    correct: Tensor


def step_loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainConfig,
    is_penalised: bool,
    generator: Generator,
) -> StepLoss:
    """Cross-entropy and, if asked for, the input-gradient penalty by double backward.  (Eq. 9)

    Args:
        network: in the mode the caller chose; in training mode its batch statistics move once.
        images: (B, C, H, W) float32 in [0, 1]; not modified.
        labels: (B,) int64.
        is_penalised: whether this step pays for the double backward.
        generator: source of the drawn classes.
    """
    if is_penalised:
        images = images.detach().requires_grad_()
    logits = network(images)
    penalty = None
    if is_penalised:
        penalty = _penalty(logits, images, labels, config, generator)
    return StepLoss(
        cross_entropy=functional.cross_entropy(logits, labels),
        penalty=penalty,
        correct=(logits.detach().argmax(1) == labels).sum(),
    )


def _penalty(
    logits: Tensor, images: Tensor, labels: Tensor, config: TrainConfig, generator: Generator
) -> Tensor:
    batch, class_count = logits.shape
    device = logits.device
    weights = output_weights(
        logits,
        labels,
        classes=torch.randint(class_count, (batch,), generator=generator, device=device),
        shares=torch.rand(batch, generator=generator, device=device),
        true_class_share=config.true_class_share,
        pairing=Pairing(config.pairing),
    )
    (gradients,) = torch.autograd.grad((logits * weights).sum(), images, create_graph=True)
    return input_gradient_penalty(gradients, power=config.power, dead_zone=config.dead_zone)
