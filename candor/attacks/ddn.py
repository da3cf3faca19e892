"""Decoupled direction and norm, L2."""

import torch
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, SmallestFound
from candor.attacks.gradients import score_gradients
from candor.attacks.margin import holds
from candor.attacks.projection import to_length
from candor.attacks.schedule import cosine
from candor.search.goals import log_odds
from candor.terms import Goal

FIRST_NORM = 1.0
NORM_CHANGE = 0.05


def ddn(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """The smallest image that reaches ``goal``.  (Rony et al., arXiv 1811.09600, Algorithm 1)

    The direction climbs the cross-entropy (here its equal in direction, the falling log-odds of
    s_t); the norm shrinks by 5 % where the goal holds and grows by 5 % where it does not.  No
    random number is drawn, and an image's way does not depend on its batch; see
    `candor.attacks.batching` for what rounding may do.

    Args:
        network: in evaluation mode; maps (B, C, H, W) to logits (B, V).
        originals: (B, C, H, W) float32 in [0, 1]; not modified.     labels: (B,) int64.
        steps: >= 1; the step length falls from 1 to 0.01 along a cosine.
    """
    best = SmallestFound(originals)
    deltas = torch.zeros_like(originals)
    norms = torch.full((len(originals),), FIRST_NORM, device=originals.device)
    for step in range(steps):
        images = originals + deltas
        logits, _, gradients = score_gradients(network, images, lambda y: log_odds(y, labels))
        is_reached = holds(logits, labels, goal)
        best.offer(images, is_reached)
        moved = deltas - to_length(gradients, cosine(step, steps))
        norms = norms * torch.where(is_reached, 1 - NORM_CHANGE, 1 + NORM_CHANGE)
        deltas = (originals + to_length(moved, norms)).clamp(0.0, 1.0) - originals
    with torch.no_grad():
        best.offer(originals + deltas, holds(network(originals + deltas), labels, goal))
    return best.candidates(steps)
