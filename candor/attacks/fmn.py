"""Fast minimum norm, L2."""

import torch
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, SmallestFound
from candor.attacks.gradients import score_gradients
from candor.attacks.margin import holds, margin_score
from candor.attacks.projection import to_length
from candor.attacks.schedule import cosine
from candor.search.geometry import lengths_of
from candor.terms import Goal

FIRST_CHANGE, LAST_CHANGE = 0.05, 0.001
_SMALLEST_SLOPE = 1e-12
_LARGEST_NORM = 1e6  # stands for the infinite norm of an image that has not moved yet


def fmn(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """The smallest image that reaches ``goal``.  (Pintor et al., arXiv 2102.12827, Algorithm 1)

    Until the goal first holds the norm allowed is the first-order distance to the boundary,
    |margin| / |gradient|; afterwards it changes by 5 % falling to 0.1 %.

    Args:
        network, originals, labels, steps: as in `candor.attacks.ddn.ddn`.
    """
    best = SmallestFound(originals)
    deltas = torch.zeros_like(originals)
    norms = torch.full((len(originals),), torch.inf, device=originals.device)
    has_reached = torch.zeros(len(originals), dtype=torch.bool, device=originals.device)
    for step in range(steps):
        images = originals + deltas
        logits, margins, gradients = score_gradients(network, images, margin_score(labels, goal))
        is_reached = holds(logits, labels, goal)
        best.offer(images, is_reached)
        has_reached = has_reached | is_reached
        jump = margins.abs() / lengths_of(gradients).clamp_min(_SMALLEST_SLOPE)
        change = cosine(step, steps, FIRST_CHANGE, LAST_CHANGE)
        norms = _next_norms(norms, lengths_of(deltas), jump, change, is_reached, has_reached)
        moved = deltas - to_length(gradients, cosine(step, steps))
        kept = torch.minimum(lengths_of(moved), norms)
        deltas = (originals + to_length(moved, kept)).clamp(0.0, 1.0) - originals
    with torch.no_grad():
        best.offer(originals + deltas, holds(network(originals + deltas), labels, goal))
    return best.candidates(steps)


def _next_norms(
    norms: Tensor,
    lengths: Tensor,
    jump: Tensor,
    change: float,
    is_reached: Tensor,
    has_reached: Tensor,
) -> Tensor:
    """(B,) norms allowed: smaller where the goal holds now, larger where it does not."""
    outward = torch.where(has_reached, norms * (1 + change), lengths + jump)
    inward = torch.minimum(norms.clamp_max(_LARGEST_NORM) * (1 - change), lengths)
    return torch.where(is_reached, inward, outward)
