"""Solvers by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from candor.search import fast, paper
from candor.search.starts import STARTS, Start
from candor.search.state import SearchState
from candor.search.steps import Executor, as_one_batch


class Advance(Protocol):
    """Takes a batch of searches some steps on, see `candor.search.paper.advance`."""

    def __call__(
        self,
        network: nn.Module,
        state: SearchState,
        steps: int,
        *,
        execute: Executor = as_one_batch,
    ) -> SearchState: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A solver.

    Attributes:
        advance: takes a batch of searches some steps on.
        is_finished: (B,) bool, which searches of a batch have ended.
        carried_images: fields (B, C, H, W) of the state that a search needs for its next steps,
            beside the image as it came; the others may be dropped between two calls.
        carried_numbers: fields (B,) of the state that it needs likewise.
    """

    advance: Advance
    is_finished: Callable[[SearchState], Tensor]
    carried_images: tuple[str, ...]
    carried_numbers: tuple[str, ...] = ("best_rmse", "best_score", "largest_rmse")


def fast_solver(starts: Sequence[Start] = STARTS) -> Solver:
    """Solver `fast` whose attacks walk through ``starts``."""
    return Solver(
        advance=partial(fast.advance, starts=tuple(starts)),
        is_finished=fast.is_finished,
        carried_images=("deltas", "best_images"),
        carried_numbers=("best_rmse", "best_score", "largest_rmse", "stalls", "rivals"),
    )


SOLVERS: Mapping[str, Solver] = {
    "paper": Solver(
        advance=paper.advance,
        is_finished=paper.is_finished,
        carried_images=("deltas", "velocities", "best_images"),
    ),
    "fast": fast_solver(),
}
