"""Carlini and Wagner's L2 attack."""

import torch
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, SmallestFound
from candor.attacks.margin import goal_margin, holds
from candor.terms import Goal

SEARCHES = 6
LEARNING_RATE = 0.01
FIRST_WEIGHT = 1.0
_ATANH_MARGIN = 1e-6


def carlini_wagner(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """Adam on |delta|^2 + c max(margin, 0) in tanh space.  (arXiv 1608.04644)

    Six searches, c by bisection between the largest that failed and the smallest that reached.

    Args:
        network, originals, labels: as in `candor.attacks.ddn.ddn`.
        steps: Adam's, of each search.
    """
    best = SmallestFound(originals)
    weights = torch.full((len(originals),), FIRST_WEIGHT, device=originals.device)
    low, high = torch.zeros_like(weights), torch.full_like(weights, torch.inf)
    for _ in range(SEARCHES):
        was_reached = _search(network, originals, labels, goal, weights, steps, best)
        high = torch.where(was_reached, torch.minimum(high, weights), high)
        low = torch.where(was_reached, low, torch.maximum(low, weights))
        weights = torch.where(high.isfinite(), (low + high) / 2, weights * 10)
    return best.candidates(steps * SEARCHES)


def _search(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    goal: Goal,
    weights: Tensor,
    steps: int,
    best: SmallestFound,
) -> Tensor:
    """One run of Adam with the penalty's weights (B,); (B,) bool, whether it reached the goal."""
    hidden = (originals * 2 - 1).mul(1 - _ATANH_MARGIN).atanh().requires_grad_()
    optimizer = torch.optim.Adam([hidden], lr=LEARNING_RATE)
    was_reached = torch.zeros(len(originals), dtype=torch.bool, device=originals.device)
    for _ in range(steps):
        with torch.enable_grad():
            images = (hidden.tanh() + 1) / 2
            logits = network(images)
            penalty = weights * goal_margin(logits, labels, goal).clamp_min(0.0)
            loss = (images - originals).square().sum() + penalty.sum()
            (hidden.grad,) = torch.autograd.grad(loss, hidden)
        is_reached = holds(logits.detach(), labels, goal)
        best.offer(images.detach(), is_reached)
        was_reached |= is_reached
        optimizer.step()
    return was_reached
