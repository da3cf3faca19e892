"""Projected gradient descent with normalised steps inside an L2 ball."""

import torch
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, proposed
from candor.attacks.gradients import score_gradients
from candor.attacks.margin import Score, holds, margin_score
from candor.attacks.projection import project, to_length
from candor.terms import Goal

STEP_SHARE = 2.5  # step length is this times eps over the number of steps (Madry et al.)


def pgd(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    *,
    steps: int,
    start: Tensor | None = None,
    score: Score | None = None,
) -> Candidates:
    """Projected gradient descent; an image stops at its first success.  (arXiv 1706.06083)

    Args:
        network, originals, labels, eps: as in `candor.attacks.fgsm.fgsm`.
        steps: >= 1.
        start: (B, C, H, W) first images; the originals by default.
        score: of logits (B, V), to be lowered; by default the margin of the true class.
    """
    images = descend(
        network,
        originals,
        originals if start is None else project(start, originals, eps),
        margin_score(labels) if score is None else score,
        eps=eps,
        step_length=STEP_SHARE * eps / steps,
        steps=steps,
        stop_at=labels,
    )
    return proposed(network, originals, images, labels, steps)


def descend(
    network: nn.Module,
    originals: Tensor,
    start: Tensor,
    score: Score,
    *,
    eps: float,
    step_length: float,
    steps: int,
    stop_at: Tensor | None = None,
) -> Tensor:
    """Normalised steps down a score, each projected into the L2 ball and the box.

    Args:
        network: in the mode that the caller chose.
        originals, start: (B, C, H, W) in [0, 1]; not modified.
        score: of logits (B, V); a score to be raised comes with its sign changed.
        eps, step_length: L2 on the [0, 1] pixel scale.
        stop_at: (B,) int64 labels; an image stays where its prediction is another one.
    Returns:
        (B, C, H, W) in [0, 1], no gradient.
    """
    images = start
    for _ in range(steps):
        logits, _, gradients = score_gradients(network, images, score)
        moved = project(images - to_length(gradients, step_length), originals, eps)
        if stop_at is not None:
            is_done = holds(logits, stop_at, Goal.ATTACK)[:, None, None, None]
            moved = torch.where(is_done, images, moved)
        images = moved
    return images
