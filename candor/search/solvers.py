"""Solvers by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from candor.search import fast, paper
from candor.search.state import SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """A solver.

    Attributes:
        advance: a batch taken on by so many steps.
        is_finished: (B,) bool, which searches of a batch have ended.
        images: arrays (C, H, W) that a search takes along between two calls, beside its image;
            the names they have on the wire, see `candor.runtime.chunks`.
        numbers: fields (B,) of the state that it takes along.
    """

    advance: Callable[[nn.Module, SearchState, int], SearchState]
    is_finished: Callable[[SearchState], Tensor]
    images: tuple[str, ...]
    numbers: tuple[str, ...] = ("best_rmse", "best_score", "largest_rmse")


SOLVERS: Mapping[str, Solver] = {
    "paper": Solver(
        advance=paper.advance,
        is_finished=paper.is_finished,
        images=("delta", "velocity", "best"),
    ),
    "fast": Solver(
        advance=fast.advance,
        is_finished=fast.is_finished,
        images=("delta", "best"),
        numbers=("best_rmse", "best_score", "largest_rmse", "stalls", "rivals"),
    ),
}
