"""The plain loop that speed is compared with.

Written as the paper's authors write theirs: eager float32, Half-Huber ReLU with its own backward,
the whole batch to the last step (arXiv 1906.02896 and its released program).
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from candor.nets.activations import HalfHuberReLU
from candor.runtime.threads import on_threads
from candor.search.goals import goal_code, log_odds, output_condition
from candor.terms import Goal

EXPLANATION_STEPS = 35
RADIUS_STEPS = 450
_THREAD_TRIALS = 3
_OVERSHOOT = 5.0  # sum of all step lengths, in rho


def fastest_threads(work: Callable[[], object]) -> int:
    """With which ``work`` is done sooner, one thread or all: the plain loop gets the better."""
    seconds = {}
    for count in (torch.get_num_threads(), 1):
        with on_threads(count):
            work()
            seconds[count] = min(_seconds_of(work) for _ in range(_THREAD_TRIALS))
    return min(seconds, key=seconds.__getitem__)


def _seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _HalfHuber(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.where(inputs < 0.5, inputs.clamp(min=0.0).square(), inputs - 0.25)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        slopes: Tensor = (2.0 * inputs).clamp(0.0, 1.0)
        return gradients * slopes


class _Activation(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = _HalfHuber.apply(inputs)  # type: ignore[no-untyped-call]
        return outputs


def plain_network(network: nn.Module) -> nn.Module:
    """A copy whose Half-Huber ReLUs (d = 1) are custom functions; everything else as it is."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, HalfHuberReLU):
                setattr(module, name, _Activation())
    return plain


def plain_explanations(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    rho: float,
    steps: int = EXPLANATION_STEPS,
) -> Tensor:
    """Perturbed images (B, C, H, W), neither clipped nor drawn to rho.

    Inside rho the normalised gradient of log s_t is followed, outside it -delta; the step length
    falls linearly and the lengths sum to five times rho.
    """
    deltas = torch.zeros_like(images).requires_grad_()
    for step in range(steps):
        losses = nn.functional.cross_entropy(network(images + deltas), targets, reduction="none")
        (gradients,) = torch.autograd.grad(losses.sum(), deltas)
        with torch.no_grad():
            is_inside = deltas.square().mean(dim=(1, 2, 3), keepdim=True) < rho**2
            directions = torch.where(is_inside, -gradients, -deltas)
            lengths = directions.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-8
            share = (steps - step) / (steps * (steps + 1) / 2)
            deltas += _OVERSHOOT * rho * share * directions / lengths
    return (images + deltas).detach()


def plain_radii(
    network: nn.Module, images: Tensor, labels: Tensor, goal: Goal, *, steps: int = RADIUS_STEPS
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 with the constants of III-A1, clipped as printed: the radii of solver `paper`.

    Returns:
        (B,) smallest RMSE at which the goal held, the largest visited where it never did, and (B,)
        bool of the latter.
    """
    deltas, velocities = torch.zeros_like(images).requires_grad_(), torch.zeros_like(images)
    best, largest = torch.full((len(images),), torch.inf), torch.zeros(len(images))
    codes = torch.full((len(images),), goal_code(goal))
    for _ in range(steps):
        perturbed = (images + deltas).clamp(0.0, 1.0)
        logits = network(perturbed)
        (gradients,) = torch.autograd.grad(log_odds(logits, labels).sum(), deltas)
        with torch.no_grad():
            holds = output_condition(logits, codes, labels)
            distances = (perturbed - images).square().mean(dim=(1, 2, 3)).sqrt()
            best = torch.where(holds, torch.minimum(best, distances), best)
            largest = torch.maximum(largest, distances)
            lengths = gradients.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            directions = torch.where(
                holds[:, None, None, None], 2.0 * deltas, 0.55 * gradients / lengths
            )
            velocities = 0.9 * velocities + directions
            deltas -= 0.01 * velocities
    is_unresolved = best.isinf()
    return torch.where(is_unresolved, largest, best), is_unresolved


@torch.no_grad()
def target_log_odds(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """(B,) log-odds of the target's confidence."""
    return log_odds(network(images), targets)
