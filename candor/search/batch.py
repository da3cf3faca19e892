"""Runs many searches to their ends in one batch that stays full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor, nn

from candor import terms
from candor.search.goals import goal_code, is_explanation, output_condition
from candor.search.result import SearchResult, finish, join_results
from candor.search.solvers import SOLVERS
from candor.search.state import SearchState, begin, concatenate
from candor.terms import Goal

_ROUND_STEPS = 3  # searches enter and leave the batch this often


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
    steps: int = terms.DEFAULT_STEPS,
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
    solver: str = "paper",
    batch_size: int = 64,
    searcher: nn.Module | None = None,
    report: Callable[[int, int], None] = lambda finished, image_steps: None,
) -> SearchResult:
    """Every search of ``plan`` to its end; finished ones leave at once and waiting ones enter.

    An image already wrong costs its forward pass and never enters the batch.

    Args:
        network: in evaluation mode, float32, on the device of ``images``; verifies what ends.
        images: (N, C, H, W) float32 in [0, 1].
        searcher: takes the steps; default ``network``, or the same in low precision.
        report: called after each round with the searches finished and the image-steps done.
    Returns:
        One entry a search, in the order of the plan.
    Raises:
        ValueError: an unknown solver, or see `candor.search.state.begin`.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver: got {solver!r}, allowed {tuple(SOLVERS)}")
    strategy = SOLVERS[solver]
    is_wrong = _is_wrong(network, images, plan, batch_size)
    waiting = (~is_wrong).nonzero()[:, 0].tolist()
    ends = _Ends(network, batch_size)
    for wrong in torch.split(is_wrong.nonzero()[:, 0], batch_size):
        ends.add(wrong.tolist(), _begin(images, plan, wrong.tolist()))
    running = _begin(images, plan, [])
    inside: list[int] = []
    image_steps = 0
    while waiting or inside:
        entering = waiting[: batch_size - len(inside)]
        if entering:
            running = concatenate([running, _begin(images, plan, entering)])
            inside += entering
            waiting = waiting[len(entering) :]
        before = int(running.steps.sum())
        running = strategy.advance(searcher or network, running, _ROUND_STEPS)
        image_steps += int(running.steps.sum()) - before
        is_done = strategy.is_finished(running)
        if bool(is_done.any()):
            done = is_done.tolist()
            ends.add(list(compress(inside, done)), running.select(is_done))
            inside = [index for index, has_ended in zip(inside, done, strict=True) if not has_ended]
            running = running.select(~is_done)
        report(len(plan) - len(waiting) - len(inside), image_steps)
    return ends.joined()


class _Ends:
    """Finished searches, verified a batch at a time: a few would cost as much as a full one."""

    def __init__(self, network: nn.Module, batch_size: int) -> None:
        self._network = network
        self._batch_size = batch_size
        self._order: list[int] = []
        self._pending: list[SearchState] = []
        self._results: list[SearchResult] = []

    def add(self, indices: Sequence[int], state: SearchState) -> None:
        self._order += indices
        self._pending.append(state)
        if sum(map(len, self._pending)) >= self._batch_size:
            self._verify()

    def joined(self) -> SearchResult:
        """Every result, in the order of the plan."""
        if self._pending:
            self._verify()
        positions = sorted(range(len(self._order)), key=self._order.__getitem__)
        return join_results(self._results, positions)

    def _verify(self) -> None:
        pending, self._pending = concatenate(self._pending), []
        for part in torch.split(torch.arange(len(pending)), self._batch_size):
            self._results.append(finish(self._network, pending.select(part)))


@torch.no_grad()
def _is_wrong(network: nn.Module, images: Tensor, plan: SearchPlan, batch_size: int) -> Tensor:
    """(M,) bool: the goal holds for the image as it came.  One forward pass an image.

    No explanation is ever wrong, so where there are only those nothing is asked.
    """
    if bool(is_explanation(plan.goals).all()):
        return torch.zeros(len(plan), dtype=torch.bool)
    used, positions = torch.unique(plan.image_indices, return_inverse=True)
    logits = torch.cat([network(images[part]) for part in torch.split(used, batch_size)])
    return output_condition(logits[positions], plan.goals, plan.targets)


def _begin(images: Tensor, plan: SearchPlan, chosen: list[int]) -> SearchState:
    return begin(
        images[plan.image_indices[chosen]],
        goals=plan.goals[chosen],
        targets=plan.targets[chosen],
        rhos=plan.rhos[chosen],
        step_counts=plan.step_counts[chosen],
        seeds=plan.seeds[chosen],
    )
