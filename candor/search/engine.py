"""Runs many searches to their ends in one batch that stays full.  Imports siblings and torch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from candor.contracts import limits
from candor.contracts.worker import Goal
from candor.search.goals import goal_code
from candor.search.outcome import SearchResult, finish, join_results
from candor.search.solvers import SOLVERS
from candor.search.state import SearchState, begin, concatenate

_ROUND_STEPS = 10  # searches enter and leave the batch this often


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to search: M searches over N images.

    Attributes:
        image_indices: (M,) int64 into the images.
        goals: (M,) int64 codes, see `candor.search.goals`.
        targets: (M,) int64.
        rhos: (M,) float64 in (0, 1].
        step_counts, seeds: (M,) int64.
    """

    image_indices: Tensor
    goals: Tensor
    targets: Tensor
    rhos: Tensor
    step_counts: Tensor
    seeds: Tensor

    def __len__(self) -> int:
        return len(self.goals)


def plan_goal(
    goal: Goal,
    targets: Tensor,
    *,
    steps: int = limits.DEFAULT_STEPS,
    rho: float = 1.0,
    seed: int = 0,
) -> SearchPlan:
    """One search an image: same goal, ``targets`` (N,) int64, seeds count up from ``seed``."""
    count = len(targets)
    return SearchPlan(
        image_indices=torch.arange(count),
        goals=torch.full((count,), goal_code(goal)),
        targets=targets,
        rhos=torch.full((count,), rho, dtype=torch.float64),
        step_counts=torch.full((count,), steps),
        seeds=torch.arange(seed, seed + count),
    )


def run_searches(
    network: nn.Module,
    images: Tensor,
    plan: SearchPlan,
    *,
    solver: str = limits.DEFAULT_SOLVER,
    batch_size: int = 64,
    report: Callable[[int, int], None] = lambda finished, image_steps: None,
) -> SearchResult:
    """Every search of ``plan`` to its end; finished ones leave at once and waiting ones enter.

    Args:
        network: in evaluation mode, on the device of ``images``.
        images: (N, C, H, W) float32 in [0, 1].
        report: called after each round with the searches finished and the image-steps done.
    Returns:
        One entry a search, in the order of the plan.
    Raises:
        ValueError: an unknown solver, or see `candor.search.state.begin`.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver: got {solver!r}, allowed {tuple(SOLVERS)}")
    strategy = SOLVERS[solver]
    results: list[SearchResult] = []
    order: list[int] = []
    waiting = 0
    running: SearchState | None = None
    inside: list[int] = []
    image_steps = 0
    while waiting < len(plan) or inside:
        entering = range(waiting, min(len(plan), waiting + batch_size - len(inside)))
        if entering:
            fresh = _begin(images, plan, entering)
            running = fresh if running is None else concatenate([running, fresh])
            inside.extend(entering)
            waiting = entering.stop
        assert running is not None
        before = int(running.steps.sum())
        running = strategy.advance(network, running, _ROUND_STEPS)
        image_steps += int(running.steps.sum()) - before
        is_done = strategy.is_finished(running)
        if bool(is_done.any()):
            results.append(finish(network, running.select(is_done)))
            done = is_done.tolist()
            order.extend(index for index, ended in zip(inside, done, strict=True) if ended)
            inside = [index for index, ended in zip(inside, done, strict=True) if not ended]
            running = running.select(~is_done) if inside else None
        report(len(order), image_steps)
    positions = sorted(range(len(order)), key=order.__getitem__)
    return join_results(results, positions)


def _begin(images: Tensor, plan: SearchPlan, entering: range) -> SearchState:
    chosen = slice(entering.start, entering.stop)
    return begin(
        images[plan.image_indices[chosen]],
        goals=plan.goals[chosen],
        targets=plan.targets[chosen],
        rhos=plan.rhos[chosen],
        step_counts=plan.step_counts[chosen],
        seeds=plan.seeds[chosen],
    )
