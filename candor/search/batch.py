"""Many searches run to their ends in one batch that is kept full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor, nn

from candor import terms
from candor.search.goals import goal_code, is_explanation, norm_code, output_condition
from candor.search.network import checked
from candor.search.result import SearchResult, finish, join_results
from candor.search.solvers import SOLVERS, Solver
from candor.search.state import SearchState, begin, concatenate
from candor.search.steps import Executor, as_one_batch
from candor.terms import Goal, Norm

# Called with the searches that have finished and the image-steps done so far.
Report = Callable[[int, int], None]
_ROUND_STEPS = 3  # searches enter and leave the batch after so many steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to search: M searches over N images.

    Attributes:
        image_indices: (M,) int64 into the images.
        goals: (M,) int64 codes, see `candor.search.goals`.
        targets: (M,) int64.
        rhos: (M,) float64 in (0, 1].
        step_counts, seeds: (M,) int64.
        masks: (M, H, W) float32 in [0, 1], where each may change its image; None for everywhere.
        norms: (M,) int64 codes, in which ``rhos`` are measured; None for L2.
        away_from: (M,) int64, class that an explanation moves away from, -1 without one; None
            where there is none at all.
    """

    image_indices: Tensor
    goals: Tensor
    targets: Tensor
    rhos: Tensor
    step_counts: Tensor
    seeds: Tensor
    masks: Tensor | None = None
    norms: Tensor | None = None
    away_from: Tensor | None = None

    def __len__(self) -> int:
        return len(self.goals)


def plan_goal(
    goal: Goal,
    targets: Tensor,
    *,
    steps: int = terms.PAPER_STEPS,
    rho: float = 1.0,
    seed: int = 0,
    masks: Tensor | None = None,
    norm: Norm = Norm.L2,
    away_from: Tensor | None = None,
) -> SearchPlan:
    """One search for each image, all with one goal; seeds count up from ``seed``.

    Args:
        targets: (N,) int64, the label or the class to explain of each image.
        steps: >= 1, for each search.
        rho: in (0, 1], measured in ``norm``; used by explanations only.
        masks: (N, H, W) float32 in [0, 1]; default everywhere.
        norm: another one than L2 for explanations only.
        away_from: (N,) int64, for explanations only; default the log-odds against all classes.
    """
    count = len(targets)
    return SearchPlan(
        image_indices=torch.arange(count),
        goals=torch.full((count,), goal_code(goal)),
        targets=targets,
        rhos=torch.full((count,), rho, dtype=torch.float64),
        step_counts=torch.full((count,), steps),
        seeds=torch.arange(seed, seed + count),
        masks=masks,
        norms=None if norm is Norm.L2 else torch.full((count,), norm_code(norm)),
        away_from=away_from,
    )


def run_searches(
    network: nn.Module,
    images: Tensor,
    plan: SearchPlan,
    *,
    solver: str = "paper",
    batch_size: int = 64,
    searcher: nn.Module | None = None,
    report: Report = lambda finished, image_steps: None,
    execute: Executor = as_one_batch,
) -> SearchResult:
    """Every search of ``plan`` to its end by a solver named in `candor.search.solvers.SOLVERS`.

    Arguments, result and errors are those of `run_with`.

    Raises:
        ValueError: there is no such solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {tuple(SOLVERS)}, got {solver!r}")
    return run_with(
        SOLVERS[solver],
        network,
        images,
        plan,
        batch_size=batch_size,
        searcher=searcher,
        report=report,
        execute=execute,
    )


def run_with(
    solver: Solver,
    network: nn.Module,
    images: Tensor,
    plan: SearchPlan,
    *,
    batch_size: int = 64,
    searcher: nn.Module | None = None,
    report: Report = lambda finished, image_steps: None,
    execute: Executor = as_one_batch,
) -> SearchResult:
    """Every search of ``plan`` to its end; finished ones leave the batch and waiting ones enter.

    An image that is wrong as it came costs one forward pass and never enters the batch.

    Args:
        network: in evaluation mode, float32, on the device of ``images``; verifies what ends.
        images: (N, C, H, W) float32 in [0, 1].
        searcher: takes the steps; default ``network``, or the same in low precision.
        report: called after every few steps of the batch.
        execute: how the steps of a batch are done; `candor.runtime.threads.in_shares` does them
            with threads of the CPU and suits compiled networks.
    Returns:
        One entry for each search, in the order of the plan.
    Raises:
        ValueError: see `candor.search.state.begin`.
        NotFinite: the network answers with infinite numbers or NaN.
    """
    network, searcher = checked(network), None if searcher is None else checked(searcher)
    is_wrong = _is_wrong(network, images, plan, batch_size)
    waiting = (~is_wrong).nonzero()[:, 0].tolist()
    finished = _FinishedSearches(network, batch_size)
    for wrong in torch.split(is_wrong.nonzero()[:, 0], batch_size):
        finished.add(wrong.tolist(), _begin(images, plan, wrong.tolist()))
    batch, indices = _begin(images, plan, []), list[int]()
    image_steps = 0
    while waiting or indices:
        entering = waiting[: batch_size - len(indices)]
        if entering:
            batch = concatenate([batch, _begin(images, plan, entering)])
            indices += entering
            waiting = waiting[len(entering) :]
        before = int(batch.steps.sum())
        batch = solver.advance(searcher or network, batch, _ROUND_STEPS, execute=execute)
        image_steps += int(batch.steps.sum()) - before
        is_done = solver.is_finished(batch)
        if bool(is_done.any()):
            finished.add(list(compress(indices, is_done.tolist())), batch.select(is_done))
            indices = list(compress(indices, (~is_done).tolist()))
            batch = batch.select(~is_done)
        report(len(plan) - len(waiting) - len(indices), image_steps)
    return finished.joined()


class _FinishedSearches:
    """Finished searches, verified a batch at a time: a few would cost as much as a full batch."""

    def __init__(self, network: nn.Module, batch_size: int) -> None:
        self._network = network
        self._batch_size = batch_size
        self._indices: list[int] = []
        self._pending: list[SearchState] = []
        self._results: list[SearchResult] = []

    def add(self, indices: Sequence[int], state: SearchState) -> None:
        """Take over the searches at ``indices`` of the plan."""
        self._indices += indices
        self._pending.append(state)
        if sum(map(len, self._pending)) >= self._batch_size:
            self._verify()

    def joined(self) -> SearchResult:
        """Every result, in the order of the plan."""
        if self._pending:
            self._verify()
        positions = sorted(range(len(self._indices)), key=self._indices.__getitem__)
        return join_results(self._results, positions)

    def _verify(self) -> None:
        pending, self._pending = concatenate(self._pending), []
        for part in torch.split(torch.arange(len(pending)), self._batch_size):
            self._results.append(finish(self._network, pending.select(part)))


@torch.no_grad()
def _is_wrong(network: nn.Module, images: Tensor, plan: SearchPlan, batch_size: int) -> Tensor:
    """(M,) bool: the goal holds for the image as it came.  One forward pass for each image.

    The goal of an explanation never does, so a plan of explanations alone needs no forward pass.
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
        masks=None if plan.masks is None else plan.masks[chosen],
        norms=None if plan.norms is None else plan.norms[chosen],
        away_from=None if plan.away_from is None else plan.away_from[chosen],
    )
