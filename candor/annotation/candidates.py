"""Overly confident adversarial images for annotators.  (III-H)"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from candor import terms
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.goals import goal_code, output_condition
from candor.search.state import rmse
from candor.terms import Goal, SearchStatus

# Rounding to 8 bits may undo the goal, which the search only just met: the perturbation is
# stretched by the first of these factors that still meets it after rounding.
_STRETCHES = (1.0, 1.01, 1.03, 1.1, 1.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlyConfident:
    """Images of which the network is overly confident that they show another class.

    Attributes:
        indices: (M,) int64 into the images searched; no candidate was found in the others.
        pixels: (M, C, H, W) uint8; every number here is measured on these, after rounding.
        classes: (M,) int64, the class the network is confident of.
        margins: (M,) float32, by how much it leads the next likely class, (0.5, 1].
        rmse: (M,) float64 to the original images.
    """

    indices: Tensor
    pixels: Tensor
    classes: Tensor
    margins: Tensor
    rmse: Tensor


def overly_confident(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    *,
    steps: int | None = None,
    solver: str = terms.DEFAULT_SOLVER,
    seed: int = 0,
    batch_size: int = 64,
    report: Callable[[int, int], None] = lambda finished, image_steps: None,
) -> OverlyConfident:
    """The least change that makes the network confident, by 0.5, of a wrong class.  (III-H)

    Images on which the search failed are left out, and so are those for which the goal already
    held: they are unchanged, so there is nothing to judge.

    Args:
        network: in evaluation mode.
        pixels: (N, C, H, W) uint8, not modified.
        labels: (N,) int64, the true classes.
        steps: of each search; None for those of the solver's radii.
        report: as in `run_searches`.
    """
    device = next(network.parameters()).device
    images = pixels.to(device, torch.float32) / 255.0
    labels = labels.to(device)
    steps = terms.default_steps(solver, explains=False) if steps is None else steps
    plan = plan_goal(Goal.CONFIDENT, labels, steps=steps, seed=seed)
    result = run_searches(
        network,
        images,
        plan,
        solver=solver,
        batch_size=batch_size,
        report=report,
        execute=in_shares,
    )
    is_found = torch.tensor([status is SearchStatus.FOUND for status in result.statuses])
    found = is_found.nonzero()[:, 0].to(device)
    rounded, holds = _rounded(network, images[found], result.images[found], labels[found])
    found, rounded = found[holds], rounded[holds]
    shown = rounded.to(torch.float32) / 255.0
    with torch.no_grad():
        top = network(shown).softmax(dim=1).topk(2, dim=1)
    return OverlyConfident(
        indices=found.cpu(),
        pixels=rounded.cpu(),
        classes=top.indices[:, 0].cpu(),
        margins=(top.values[:, 0] - top.values[:, 1]).cpu(),
        rmse=rmse(shown, images[found]).cpu(),
    )


@torch.no_grad()
def _rounded(
    network: nn.Module, originals: Tensor, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) uint8 and (B,) bool, whether the goal holds for it."""
    goals = torch.full_like(labels, goal_code(Goal.CONFIDENT))
    chosen = torch.zeros_like(images, dtype=torch.uint8)
    holds = torch.zeros_like(labels, dtype=torch.bool)
    for stretch in _STRETCHES:
        stretched = (originals + stretch * (images - originals)).clamp(0.0, 1.0)
        pixels = (stretched * 255.0).round().to(torch.uint8)
        is_new = ~holds & output_condition(network(pixels / 255.0), goals, labels)
        chosen[is_new] = pixels[is_new]
        holds |= is_new
    return chosen, holds
