"""Minimal-norm attacks beside the solvers: DDN, FMN and C&W, L2.

All three follow one order: evaluate, keep the smallest image that reaches the goal, step,
project.  None draws a random number, and every image goes its own way whatever its batch.
"""

import math

import torch
from torch import Tensor, nn

from candor.attacks.verification import Candidates, goal_margin, holds, score_gradients, to_length
from candor.search.goals import log_odds
from candor.search.state import rmse
from candor.terms import Goal

DDN_FIRST_NORM = 1.0
DDN_NORM_CHANGE = 0.05
FMN_FIRST_CHANGE, FMN_LAST_CHANGE = 0.05, 0.001
LAST_STEP_SHARE = 0.01  # of the first step length, of DDN and FMN alike
CW_SEARCHES = 6
CW_LEARNING_RATE = 0.01
CW_FIRST_WEIGHT = 1.0
_ATANH_MARGIN = 1e-6


class _Best:
    """The smallest image so far of every image of a batch."""

    def __init__(self, originals: Tensor) -> None:
        self._originals = originals
        self.images = originals.clone()
        self.distances = torch.full((len(originals),), torch.inf, dtype=torch.float64)
        self.largest_missed = torch.zeros(len(originals), dtype=torch.float64)

    def offer(self, pictures: Tensor, is_reached: Tensor) -> None:
        distances = rmse(pictures, self._originals)
        is_better = is_reached & (distances < self.distances)
        self.images = torch.where(is_better[:, None, None, None], pictures, self.images)
        self.distances = torch.where(is_better, distances, self.distances)
        missed = torch.where(is_reached, 0.0, distances)
        self.largest_missed = torch.maximum(self.largest_missed, missed)

    def candidates(self, steps: int) -> Candidates:
        is_found = self.distances.isfinite()
        return Candidates(
            images=self.images,
            is_found=is_found,
            lower_bounds=self.largest_missed,
            steps=torch.full((len(self.distances),), steps),
        )


def ddn(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """Decoupled direction and norm.  (Rony et al., arXiv 1811.09600, Algorithm 1)

    The direction climbs the cross-entropy (here its equal in direction, the falling log-odds of
    s_t); the norm shrinks by 5 % where the goal holds and grows by 5 % where it does not.

    Args:
        originals: (B, C, H, W) float32 in [0, 1].     labels: (B,) int64.
        steps: >= 1; the step length falls from 1 to 0.01 along a cosine.
    """
    best = _Best(originals)
    deltas = torch.zeros_like(originals)
    norms = torch.full((len(originals),), DDN_FIRST_NORM, device=originals.device)
    for step in range(steps):
        pictures = originals + deltas
        logits, _, gradients = score_gradients(network, pictures, lambda y: log_odds(y, labels))
        is_reached = holds(logits, labels, goal)
        best.offer(pictures, is_reached)
        moved = deltas - to_length(gradients, torch.full_like(norms, _cosine(step, steps)))
        norms = norms * torch.where(is_reached, 1 - DDN_NORM_CHANGE, 1 + DDN_NORM_CHANGE)
        deltas = (originals + to_length(moved, norms)).clamp(0.0, 1.0) - originals
    _offer_last(network, best, originals + deltas, labels, goal)
    return best.candidates(steps)


def fmn(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """Fast minimum norm, L2.  (Pintor et al., arXiv 2102.12827, Algorithm 1)

    Until the goal first holds the norm allowed is the first-order distance to the boundary,
    |margin| / |gradient|; afterwards it changes by 5 % falling to 0.1 %.

    Args:
        originals, labels, steps: as in `ddn`.
    """
    best = _Best(originals)
    deltas = torch.zeros_like(originals)
    norms = torch.full((len(originals),), torch.inf, device=originals.device)
    has_reached = torch.zeros(len(originals), dtype=torch.bool, device=originals.device)
    for step in range(steps):
        pictures = originals + deltas
        logits, margins, gradients = score_gradients(
            network, pictures, lambda y: goal_margin(y, labels, goal)
        )
        is_reached = holds(logits, labels, goal)
        best.offer(pictures, is_reached)
        lengths = deltas.flatten(1).norm(dim=1)
        slopes = gradients.flatten(1).norm(dim=1).clamp_min(1e-12)
        change = _cosine(step, steps, FMN_FIRST_CHANGE, FMN_LAST_CHANGE)
        has_reached = has_reached | is_reached
        jump = lengths + margins.abs() / slopes
        outward = torch.where(has_reached, norms * (1 + change), jump)
        inward = torch.minimum(norms.clamp_max(1e6) * (1 - change), lengths)
        norms = torch.where(is_reached, inward, outward)
        moved = deltas - to_length(gradients, torch.full_like(norms, _cosine(step, steps)))
        kept = torch.minimum(moved.flatten(1).norm(dim=1), norms)
        deltas = (originals + to_length(moved, kept)).clamp(0.0, 1.0) - originals
    _offer_last(network, best, originals + deltas, labels, goal)
    return best.candidates(steps)


def carlini_wagner(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, steps: int
) -> Candidates:
    """C&W's L2 attack: Adam on |delta|^2 + c max(margin, 0) in tanh space.  (arXiv 1608.04644)

    Six searches, c by bisection between the largest that failed and the smallest that reached.

    Args:
        originals, labels: as in `ddn`.     steps: Adam's, of each search.
    """
    best = _Best(originals)
    count = len(originals)
    weights = torch.full((count,), CW_FIRST_WEIGHT, device=originals.device)
    low, high = torch.zeros_like(weights), torch.full_like(weights, torch.inf)
    start = (originals * 2 - 1).mul(1 - _ATANH_MARGIN).atanh()
    for _ in range(CW_SEARCHES):
        hidden = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([hidden], lr=CW_LEARNING_RATE)
        was_reached = torch.zeros(count, dtype=torch.bool, device=originals.device)
        for _ in range(steps):
            with torch.enable_grad():
                pictures = (hidden.tanh() + 1) / 2
                logits = network(pictures)
                penalty = weights * goal_margin(logits, labels, goal).clamp_min(0.0)
                loss = (pictures - originals).square().sum() + penalty.sum()
                (hidden.grad,) = torch.autograd.grad(loss, hidden)
            is_reached = holds(logits.detach(), labels, goal)
            best.offer(pictures.detach(), is_reached)
            was_reached |= is_reached
            optimizer.step()
        high = torch.where(was_reached, torch.minimum(high, weights), high)
        low = torch.where(was_reached, low, torch.maximum(low, weights))
        weights = torch.where(high.isfinite(), (low + high) / 2, weights * 10)
    return best.candidates(steps * CW_SEARCHES)


@torch.no_grad()
def _offer_last(
    network: nn.Module, best: _Best, pictures: Tensor, labels: Tensor, goal: Goal
) -> None:
    best.offer(pictures, holds(network(pictures), labels, goal))


def _cosine(step: int, steps: int, first: float = 1.0, last: float = LAST_STEP_SHARE) -> float:
    """From ``first`` at step 0 towards ``last`` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
