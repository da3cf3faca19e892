"""Gradients of a score of the logits with respect to the pixels."""

import torch
from torch import Tensor, nn

from candor.attacks.margin import Score


def score_gradients(
    network: nn.Module, images: Tensor, score: Score
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, V), scores (B,) and their gradients (B, C, H, W); all detached.

    Args:
        network: in the mode that the caller chose; its weights collect no gradient.
        images: (B, C, H, W); not modified.
        score: of the logits; an image's score depends on its own logits alone.
    """
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        logits = network(inputs)
        scores = score(logits)
        (gradients,) = torch.autograd.grad(scores.sum(), inputs)
    return logits.detach(), scores.detach(), gradients
